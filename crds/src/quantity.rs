//! Durations and bit rates as people write them in YAML.
//!
//! Owns their textual form, both ways. Invariant: what the schema's pattern accepts, these parse,
//! and the text is kept as written, so that nothing rewrites what someone applied.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no duration or bit rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Neither digits nor a unit where one was due.
    #[error("{0:?} is no duration: write it like 30s, 5m, 1h30m or 250ms")]
    Duration(String),
    /// Not a whole number with an optional suffix.
    #[error("{0:?} is no bit rate: write it in bits per second like 800k, 3M or 2500000")]
    BitRate(String),
}

/// A length of time such as `30s`, `5m`, `1h30m`; `0s` where the field's documentation gives it a meaning.
#[derive(Clone, PartialEq, Eq)]
pub struct Duration {
    text: String,
    value: StdDuration,
}

impl Duration {
    /// The pattern in the schema. Six digits a unit keep the sum far from overflow.
    pub const PATTERN: &'static str = "^([0-9]{1,6}(ms|s|m|h)){1,4}$";

    /// Whole seconds.
    pub fn from_secs(seconds: u64) -> Self {
        Self {
            text: format!("{seconds}s"),
            value: StdDuration::from_secs(seconds),
        }
    }

    /// The length of time itself.
    pub fn get(&self) -> StdDuration {
        self.value
    }

    /// Milliseconds, as the workers' contract carries them.
    pub fn as_millis(&self) -> u64 {
        u64::try_from(self.value.as_millis()).unwrap_or(u64::MAX)
    }

    /// True for `0s` and its like.
    pub fn is_zero(&self) -> bool {
        self.value.is_zero()
    }

    /// The value, or `None` where zero stands for "no limit".
    pub fn non_zero(&self) -> Option<StdDuration> {
        (!self.is_zero()).then_some(self.value)
    }
}

impl FromStr for Duration {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::Duration(text.to_owned());
        let mut rest = text;
        let mut value = StdDuration::ZERO;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            if !(1..=6).contains(&digits) || parts == 4 {
                return Err(bad());
            }
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| bad())?;
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            value += match unit {
                "ms" => StdDuration::from_millis(number),
                "s" => StdDuration::from_secs(number),
                "m" => StdDuration::from_secs(number * 60),
                "h" => StdDuration::from_secs(number * 3600),
                _ => return Err(bad()),
            };
            parts += 1;
            rest = tail;
        }
        if parts == 0 {
            Err(bad())
        } else {
            Ok(Self {
                text: text.to_owned(),
                value,
            })
        }
    }
}

/// Bits per second such as `800k` or `3M` (decimal suffixes).
#[derive(Clone, PartialEq, Eq)]
pub struct BitRate {
    text: String,
    value: u64,
}

impl BitRate {
    /// The pattern in the schema.
    pub const PATTERN: &'static str = "^[1-9][0-9]{0,9}[kMG]?$";

    /// Bits per second.
    pub fn bits_per_second(&self) -> u64 {
        self.value
    }
}

impl FromStr for BitRate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::BitRate(text.to_owned());
        let (number, factor) = match text.as_bytes().last().ok_or_else(bad)? {
            b'k' => (&text[..text.len() - 1], 1_000),
            b'M' => (&text[..text.len() - 1], 1_000_000),
            b'G' => (&text[..text.len() - 1], 1_000_000_000),
            _ => (text, 1),
        };
        if !(1..=10).contains(&number.len())
            || number.starts_with('0')
            || !number.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_| bad())?;
        Ok(Self {
            text: text.to_owned(),
            value: number.checked_mul(factor).ok_or_else(bad)?,
        })
    }
}

macro_rules! textual {
    ($name:ident, $max:literal, $description:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "maxLength": $max, "pattern": $name::PATTERN, "description": $description })
            }
        }
    };
}

textual!(Duration, 32, "A length of time such as 30s, 5m or 1h30m.");
textual!(BitRate, 11, "Bits per second such as 800k or 3M.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_as_written() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("1h", 3600.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("0s", 0.0),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.get().as_secs_f64(), seconds, "{text}");
            assert_eq!(duration.to_string(), text);
        }
        for text in ["", "5", "s", "5d", "-5s", "1.5h", "5 s", "1234567s", "1s1s1s1s1s"] {
            assert_eq!(
                text.parse::<Duration>(),
                Err(QuantityError::Duration(text.into()))
            );
        }
    }

    #[test]
    fn bit_rates_parse_as_written() {
        for (text, bits) in [
            ("800k", 800_000),
            ("3M", 3_000_000),
            ("1G", 1_000_000_000),
            ("2500000", 2_500_000),
        ] {
            assert_eq!(text.parse::<BitRate>().unwrap().bits_per_second(), bits, "{text}");
        }
        for text in ["", "M", "0", "03M", "3m", "-3M", "3.5M", "99999999999"] {
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
    }
}
