//! Decimals of 28 significant digits, rounded half to even after every operation: the arithmetic in which the network's prices are defined
//! (ccn spec 6.3). Nodes agree on costs to the last digit only if they round where the others do.

use ccn_message::{Amount, amount::FRACTION_DIGITS};
use ruint::aliases::U256;
use std::{cmp::Ordering, str::FromStr};

/// Significant digits.
const PRECISION: u32 = 28;

/// A number: `mantissa * 10^exponent`, negative or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// Below 10^28.
    mantissa: u128,
    exponent: i32,
}

/// A text that is no decimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDecimal;

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// A whole number.
    #[must_use]
    pub fn from_integer(value: u64) -> Self {
        Self::round(false, U256::from(value), 0, false)
    }

    /// The product.
    #[must_use]
    pub fn times(self, other: Self) -> Self {
        let mantissa = U256::from(self.mantissa) * U256::from(other.mantissa);
        Self::round(self.negative != other.negative, mantissa, self.exponent + other.exponent, false)
    }

    /// The quotient; zero when `other` is zero, which no price is divided by.
    #[must_use]
    pub fn over(self, other: Self) -> Self {
        if other.mantissa == 0 {
            return Self::ZERO;
        }
        // A dividend of 58 digits: its quotient has more than 28, so that rounding sees what it rounds.
        let shift = 2 * PRECISION + 2 - digits(U256::from(self.mantissa));
        let dividend = U256::from(self.mantissa) * pow10(shift);
        let (quotient, remainder) = dividend.div_rem(U256::from(other.mantissa));
        let exponent = self.exponent - other.exponent - shift as i32;
        Self::round(self.negative != other.negative, quotient, exponent, !remainder.is_zero())
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let apart = (high.exponent - low.exponent).unsigned_abs();
        if high.mantissa == 0 {
            return low;
        }
        if low.mantissa == 0 {
            return high;
        }
        if apart > PRECISION + 2 {
            // The lower one is too small to count.
            return high;
        }
        let scaled = U256::from(high.mantissa) * pow10(apart);
        let small = U256::from(low.mantissa);
        let (negative, mantissa) = if high.negative == low.negative {
            (high.negative, scaled + small)
        } else {
            match scaled.cmp(&small) {
                Ordering::Less => (low.negative, small - scaled),
                Ordering::Equal => return Self::ZERO,
                Ordering::Greater => (high.negative, scaled - small),
            }
        };
        Self::round(negative, mantissa, low.exponent, false)
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { negative: !self.negative && self.mantissa != 0, ..self }
    }

    /// The smaller of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if self.compare(other) == Ordering::Greater { other } else { self }
    }

    /// The larger of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.compare(other) == Ordering::Less { other } else { self }
    }

    fn compare(self, other: Self) -> Ordering {
        let difference = self.plus(other.negated());
        match (difference.mantissa, difference.negative) {
            (0, _) => Ordering::Equal,
            (_, true) => Ordering::Less,
            (_, false) => Ordering::Greater,
        }
    }

    /// As an amount, rounded down (towards negative infinity) to 18 fractional digits.
    #[must_use]
    pub fn floor(self) -> Amount {
        let shift = self.exponent + FRACTION_DIGITS as i32;
        let units = if shift >= 0 {
            let scaled = U256::from(self.mantissa).saturating_mul(pow10(shift.unsigned_abs().min(60)));
            i128::try_from(scaled).unwrap_or(i128::MAX)
        } else {
            let (quotient, remainder) = U256::from(self.mantissa).div_rem(pow10(shift.unsigned_abs().min(60)));
            let units = i128::try_from(quotient).unwrap_or(i128::MAX);
            units + i128::from(self.negative && !remainder.is_zero())
        };
        Amount::from_units(if self.negative { -units } else { units })
    }

    /// Rounds to the precision, half to even; `more` says that digits below were cut off already.
    fn round(negative: bool, mantissa: U256, exponent: i32, more: bool) -> Self {
        let excess = digits(mantissa).saturating_sub(PRECISION);
        let (mut kept, mut exponent) = (mantissa, exponent);
        if excess > 0 {
            let unit = pow10(excess);
            let (quotient, rest) = mantissa.div_rem(unit);
            let half = unit / U256::from(2);
            let up = match rest.cmp(&half) {
                Ordering::Less => false,
                Ordering::Equal => more || quotient.bit(0),
                Ordering::Greater => true,
            };
            kept = quotient + U256::from(u8::from(up));
            exponent += excess as i32;
        }
        if digits(kept) > PRECISION {
            // 9…9 rounded up to a power of ten.
            kept /= U256::from(10);
            exponent += 1;
        }
        let mantissa = u128::try_from(kept).unwrap_or(u128::MAX);
        Self { negative: negative && mantissa != 0, mantissa, exponent }
    }
}

impl From<Amount> for Decimal {
    fn from(amount: Amount) -> Self {
        let units = amount.units();
        Self::round(units < 0, U256::from(units.unsigned_abs()), -(FRACTION_DIGITS as i32), false)
    }
}

impl FromStr for Decimal {
    type Err = InvalidDecimal;

    /// Plain decimals, and those that JSON writes with an exponent.
    fn from_str(text: &str) -> Result<Self, InvalidDecimal> {
        let (negative, digits_text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (number, exponent) = match digits_text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().map_err(|_| InvalidDecimal)?),
            None => (digits_text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        let count = all().count();
        if count == 0 || count > 60 || exponent.abs() > 100 || !all().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidDecimal);
        }
        let mantissa = all().fold(U256::ZERO, |sum, byte| sum * U256::from(10) + U256::from(byte - b'0'));
        let fraction_digits = i32::try_from(fraction.len()).map_err(|_| InvalidDecimal)?;
        Ok(Self::round(negative, mantissa, exponent - fraction_digits, false))
    }
}

fn pow10(exponent: u32) -> U256 {
    U256::from(10).pow(U256::from(exponent))
}

/// Decimal digits of a number; 0 has none.
fn digits(number: U256) -> u32 {
    let mut count = 0;
    let mut rest = number;
    let step = U256::from(10_u64.pow(18));
    while rest >= step {
        rest /= step;
        count += 18;
    }
    while !rest.is_zero() {
        rest /= U256::from(10);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        text.parse().expect("a decimal")
    }

    fn check(result: Decimal, expect: &str) {
        let expect = number(expect);
        assert_eq!(result.compare(expect), Ordering::Equal, "{result:?}, expected {expect:?}");
    }

    /// Computed with Python's decimal module in its default context.
    #[test]
    fn rounds_where_python_does() {
        check(number("11000").over(number("3600")), "3.055555555555555555555555556");
        check(number("14250").over(number("3600")), "3.958333333333333333333333333");
        check(number("14250").over(number("3600")).times(number("12")), "47.50000000000000000000000000");
        check(number("0.17967489030626108").over(number("3600")), "0.00004990969175173918888888888889");
        check(number("1").over(number("3")).plus(number("1").over(number("3"))), "0.6666666666666666666666666666");
        check(number("31457283").over(number("1048576")), "30.00000286102294921875");
        check(number("9999999999999999999999999999").plus(number("1")), "10000000000000000000000000000");
        check(number("2").over(number("7")).times(number("7")), "2.000000000000000000000000000");
        check(number("1e-30").plus(number("1")), "1");
        check(number("0").over(number("7")), "0");
    }

    #[test]
    fn floors_to_eighteen_digits() {
        let floor = |text: &str| number(text).floor().to_string();
        assert_eq!(floor("3.958333333333333333333333333"), "3.958333333333333333");
        assert_eq!(floor("-0.0000000000000000011"), "-0.000000000000000002");
        assert_eq!(floor("-1.5"), "-1.5");
        assert_eq!(floor("123456789"), "123456789");
        assert_eq!(floor("1e20"), "100000000000000000000");
        assert_eq!(floor("1e-40"), "0");
        assert_eq!(floor("-1e-40"), "-0.000000000000000001");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "e5", "1e", "1e999", "NaN", "0x1", "1,5"] {
            assert_eq!(text.parse::<Decimal>(), Err(InvalidDecimal), "{text}");
        }
        assert_eq!(number("2").min(number("-3")).floor().to_string(), "-3");
        assert_eq!(number("2").max(number("-3")).floor().to_string(), "2");
    }
}
