//! Durations in specs: a subset of Go's notation (`360h`, `1h30m`, `45s`), whole seconds only.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What the API server accepts: hours, minutes, seconds, in this order, at least one, six digits each at most.
///
/// Six digits keep every value below the 292 years that a Go duration can hold, so `duration()` in CEL cannot fail on
/// a text that matches.
pub const PATTERN: &str = r"^([0-9]{1,6}h([0-9]{1,6}m)?([0-9]{1,6}s)?|[0-9]{1,6}m([0-9]{1,6}s)?|[0-9]{1,6}s)$";

/// The text is not a duration of this API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: expected hours, minutes and seconds such as 360h, 1h30m or 45s")]
pub struct DurationError;

/// A length of time in whole seconds, written as `360h`, `1h30m` or `45s`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

impl Period {
    /// A period of this many hours.
    #[must_use]
    pub const fn hours(hours: u32) -> Self {
        Self(hours as u64 * 3600)
    }

    /// A period of this many seconds.
    #[must_use]
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds as u64)
    }

    /// The length in seconds; at most 3.7e9 (six digits of hours, minutes and seconds).
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The length as jiff's type, for arithmetic with `jiff::Timestamp`.
    #[must_use]
    pub const fn as_signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::from_secs(self.0.cast_signed())
    }
}

impl FromStr for Period {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let mut rest = text;
        let mut total = 0_u64;
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((digits, after)) = rest.split_once(unit) else { continue };
            if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(DurationError);
            }
            total += digits.parse::<u64>().map_err(|_| DurationError)? * seconds;
            rest = after;
        }
        if text.is_empty() || !rest.is_empty() {
            return Err(DurationError);
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Period {
    /// The shortest notation in one unit: `360h`, `90m`, `45s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 && s / 60 < 1_000_000 => write!(f, "{}m", s / 60),
            s if s < 1_000_000 => write!(f, "{s}s"),
            s => write!(f, "{}h{}m{}s", s / 3600, s % 3600 / 60, s % 60),
        }
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 2, "maxLength": 21, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_pattern_allows() {
        for (text, seconds) in [
            ("0s", 0),
            ("45s", 45),
            ("90m", 5400),
            ("1h30m", 5400),
            ("1h5s", 3605),
            ("1m1s", 61),
            ("360h", 1_296_000),
            ("999999h999999m999999s", 999_999 * 3661),
        ] {
            assert_eq!(text.parse(), Ok(Period(seconds)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in ["", "h", "15d", "1.5h", "-1h", "1h ", " 1h", "1m1h", "1h1h", "1000000s", "10", "1hm", "+1s", "1H"]
        {
            assert_eq!(text.parse::<Period>(), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0h", "45s", "90m", "61s", "360h", "8760h", "277h46m41s", "999999s"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for seconds in (0..4_000_000).step_by(997) {
            assert_eq!(Period(seconds).to_string().parse(), Ok(Period(seconds)));
        }
    }
}
