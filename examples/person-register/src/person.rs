//! Persons and their personal codes (isikukood, EVS 585): `GYYMMDDSSSC`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::Serialize;

/// A person as the register tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The personal code.
    pub personal_code: PersonalCode,
    /// Given name.
    pub given_name: String,
    /// Surname.
    pub surname: String,
    /// As it follows from the personal code.
    pub sex: Sex,
    /// As it follows from the personal code.
    pub date_of_birth: Date,
    /// Where the person lives.
    pub residence: Residence,
}

/// A place of residence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Residence {
    /// The county.
    pub county: String,
    /// The town or rural municipality.
    pub municipality: String,
}

/// Sex as the personal code tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sex {
    /// An odd first digit.
    Male,
    /// An even first digit.
    Female,
}

/// Eleven digits: sex and century, date of birth, a serial number of the day, a check digit.
///
/// The check digit is not required to be right: real registers hold old codes whose digit is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PersonalCode(String);

/// The text is not a personal code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Not eleven digits.
    #[error("a personal code has eleven digits")]
    Digits,
    /// The digits 1 to 7 name no day of the years 1800 to 2199.
    #[error("the first seven digits of a personal code name a sex and a day")]
    Date,
}

impl PersonalCode {
    /// The code of the person that was born on `born` (years 1800 to 2199) and got the day's number `serial` (0 to 999).
    pub fn new(sex: Sex, born: Date, serial: u16) -> Self {
        let first = (born.year() - 1800) / 100 * 2 + if sex == Sex::Male { 1 } else { 2 };
        let head = format!("{first}{:02}{:02}{:02}{serial:03}", born.year() % 100, born.month(), born.day());
        let digit = check_digit(head.as_bytes());
        Self(format!("{head}{digit}"))
    }

    /// The sex that the code tells.
    pub fn sex(&self) -> Sex {
        if self.digit(0) % 2 == 1 { Sex::Male } else { Sex::Female }
    }

    /// The day of birth that the code tells.
    pub fn date_of_birth(&self) -> Result<Date, CodeError> {
        let century = i16::from((self.digit(0).checked_sub(1).ok_or(CodeError::Date)?) / 2);
        let two = |at: usize| self.digit(at) * 10 + self.digit(at + 1);
        let day = |value: u8| i8::try_from(value).map_err(|_| CodeError::Date);
        Date::new(1800 + century * 100 + i16::from(two(1)), day(two(3))?, day(two(5))?).map_err(|_| CodeError::Date)
    }

    /// Whether the last digit is the one that follows from the others.
    #[cfg(test)]
    pub fn is_checked(&self) -> bool {
        self.digit(10) == check_digit(&self.0.as_bytes()[..10])
    }

    /// The eleven digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn digit(&self, at: usize) -> u8 {
        self.0.as_bytes()[at] - b'0'
    }
}

/// The check digit of ten digits in ASCII: a weighted sum modulo 11, with other weights where that gives 10.
fn check_digit(head: &[u8]) -> u8 {
    const FIRST: [u32; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1];
    const SECOND: [u32; 10] = [3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
    let rest = |weights: [u32; 10]| head.iter().zip(weights).map(|(b, w)| u32::from(b - b'0') * w).sum::<u32>() % 11;
    let digit = match rest(FIRST) {
        10 => rest(SECOND) % 10,
        digit => digit,
    };
    u8::try_from(digit).unwrap_or_default() // below 11
}

impl FromStr for PersonalCode {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() != 11 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CodeError::Digits);
        }
        let code = Self(text.to_owned());
        if !(1..=8).contains(&code.digit(0)) {
            return Err(CodeError::Date);
        }
        code.date_of_birth().map(|_| code)
    }
}

impl fmt::Display for PersonalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn published_codes_have_their_check_digit() {
        // Examples of the standard and of public documentation.
        for text in ["37605030299", "49403136526", "47101010033", "60001019906"] {
            assert!(text.parse::<PersonalCode>().unwrap().is_checked(), "{text}");
        }
        assert!(!"37605030298".parse::<PersonalCode>().unwrap().is_checked());
    }

    #[test]
    fn a_code_tells_sex_and_day() {
        for (sex, born, first) in [
            (Sex::Male, date(1899, 12, 31), '1'),
            (Sex::Female, date(1900, 1, 1), '4'),
            (Sex::Male, date(1999, 12, 31), '3'),
            (Sex::Female, date(2000, 2, 29), '6'),
            (Sex::Male, date(2100, 1, 1), '7'),
        ] {
            let code = PersonalCode::new(sex, born, 7);
            assert!(code.as_str().starts_with(first), "{code}");
            assert_eq!((code.sex(), code.date_of_birth()), (sex, Ok(born)));
            assert_eq!(code.as_str().parse(), Ok(code.clone()));
            assert!(code.is_checked());
        }
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for (text, error) in [
            ("", CodeError::Digits),
            ("3800101000", CodeError::Digits),
            ("380010100000", CodeError::Digits),
            ("3800101000a", CodeError::Digits),
            ("\u{663}8001010000", CodeError::Digits),
            ("08001010000", CodeError::Date),
            ("98001010000", CodeError::Date),
            ("38013010000", CodeError::Date),
            ("39902290000", CodeError::Date),
        ] {
            assert_eq!(text.parse::<PersonalCode>(), Err(error), "{text:?}");
        }
    }
}
