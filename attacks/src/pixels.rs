//! Exact lengths in pixel units.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An exact non-negative length in pixel units, where pixels are in `[0, 1]`: `8/255`, `0.8/255`,
/// `0.031`. Displayed in one canonical form, so that equal lengths are equal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pixels {
    /// In lowest terms.
    numerator: u64,
    denominator: u64,
}

/// Why a text is not a length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPixels {
    /// Neither a decimal nor a quotient of two decimals.
    #[error("`{0}` is not a length in pixel units; write a decimal or a fraction, such as `0.031` or `8/255`")]
    Syntax(String),
    /// Division by zero.
    #[error("`{0}` divides by zero")]
    ZeroDenominator(String),
    /// More digits than an exact fraction of two 64-bit integers can hold.
    #[error("`{0}` has too many digits for an exact length")]
    TooLong(String),
}

impl Pixels {
    /// The length 0.
    pub const ZERO: Self = Self {
        numerator: 0,
        denominator: 1,
    };

    /// `numerator / denominator`. Panics if the denominator is 0.
    pub fn new(numerator: u64, denominator: u64) -> Self {
        assert!(denominator != 0, "a length with denominator 0");
        let divisor = greatest_common_divisor(numerator, denominator);
        Self {
            numerator: numerator / divisor,
            denominator: denominator / divisor,
        }
    }

    /// The nearest double.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// This length times `numerator / denominator`. Panics if the denominator is 0.
    ///
    /// Where the exact result is not a fraction of two 64-bit integers, it is rounded to one: by less than one part in
    /// 2⁶², or to 0 if it is smaller than every such fraction.
    #[must_use]
    pub fn times(self, numerator: u64, denominator: u64) -> Self {
        self.checked_times(numerator, denominator).unwrap_or_else(|| {
            let over = u128::from(self.numerator) * u128::from(numerator);
            let under = u128::from(self.denominator) * u128::from(denominator);
            let shift = u64::BITS.saturating_sub(over.max(under).leading_zeros());
            let narrow = |wide: u128| u64::try_from(wide >> shift).unwrap_or(u64::MAX);
            Self::new(narrow(over), narrow(under).max(1))
        })
    }

    /// This length times `numerator / denominator`, unless the result does not fit. Panics if the
    /// denominator is 0.
    pub fn checked_times(self, numerator: u64, denominator: u64) -> Option<Self> {
        let (a, b) = (
            Self::new(self.numerator, denominator),
            Self::new(numerator, self.denominator),
        );
        Some(Self::new(
            a.numerator.checked_mul(b.numerator)?,
            a.denominator.checked_mul(b.denominator)?,
        ))
    }
}

impl PartialOrd for Pixels {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pixels {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let cross = |a: &Self, b: &Self| u128::from(a.numerator) * u128::from(b.denominator);
        cross(self, other).cmp(&cross(other, self))
    }
}

impl FromStr for Pixels {
    type Err = InvalidPixels;

    fn from_str(text: &str) -> Result<Self, InvalidPixels> {
        let (upper, lower) = text.split_once('/').unwrap_or((text, "1"));
        let syntax = || InvalidPixels::Syntax(text.to_string());
        let long = || InvalidPixels::TooLong(text.to_string());
        let (a, b) = decimal(upper.trim()).ok_or_else(syntax)?;
        let (c, d) = decimal(lower.trim()).ok_or_else(syntax)?;
        if c == Some(0) {
            return Err(InvalidPixels::ZeroDenominator(text.to_string()));
        }
        let numerator = a.zip(d).and_then(|(a, d)| a.checked_mul(d)).ok_or_else(long)?;
        let denominator = b.zip(c).and_then(|(b, c)| b.checked_mul(c)).ok_or_else(long)?;
        let divisor = greatest_common_divisor(numerator, denominator);
        let narrow = |wide: u128| u64::try_from(wide / divisor).map_err(|_| long());
        Ok(Self {
            numerator: narrow(numerator)?,
            denominator: narrow(denominator)?,
        })
    }
}

/// A decimal as a fraction; an inner `None` is a part that does not fit. `None`: not a decimal.
fn decimal(text: &str) -> Option<(Option<u128>, Option<u128>)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let places = fraction.len() as i64 - i64::from(exponent);
    let power = u32::try_from(places.unsigned_abs())
        .ok()
        .and_then(|p| 10u128.checked_pow(p));
    let value = digits.parse::<u128>().ok();
    Some(if places >= 0 {
        (value, power)
    } else {
        (value.zip(power).and_then(|(v, p)| v.checked_mul(p)), Some(1))
    })
}

/// A decimal where one is exact and short, else a fraction of 255 where that is, else the fraction.
impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = short_decimal(u128::from(self.numerator), u128::from(self.denominator)) {
            return write!(f, "{text}");
        }
        match short_decimal(u128::from(self.numerator) * 255, u128::from(self.denominator)) {
            Some(text) => write!(f, "{text}/255"),
            None => write!(f, "{}/{}", self.numerator, self.denominator),
        }
    }
}

fn short_decimal(numerator: u128, denominator: u128) -> Option<String> {
    const PLACES: u32 = 9;
    let scaled = numerator.checked_mul(10u128.pow(PLACES))?;
    if scaled % denominator != 0 {
        return None;
    }
    let (scaled, unit) = (scaled / denominator, 10u128.pow(PLACES));
    let text = format!("{}.{:09}", scaled / unit, scaled % unit);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_string())
}

fn greatest_common_divisor<T>(a: T, b: T) -> T
where
    T: Copy + PartialEq + From<u8> + std::ops::Rem<Output = T>,
{
    if b == T::from(0) {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

impl Serialize for Pixels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pixels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Pixels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length in pixel units, such as `0.031` or `8/255`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pixels, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Pixels, E> {
                Ok(Pixels::new(value, 1))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Pixels, E> {
                value.to_string().parse().map_err(E::custom)
            }

            // The shortest text that reads back as the same double is what the user wrote.
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Pixels, E> {
                value.to_string().parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Pixels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pixels".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length in pixel units, where pixels lie in [0, 1]: `8/255`, `0.8/255`, `0.031`.",
            "anyOf": [
                { "type": "number", "minimum": 0 },
                { "type": "string", "pattern": "^ *[0-9.]+([eE]-?[0-9]+)? *(/ *[0-9.]+([eE]-?[0-9]+)? *)?$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_length_with_many_digits_is_close() {
        let length: Pixels = "0.0031372549019607846".parse().unwrap();
        let quarter = length.times(1, 4);
        assert!(
            (quarter.value() - 0.0031372549019607846 / 4.0).abs() < 1e-18,
            "{quarter:?}"
        );
        // Where the result fits it is exact.
        let simple: Pixels = "8/255".parse().unwrap();
        assert_eq!(simple.times(1, 4), "2/255".parse().unwrap());
        let tiny: Pixels = "1e-18".parse().unwrap();
        assert!(tiny.times(1, 1_000_000).value() < 1e-18);
    }
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, numerator: u64, denominator: u64, shown: &str) {
        let pixels: Pixels = text.parse().unwrap();
        assert_eq!((pixels.numerator, pixels.denominator), (numerator, denominator));
        assert_eq!(pixels.to_string(), shown);
    }

    #[test]
    fn lengths_are_exact() {
        check("8/255", 8, 255, "8/255");
        check("0.8/255", 4, 1275, "0.8/255");
        check("0.031", 31, 1000, "0.031");
        check("51/255", 1, 5, "0.2");
        check(" 2 / 255 ", 2, 255, "2/255");
        check("1/3", 1, 3, "85/255");
        check("1/7", 1, 7, "1/7");
        check("3.5e-3", 7, 2000, "0.0035");
        check("0", 0, 1, "0");
        check("1", 1, 1, "1");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "/", "8/", "-1/255", "1//2", "eps", "1.2.3", "1/2/3", ".", "1e", "nan", "inf",
        ] {
            assert!(
                matches!(text.parse::<Pixels>(), Err(InvalidPixels::Syntax(_))),
                "{text}"
            );
        }
        assert_eq!(
            "1/0".parse::<Pixels>(),
            Err(InvalidPixels::ZeroDenominator("1/0".into()))
        );
        assert!(matches!("1e99/255".parse::<Pixels>(), Err(InvalidPixels::TooLong(_))));
        assert!(matches!(
            "0.00000000000000000000000000000001".parse::<Pixels>(),
            Err(InvalidPixels::TooLong(_))
        ));
    }

    #[test]
    fn yaml_numbers_keep_what_was_written() {
        let number = |json: &str| serde_json::from_str::<Pixels>(json).unwrap().to_string();
        assert_eq!(number("0.031"), "0.031");
        assert_eq!(number("0.3"), "0.3");
        assert_eq!(number("1"), "1");
        assert_eq!(number("\"8/255\""), "8/255");
        assert!(serde_json::from_str::<Pixels>("-0.1").is_err());
    }

    proptest! {
        #[test]
        fn text_reads_back(numerator in 0u64..1_000_000, denominator in 1u64..1_000_000) {
            let pixels = Pixels::new(numerator, denominator);
            prop_assert_eq!(pixels.to_string().parse::<Pixels>().unwrap(), pixels);
        }

        #[test]
        fn any_text_is_answered(text in ".{0,24}") {
            let _ = text.parse::<Pixels>();
        }
    }
}
