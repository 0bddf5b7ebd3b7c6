//! Amounts of tokens and credits: decimals with 18 fractional digits, exact.

use std::{
    fmt,
    ops::{Add, AddAssign, Neg, Sub},
    str::FromStr,
};

/// Fractional digits.
pub const FRACTION_DIGITS: usize = 18;
const ONE: i128 = 10_i128.pow(FRACTION_DIGITS as u32);

/// An amount, in units of 10^-18. About 1.7 * 10^20 on both sides of zero; sums beyond it stay at that bound.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// A text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a decimal amount with at most {FRACTION_DIGITS} fractional digits")]
pub struct InvalidAmount(String);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A whole number.
    #[must_use]
    pub fn from_integer(value: i128) -> Self {
        Self(value.saturating_mul(ONE))
    }

    /// From units of 10^-18.
    #[must_use]
    pub fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// In units of 10^-18.
    #[must_use]
    pub fn units(self) -> i128 {
        self.0
    }

    /// That many times.
    #[must_use]
    pub fn times(self, count: i128) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The whole part, towards zero.
    #[must_use]
    pub fn trunc(self) -> i128 {
        self.0 / ONE
    }

    /// The nearest double, for fields that the API shows as numbers.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // The shortest text that is exact parses to the nearest double; the integer division of two floats would not.
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// With all 18 fractional digits, as the API shows costs.
    #[must_use]
    pub fn to_fixed(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        format!("{sign}{}.{:018}", units / one, units % one)
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;

    /// Plain decimals: `12`, `-0.5`, `.25`; digits past the 18th are cut off towards negative infinity, as prices are.
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let refuse = || InvalidAmount(text.chars().take(64).collect());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        {
            return Err(refuse());
        }
        let (kept, cut) = fraction.split_at(fraction.len().min(FRACTION_DIGITS));
        let mut units: i128 = 0;
        for byte in whole.bytes().chain(kept.bytes()) {
            units =
                units.checked_mul(10).and_then(|units| units.checked_add((byte - b'0').into())).ok_or_else(refuse)?;
        }
        for _ in kept.len()..FRACTION_DIGITS {
            units = units.checked_mul(10).ok_or_else(refuse)?;
        }
        if negative {
            units = -units - i128::from(cut.bytes().any(|byte| byte != b'0'));
        }
        Ok(Self(units))
    }
}

impl fmt::Display for Amount {
    /// The shortest exact text: no trailing zeros, no point without digits after it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = self.to_fixed();
        formatter.write_str(fixed.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Add for Amount {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Amount {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iterator: I) -> Self {
        iterator.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(text.parse::<Amount>().expect("an amount").to_string(), expect, "{text}");
    }

    #[test]
    fn texts_are_exact() {
        check("0", "0");
        check("1000", "1000");
        check("3.958333333333333333", "3.958333333333333333");
        check("0.000000000000000001", "0.000000000000000001");
        check("0.0000000000000000019", "0.000000000000000001");
        check("-0.0000000000000000011", "-0.000000000000000002");
        check(".5", "0.5");
        check("-12.340", "-12.34");
        for text in ["", ".", "-", "1e5", "0x1", "1.2.3", " 1", "1_000", &"9".repeat(40)] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert_eq!(Amount::from_integer(-2).to_fixed(), "-2.000000000000000000");
        assert_eq!("9.99999999".parse::<Amount>().expect("an amount").to_f64(), 9.999_999_99);
    }

    proptest! {
        #[test]
        fn a_text_and_back(units in -10_i128.pow(37)..10_i128.pow(37)) {
            let amount = Amount::from_units(units);
            prop_assert_eq!(amount.to_string().parse::<Amount>().expect("an amount"), amount);
            prop_assert_eq!(amount.to_fixed().parse::<Amount>().expect("an amount"), amount);
        }

        #[test]
        fn arbitrary_texts_do_no_harm(text in ".{0,40}") {
            let _ = text.parse::<Amount>();
        }
    }
}
