//! Made-up persons: the same number gives the same persons each time, on each machine.

use std::collections::HashSet;

use jiff::civil::{Date, date};

use crate::person::{Person, PersonalCode, Residence, Sex};

/// The first person of every register. The check digit is wrong, so the code can belong to nobody.
pub const SPECIMEN: &str = "38001010000";

const GIVEN_MALE: [&str; 24] = [
    "Aleksander",
    "Andres",
    "Artur",
    "Erik",
    "Hannes",
    "Henri",
    "Jaan",
    "Jakob",
    "Jüri",
    "Kaarel",
    "Karl",
    "Kristjan",
    "Lauri",
    "Margus",
    "Mart",
    "Martin",
    "Mihkel",
    "Oskar",
    "Peeter",
    "Priit",
    "Rasmus",
    "Siim",
    "Tõnu",
    "Urmas",
];
const GIVEN_FEMALE: [&str; 24] = [
    "Anna",
    "Anu",
    "Eha",
    "Eliise",
    "Emma",
    "Helena",
    "Ingrid",
    "Kadri",
    "Katrin",
    "Kersti",
    "Kristiina",
    "Laura",
    "Leelo",
    "Liis",
    "Maarja",
    "Mari",
    "Marta",
    "Merike",
    "Pille",
    "Piret",
    "Sirje",
    "Tiina",
    "Triin",
    "Ülle",
];
const SURNAMES: [&str; 32] = [
    "Aas", "Allik", "Ilves", "Jõgi", "Kaasik", "Kallas", "Kask", "Kivi", "Koppel", "Kukk", "Kuusk", "Kütt", "Laas",
    "Lepik", "Lill", "Luik", "Mets", "Mägi", "Oja", "Org", "Pärn", "Raudsepp", "Rebane", "Roos", "Saar", "Sepp",
    "Tamm", "Teder", "Tomson", "Vaher", "Õunapuu", "Ööbik",
];
const RESIDENCES: [(&str, &str); 16] = [
    ("Harju", "Tallinn"),
    ("Harju", "Saue"),
    ("Hiiu", "Hiiumaa"),
    ("Ida-Viru", "Narva"),
    ("Järva", "Paide"),
    ("Jõgeva", "Põltsamaa"),
    ("Lääne", "Haapsalu"),
    ("Lääne-Viru", "Rakvere"),
    ("Pärnu", "Pärnu"),
    ("Põlva", "Räpina"),
    ("Rapla", "Kohila"),
    ("Saare", "Saaremaa"),
    ("Tartu", "Tartu"),
    ("Valga", "Otepää"),
    ("Viljandi", "Viljandi"),
    ("Võru", "Võru"),
];

const FIRST_BIRTH: Date = date(1930, 1, 1);
/// Days from the first birth to the end of 2024.
const BIRTH_DAYS: u64 = 34_699;

/// `count` persons with different personal codes, the specimen first.
pub fn persons(count: usize) -> Vec<Person> {
    let mut numbers = Numbers(0x5AA7_C04D);
    let mut taken = HashSet::from([SPECIMEN.to_owned()]);
    let mut persons = Vec::with_capacity(count);
    if let (true, Ok(code)) = (count > 0, SPECIMEN.parse::<PersonalCode>()) {
        persons.extend(person(&mut numbers, code));
    }
    while persons.len() < count {
        let born = FIRST_BIRTH + jiff::Span::new().days(i64::try_from(numbers.below(BIRTH_DAYS)).unwrap_or_default());
        let sex = if numbers.below(2) == 0 { Sex::Male } else { Sex::Female };
        let serial = u16::try_from(numbers.below(1000)).unwrap_or_default();
        let code = PersonalCode::new(sex, born, serial);
        if taken.insert(code.as_str().to_owned()) {
            persons.extend(person(&mut numbers, code));
        }
    }
    persons
}

fn person(numbers: &mut Numbers, code: PersonalCode) -> Option<Person> {
    let sex = code.sex();
    let given = match sex {
        Sex::Male => numbers.pick(&GIVEN_MALE),
        Sex::Female => numbers.pick(&GIVEN_FEMALE),
    };
    let surname = numbers.pick(&SURNAMES);
    let (county, municipality) = *numbers.pick(&RESIDENCES);
    Some(Person {
        sex,
        date_of_birth: code.date_of_birth().ok()?,
        personal_code: code,
        given_name: (*given).to_owned(),
        surname: (*surname).to_owned(),
        residence: Residence { county: county.to_owned(), municipality: municipality.to_owned() },
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and its sequence is fixed for ever, unlike a library's default.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len() as u64);
        &from[usize::try_from(at).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_different_persons_the_same_each_time() {
        let first = persons(10_000);
        assert_eq!(first.len(), 10_000);
        assert_eq!(first, persons(10_000));
        let codes: HashSet<_> = first.iter().map(|person| person.personal_code.as_str()).collect();
        assert_eq!(codes.len(), 10_000);
    }

    #[test]
    fn a_larger_register_begins_with_the_smaller() {
        assert_eq!(persons(500)[..100], persons(100)[..]);
        assert!(persons(0).is_empty());
    }

    #[test]
    fn all_but_the_specimen_have_their_check_digit() {
        let all = persons(2000);
        assert_eq!(all[0].personal_code.as_str(), SPECIMEN);
        assert!(!all[0].personal_code.is_checked());
        assert!(all[1..].iter().all(|person| person.personal_code.is_checked()));
    }

    #[test]
    fn births_stay_within_their_years() {
        let last = FIRST_BIRTH + jiff::Span::new().days(i64::try_from(BIRTH_DAYS).unwrap() - 1);
        assert_eq!(last, date(2024, 12, 31));
    }
}
