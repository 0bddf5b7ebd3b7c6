//! The network's dialect of JSON, and reading typed values out of it (messages spec section 1).
//!
//! Strict where the bytes matter: UTF-8, no NaN or Infinity, no numbers beyond a double, no lone surrogates, no NUL, nothing after the
//! value, nesting bounded. Lenient where the network is: numbers and booleans may come as each other's texts. Duplicate keys: the last
//! one counts.
//!
//! Nothing here recurses, however deep a stranger nests: [`check`] walks the text once, [`Object`] cuts one level into raw pieces.

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// Deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 1024;
/// Longest piece of input that an error repeats, characters.
const SHOWN_CHARS: usize = 60;

/// Why a text has no meaning here (error code 0): which field, and what is wrong with it. The sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FormatError {
    /// The field, as a path: `content.volumes[2].mount`. Empty for the whole.
    pub field: String,
    /// One sentence.
    pub problem: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            formatter.write_str(&self.problem)
        } else {
            write!(formatter, "{}: {}", self.field, self.problem)
        }
    }
}

impl FormatError {
    /// About a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, one level further out.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = match (outer.is_empty(), self.field.is_empty(), self.field.starts_with('[')) {
            (true, _, _) => self.field,
            (false, true, _) => outer.to_owned(),
            (false, false, true) => format!("{outer}{}", self.field),
            (false, false, false) => format!("{outer}.{}", self.field),
        };
        self
    }
}

/// Holds a text against the dialect.
///
/// # Errors
/// Where it breaks a rule, and which.
pub fn check(text: &str) -> Result<(), FormatError> {
    if text.contains("\\u0000") {
        return Err(FormatError::new("", "the character \\u0000 is not allowed"));
    }
    let mut walk = Walk { bytes: text.as_bytes(), at: 0 };
    walk.value_at_any_depth()?;
    walk.skip_space();
    if walk.at < walk.bytes.len() {
        return walk.fail("something follows the JSON value");
    }
    Ok(())
}

/// One pass over a text.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    fn fail<T>(&self, problem: &str) -> Result<T, FormatError> {
        Err(FormatError::new("", format!("not JSON: {problem} (byte {})", self.at)))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, problem: &str) -> Result<(), FormatError> {
        self.skip_space();
        if self.peek() != Some(byte) {
            return self.fail(problem);
        }
        self.at += 1;
        Ok(())
    }

    /// A value with everything inside it. Open containers are kept on a stack of one bit each.
    fn value_at_any_depth(&mut self) -> Result<(), FormatError> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value is due.
            self.skip_space();
            match self.peek() {
                Some(byte @ (b'{' | b'[')) => {
                    if open.len() == MAX_DEPTH {
                        return self.fail(&format!("nested deeper than {MAX_DEPTH} levels"));
                    }
                    self.at += 1;
                    self.skip_space();
                    let close = if byte == b'{' { b'}' } else { b']' };
                    if self.peek() == Some(close) {
                        self.at += 1;
                    } else {
                        open.push(close);
                        if close == b'}' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                Some(_) => return self.fail("a value was expected"),
                None => return self.fail("it ends where a value was expected"),
            }
            // A value is done: close what it completes, or go on to the next one.
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(());
                };
                self.skip_space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if close == b'}' {
                            self.key()?;
                        }
                        break;
                    }
                    Some(byte) if byte == close => {
                        self.at += 1;
                        open.pop();
                    }
                    Some(_) => {
                        return self.fail("a comma or the end of the array or object was expected");
                    }
                    None => return self.fail("it ends inside an array or object"),
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), FormatError> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return self.fail("a key in double quotes was expected");
        }
        self.string()?;
        self.expect(b':', "a colon was expected after a key")
    }

    fn word(&mut self, word: &[u8]) -> Result<(), FormatError> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.fail("a value was expected");
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), FormatError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fail("a digit was expected"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        // Only ASCII was passed over.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return self.fail("a number is too large");
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), FormatError> {
        let before = self.at;
        self.digits();
        if self.at == before {
            return self.fail("a digit was expected");
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), FormatError> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return self.fail("it ends inside a string"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(0..=0x1f) => return self.fail("a control character in a string"),
                Some(b'\\') => self.escape()?,
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), FormatError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => match self.code_unit()? {
                0xd800..=0xdbff => {
                    let paired = self.bytes.get(self.at..self.at + 2) == Some(b"\\u");
                    self.at += 1;
                    if paired && matches!(self.code_unit()?, 0xdc00..=0xdfff) {
                        Ok(())
                    } else {
                        self.fail("half of a surrogate pair")
                    }
                }
                0xdc00..=0xdfff => self.fail("half of a surrogate pair"),
                _ => Ok(()),
            },
            _ => self.fail("an unknown escape in a string"),
        }
    }

    /// The four hex digits after `u`.
    fn code_unit(&mut self) -> Result<u32, FormatError> {
        let digits = self.bytes.get(self.at + 1..self.at + 5).and_then(|digits| std::str::from_utf8(digits).ok());
        let unit = digits
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match unit {
            Some(unit) => {
                self.at += 5;
                Ok(unit)
            }
            None => self.fail("an unknown escape in a string"),
        }
    }
}

/// An object cut into its raw members. Its text has passed [`check`].
#[derive(Debug, Clone)]
pub struct Object<'a> {
    members: BTreeMap<Cow<'a, str>, Value<'a>>,
}

/// One raw value of a text that has passed [`check`].
#[derive(Debug, Clone, Copy)]
pub struct Value<'a>(&'a RawValue);

impl<'a> Object<'a> {
    /// Holds a text against the dialect and cuts it.
    ///
    /// # Errors
    /// It is not JSON, or not an object.
    pub fn parse(text: &'a str) -> Result<Self, FormatError> {
        check(text)?;
        Self::cut(text)
    }

    fn cut(text: &'a str) -> Result<Self, FormatError> {
        let Members(members) =
            serde_json::from_str(text).map_err(|_| FormatError::new("", "an object was expected"))?;
        Ok(Self { members })
    }

    /// Takes a member out; a `null` counts as absent.
    pub fn take(&mut self, key: &str) -> Option<Value<'a>> {
        self.members.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a member out, `null` included.
    pub fn take_raw(&mut self, key: &str) -> Option<Value<'a>> {
        self.members.remove(key)
    }

    /// Takes a member that must be there and must not be `null`.
    ///
    /// # Errors
    /// It is not.
    pub fn require(&mut self, key: &str) -> Result<Value<'a>, FormatError> {
        self.take(key).ok_or_else(|| FormatError::new(key, "is required"))
    }

    /// A required member, read by `read`; its errors name the member.
    ///
    /// # Errors
    /// It is missing, or `read` refuses it.
    pub fn required<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        read(self.require(key)?).map_err(|error| error.within(key))
    }

    /// An optional member, read by `read`; its errors name the member.
    ///
    /// # Errors
    /// It is there and `read` refuses it.
    pub fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        self.take(key).map(read).transpose().map_err(|error| error.within(key))
    }

    /// An optional member that has a default and so must not be `null`; read by `read`, its errors name the member.
    ///
    /// # Errors
    /// It is there and `read` refuses it.
    pub fn defaulted<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, FormatError>,
    ) -> Result<Option<T>, FormatError> {
        self.take_raw(key).map(read).transpose().map_err(|error| error.within(key))
    }

    /// What nobody has taken, in key order.
    pub fn rest(&self) -> impl Iterator<Item = (&str, Value<'a>)> {
        self.members.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// How many members nobody has taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// True when every member was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Ends a closed object: a member that nobody has taken is an error.
    ///
    /// # Errors
    /// The first such member.
    pub fn close(self) -> Result<(), FormatError> {
        match self.members.into_keys().next() {
            Some(key) => Err(FormatError::new(shown(&key), "is not a field of this object")),
            None => Ok(()),
        }
    }
}

/// Members of an object: borrowed where possible, the last of equal keys counts.
struct Members<'a>(BTreeMap<Cow<'a, str>, Value<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some(Key(key)) = map.next_key()? {
                    members.insert(key, Value(map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A key, borrowed unless it holds escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Words for booleans, in any case.
const TRUE_WORDS: [&str; 6] = ["true", "yes", "on", "y", "t", "1"];
const FALSE_WORDS: [&str; 6] = ["false", "no", "off", "n", "f", "0"];

impl<'a> Value<'a> {
    /// The raw text.
    #[must_use]
    pub fn text(self) -> &'a str {
        self.0.get()
    }

    /// True for `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.text() == "null"
    }

    /// True for an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.text().starts_with('{')
    }

    /// True for a string.
    #[must_use]
    pub fn is_string(self) -> bool {
        self.text().starts_with('"')
    }

    /// A string. Nothing else becomes one.
    ///
    /// # Errors
    /// Another value.
    pub fn string(self) -> Result<String, FormatError> {
        serde_json::from_str(self.text()).map_err(|_| self.refuse("a string"))
    }

    /// A string of at most that many characters.
    ///
    /// # Errors
    /// Another value, or a longer string.
    pub fn string_up_to(self, max_chars: usize) -> Result<String, FormatError> {
        let text = self.string()?;
        if text.chars().count() > max_chars {
            return Err(FormatError::new("", format!("at most {max_chars} characters are allowed")));
        }
        Ok(text)
    }

    /// A finite number; also as the text of one, or a boolean.
    ///
    /// # Errors
    /// Another value.
    pub fn float(self) -> Result<f64, FormatError> {
        let number = match self.text() {
            "true" => Some(1.0),
            "false" => Some(0.0),
            text if text.starts_with('"') => self.string()?.trim().parse().ok(),
            text => text.parse().ok(),
        };
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| self.refuse("a number"))
    }

    /// A finite number and nothing else.
    ///
    /// # Errors
    /// Another value.
    pub fn strict_float(self) -> Result<f64, FormatError> {
        match self.text().as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => self.float(),
            _ => Err(self.refuse("a number")),
        }
    }

    /// A whole number in a range; also as the text of one, as an integral float, or a boolean.
    ///
    /// # Errors
    /// Another value, or one outside the range.
    pub fn integer(self, range: std::ops::RangeInclusive<i64>) -> Result<i64, FormatError> {
        let number = match self.text() {
            "true" => Some(1),
            "false" => Some(0),
            text if text.starts_with('"') => self.string()?.trim().parse().ok(),
            text => text.parse().ok().or_else(|| integral(text)),
        };
        let number = number.ok_or_else(|| self.refuse("a whole number"))?;
        in_range(number, range)
    }

    /// A whole number in a range, as JSON writes one and nothing else.
    ///
    /// # Errors
    /// Another value, or one outside the range.
    pub fn strict_integer(self, range: std::ops::RangeInclusive<i64>) -> Result<i64, FormatError> {
        in_range(self.text().parse().map_err(|_| self.refuse("a whole number"))?, range)
    }

    /// A boolean; also as 0 or 1, or one of the usual words.
    ///
    /// # Errors
    /// Another value.
    pub fn boolean(self) -> Result<bool, FormatError> {
        let word = match self.text() {
            text if text.starts_with('"') => self.string()?.to_ascii_lowercase(),
            // Numbers: 0 and 1 in any spelling.
            text => match text.parse::<f64>() {
                Ok(number) => number.to_string(),
                Err(_) => text.to_owned(),
            },
        };
        if TRUE_WORDS.contains(&word.as_str()) {
            Ok(true)
        } else if FALSE_WORDS.contains(&word.as_str()) {
            Ok(false)
        } else {
            Err(self.refuse("true or false"))
        }
    }

    /// `true` or `false` and nothing else.
    ///
    /// # Errors
    /// Another value.
    pub fn strict_boolean(self) -> Result<bool, FormatError> {
        match self.text() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.refuse("true or false")),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// Another value.
    pub fn object(self) -> Result<Object<'a>, FormatError> {
        Object::cut(self.text())
    }

    /// A list of at most that many values.
    ///
    /// # Errors
    /// Another value, or a longer list.
    pub fn list(self, max_length: usize) -> Result<Vec<Value<'a>>, FormatError> {
        let values: Vec<&'a RawValue> = serde_json::from_str(self.text()).map_err(|_| self.refuse("a list"))?;
        if values.len() > max_length {
            return Err(FormatError::new("", format!("at most {max_length} entries are allowed")));
        }
        Ok(values.into_iter().map(Value).collect())
    }

    /// A list whose entries `read` reads; its errors name the entry.
    ///
    /// # Errors
    /// Not such a list.
    pub fn list_of<T>(
        self,
        max_length: usize,
        read: impl Fn(Value<'a>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        self.list(max_length)?
            .into_iter()
            .enumerate()
            .map(|(index, value)| read(value).map_err(|error| error.within(&format!("[{index}]"))))
            .collect()
    }

    /// One of some words, exactly.
    ///
    /// # Errors
    /// Another value; the error lists the words.
    pub fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Result<T, FormatError> {
        let text = self.string()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            FormatError::new("", format!("`{}` is none of: {}", shown(&text), known.join(", ")))
        })
    }

    /// An item hash.
    ///
    /// # Errors
    /// Another value.
    pub fn item_hash(self) -> Result<crate::ItemHash, FormatError> {
        crate::ItemHash::parse(&self.string()?).map_err(|error| FormatError::new("", error.to_string()))
    }

    fn refuse(self, expected: &str) -> FormatError {
        FormatError::new("", format!("{expected} was expected, not {}", shown(self.text())))
    }
}

/// A float without a fraction, as an integer.
fn integral(text: &str) -> Option<i64> {
    let number: f64 = text.parse().ok()?;
    // Beyond 2^53 a float is not exact, and no field of the network is that large.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

fn in_range(number: i64, range: std::ops::RangeInclusive<i64>) -> Result<i64, FormatError> {
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(FormatError::new("", format!("{number} is not between {} and {}", range.start(), range.end())))
    }
}

/// The start of a text, for an error.
fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN_CHARS).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

#[cfg(test)]
mod tests;
