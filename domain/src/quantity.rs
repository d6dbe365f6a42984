//! Comparing resource quantities: the API server writes them in its own canonical form, `0.5` as `500m`.

/// Whether both texts are quantities of the same value.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one == other || nanos(one).is_some_and(|value| nanos(other) == Some(value))
}

/// The value in units of 10^-9, the finest that Kubernetes knows (apimachinery `resource.Quantity`); finer parts round up.
/// Nothing where it is no quantity, or beyond 2^63.
#[must_use]
pub fn nanos(text: &str) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || number.len() > 18 || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (binary, decimal): (u32, i32) = match suffix {
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|e: &i32| e.abs() <= 18)?),
    };
    let scaled = digits.checked_mul(1 << binary)?;
    let power = decimal + 9 - i32::try_from(fraction.len()).ok()?;
    let ten = 10_i128.checked_pow(power.unsigned_abs())?;
    let value = if power >= 0 { scaled.checked_mul(ten)? } else { scaled.checked_add(ten - 1)? / ten };
    (value <= (1 << 63) * 1_000_000_000).then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_forms_are_the_same_values() {
        for (one, other) in [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("0.5Gi", "512Mi"),
            ("1024Mi", "1Gi"),
            ("1e3", "1k"),
            ("1E3", "1k"),
            ("1E", "1000P"),
            ("+2", "2"),
            ("0.1m", "100u"),
            ("0.0000000001", "1n"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in
            [("1", "2"), ("1k", "1Ki"), ("1m", "1M"), ("-1", "1"), ("", "0"), ("x", "y"), ("1.2.3", "1.2")]
        {
            assert!(!same(one, other), "{one} {other}");
        }
        assert!(same("odd", "odd"), "the same text is the same, whatever it is");
        assert_eq!(nanos("99999999999999999Ei"), None);
        assert_eq!(nanos("7Ei"), Some(7 * (1 << 60) * 1_000_000_000));
    }
}
