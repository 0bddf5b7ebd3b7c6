//! Route patterns: `/api/v0/things/{name}.json`. A part in braces takes what stands in its place inside one segment.

/// What the parts of a pattern matched, by name.
pub(super) type Parts = Vec<(String, String)>;

/// A pattern, cut at its slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pattern: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(String),
    Part { before: String, name: String, after: String },
}

impl Route {
    /// Reads a pattern; none when it is none.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let segment = |text: &str| match text.split_once('{') {
            None if text.contains('}') => None,
            None => Some(Segment::Text(text.to_owned())),
            Some((before, rest)) => {
                let (name, after) = rest.split_once('}')?;
                let plain = !name.is_empty() && !name.contains('{') && !after.contains(['{', '}']);
                plain.then(|| Segment::Part { before: before.into(), name: name.into(), after: after.into() })
            }
        };
        let segments = pattern.strip_prefix('/')?.split('/').map(segment).collect::<Option<_>>()?;
        Some(Self { pattern: pattern.to_owned(), segments })
    }

    /// As it is written.
    pub(super) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// What the parts match in a path that is still percent-encoded; none when it does not fit.
    pub(super) fn matches(&self, path: &str) -> Option<Parts> {
        let mut parts = Vec::new();
        let mut segments = path.strip_prefix('/')?.split('/');
        for segment in &self.segments {
            let text = segments.next()?;
            match segment {
                Segment::Text(expected) if text == expected => {}
                Segment::Text(_) => return None,
                Segment::Part { before, name, after } => {
                    let value = text.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                    parts.push((name.clone(), decode(value).filter(|value| !value.is_empty())?));
                }
            }
        }
        segments.next().is_none().then_some(parts)
    }

    /// How specific it is: a route with more letters of its own comes first.
    pub(super) fn letters(&self) -> usize {
        let of = |segment: &Segment| match segment {
            Segment::Text(text) => text.len() + 1,
            Segment::Part { before, after, .. } => before.len() + after.len(),
        };
        self.segments.iter().map(of).sum()
    }
}

/// Text without its percent-encoding; none when what it encodes is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |place: usize| after.get(place).and_then(|byte| char::from(*byte).to_digit(16));
        if *first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, path: &str, expect: Option<&[(&str, &str)]>) {
        let parts = Route::parse(pattern).expect("a pattern").matches(path);
        let expect = expect.map(|parts| parts.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect());
        assert_eq!(parts, expect, "{pattern} {path}");
    }

    #[test]
    fn parts_match_inside_a_segment() {
        check("/a/b", "/a/b", Some(&[]));
        check("/a/b", "/a/b/", None);
        check("/a/b", "/a", None);
        check("/a/{x}.json", "/a/0xA%2Fb.json", Some(&[("x", "0xA/b")]));
        check("/a/{x}.json", "/a/.json", None);
        check("/a/{x}/{y}", "/a/1/2", Some(&[("x", "1"), ("y", "2")]));
        check("/a/{x}", "/a/%zz%2", Some(&[("x", "%zz%2")]));
        check("/a/{x}", "/a/%ff", None);
        for pattern in ["a", "/{", "/}", "/{}", "/{a}{b}", "/{a{b}}"] {
            assert_eq!(Route::parse(pattern), None, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_texts_do_no_harm(pattern in "[/{}a-c%]{0,20}", path in ".{0,30}") {
            if let Some(route) = Route::parse(&pattern) {
                let _ = route.matches(&path);
            }
        }
    }
}
