//! Prices and amounts, exactly: in billionths of the currency's unit.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: u128 = 1_000_000_000;
/// The gigabyte of EBS's prices: 2³⁰ bytes.
const GIB: u128 = 1 << 30;

/// An amount, or a price of one unit of something. Serialized as a number of the currency's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(u128);

impl Money {
    /// From billionths.
    #[must_use]
    pub const fn from_nanos(nanos: u128) -> Self {
        Self(nanos)
    }

    /// In billionths.
    #[must_use]
    pub const fn nanos(self) -> u128 {
        self.0
    }

    /// What so many bytes cost at this price of a GiB.
    #[must_use]
    pub const fn of_bytes(self, bytes: u64) -> Self {
        Self((self.0.saturating_mul(bytes as u128) + GIB / 2) / GIB)
    }

    /// What so many things cost at this price of a thousand.
    #[must_use]
    pub const fn of_thousands(self, count: u64) -> Self {
        Self((self.0.saturating_mul(count as u128) + 500) / 1000)
    }

    /// So many times this.
    #[must_use]
    pub const fn times(self, count: u128) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// Reads a decimal, at most a million and with at most nine digits after the point.
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 || whole.len() > 7 {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let fraction: u128 = format!("{fraction:0<9}").parse().ok()?;
        (whole <= 1_000_000).then_some(Self(whole * NANOS + fraction))
    }
}

/// With four digits after the point; less than that, but not nothing, is `<0.0001`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = (self.0 + 50_000) / 100_000;
        if rounded == 0 && self.0 > 0 {
            return f.pad("<0.0001");
        }
        f.pad(&format!("{}.{:04}", rounded / 10_000, rounded % 10_000))
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{}.{:09}", self.0 / NANOS, self.0 % NANOS);
        match text.parse::<f64>() {
            Ok(number) => serializer.serialize_f64(number),
            Err(_) => serializer.serialize_str(&text),
        }
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Price;

        impl Visitor<'_> for Price {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price: 0 to 1000000, with at most nine digits after the point")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Money, E> {
                // The shortest decimal that is this number: the one that was written.
                let text = format!("{number}");
                Money::parse(&text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Float(number), &self))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Money, E> {
                Money::parse(&number.to_string())
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Money, E> {
                Money::parse(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_shown() {
        for (json, nanos, shown, written) in [
            ("0.05", 50_000_000, "0.0500", "0.05"),
            ("0.0125", 12_500_000, "0.0125", "0.0125"),
            ("\"0.000000001\"", 1, "<0.0001", "1e-9"),
            ("3", 3_000_000_000, "3.0000", "3.0"),
            ("0", 0, "0.0000", "0.0"),
            ("0.00015", 150_000, "0.0002", "0.00015"),
        ] {
            let money: Money = serde_json::from_str(json).unwrap();
            assert_eq!(money.nanos(), nanos, "{json}");
            assert_eq!(money.to_string(), shown, "{json}");
            assert_eq!(serde_json::to_string(&money).unwrap(), written, "{json}");
        }
        for json in [
            "-1",
            "1e30",
            "1000001",
            "\"0.0000000001\"",
            "\"\"",
            "\"1,5\"",
            "null",
        ] {
            assert!(serde_json::from_str::<Money>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn amounts() {
        let price = Money::from_nanos(50_000_000);
        assert_eq!(price.of_bytes(1 << 30), price);
        assert_eq!(price.of_bytes(u64::MAX).nanos(), 50_000_000 * (1 << 34));
        assert_eq!(
            Money::from_nanos(6_000_000)
                .of_thousands(16_384)
                .to_string(),
            "0.0983"
        );
    }
}
