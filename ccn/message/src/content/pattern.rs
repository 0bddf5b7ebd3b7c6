//! Whether a text is a regular expression in the dialect of Python's module `re`, which is what `address_regex` has to be (messages spec 7).
//!
//! Nothing is ever matched here: the question is only whether `re.compile` would take it. The rules are those that Python 3.12 and 3.13 have in common,
//! in the order of their `re/_parser.py`, with what the compiler says of widths behind a look-behind. One thing differs: which names of characters
//! there are (`\N{EM DASH}`) is not looked up, because that is another list in every version of Python.

use std::collections::BTreeMap;

/// Longest expression, characters. It bounds groups and depth, too.
pub(crate) const MAX_CHARS: usize = 256;
/// Numbers of repetitions are below this one, which stands for "as often as there are".
const MAX_REPEAT: u128 = 4_294_967_295;

/// Why a text is no expression: what Python would say, near enough.
type Refused = &'static str;

/// Checks an expression.
///
/// # Errors
/// Python would not compile it.
pub(crate) fn check(text: &str) -> Result<(), Refused> {
    if text.chars().count() > MAX_CHARS {
        return Err("too long");
    }
    let mut parser = Parser { source: Source::new(text)?, groups: vec![None], ..Parser::default() };
    parser.alternatives(Context { verbose: false, is_top: true })?;
    if parser.source.peek().is_some() {
        return Err("unbalanced parenthesis");
    }
    if parser.flags.ascii && parser.flags.unicode {
        return Err("the flags a and u are incompatible");
    }
    // A condition may name a group that comes later.
    let last = parser.groups.len();
    if parser.conditions.iter().any(|group| *group >= last) {
        return Err("invalid group reference");
    }
    Ok(())
}

/// A character, or one behind a backslash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Plain(char),
    Escaped(char),
}
use Token::{Escaped, Plain};

/// The text, token by token.
#[derive(Debug, Default)]
struct Source {
    tokens: Vec<Token>,
    place: usize,
}

impl Source {
    fn new(text: &str) -> Result<Self, Refused> {
        let mut chars = text.chars();
        let mut tokens = Vec::new();
        while let Some(char) = chars.next() {
            tokens.push(match char {
                '\\' => Escaped(chars.next().ok_or("bad escape at the end")?),
                char => Plain(char),
            });
        }
        Ok(Self { tokens, place: 0 })
    }

    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.place).copied()
    }

    fn get(&mut self) -> Option<Token> {
        let token = self.peek();
        self.place += usize::from(token.is_some());
        token
    }

    /// Takes a character if it is the next one.
    fn take(&mut self, char: char) -> bool {
        let is_next = self.peek() == Some(Plain(char));
        self.place += usize::from(is_next);
        is_next
    }

    /// Takes at most so many characters of a kind.
    fn take_while(&mut self, most: usize, is_it: fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(Plain(char)) = self.peek().filter(|_| taken.len() < most)
            && is_it(char)
        {
            taken.push(char);
            self.place += 1;
        }
        taken
    }

    /// A name up to what ends it, which is taken, too. None for one with a backslash.
    fn name(&mut self, end: char) -> Result<Option<String>, Refused> {
        let (mut name, mut is_plain) = (String::new(), true);
        loop {
            match self.get() {
                None => return Err("unterminated name"),
                Some(Plain(char)) if char == end => break,
                Some(Plain(char)) => name.push(char),
                Some(Escaped(_)) => is_plain = false,
            }
        }
        if name.is_empty() && is_plain {
            return Err("missing name");
        }
        Ok(Some(name).filter(|_| is_plain))
    }
}

/// How many characters something matches: at least and at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Width {
    least: u128,
    most: u128,
}

impl Width {
    const ONE: Self = Self { least: 1, most: 1 };

    fn then(self, next: Self) -> Self {
        Self { least: self.least + next.least, most: self.most + next.most }.bounded()
    }

    fn or(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    fn times(self, least: u128, most: u128) -> Self {
        Self { least: self.least * least, most: self.most * most }.bounded()
    }

    /// What is too wide to be counted is as wide as can be.
    fn bounded(self) -> Self {
        Self { least: self.least.min(MAX_REPEAT - 1), most: self.most.min(MAX_REPEAT) }
    }
}

/// What the last part of a sequence is, where that decides whether it may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A place, such as the beginning of a line.
    At,
    /// Something repeated.
    Repeated,
    Other,
}

/// Parts in a row.
#[derive(Debug, Default)]
struct Sequence {
    before: Width,
    last: Option<(Part, Width)>,
}

impl Sequence {
    fn push(&mut self, part: Part, width: Width) {
        self.before = self.width();
        self.last = Some((part, width));
    }

    fn width(&self) -> Width {
        self.before.then(self.last.map(|(_, width)| width).unwrap_or_default())
    }
}

/// Flags that were set for the whole, as far as they matter.
#[derive(Debug, Default)]
struct Flags {
    verbose: bool,
    ascii: bool,
    unicode: bool,
}

/// What holds where something is read.
#[derive(Debug, Clone, Copy)]
struct Context {
    /// White space and comments count for nothing.
    verbose: bool,
    /// Outside of all parentheses.
    is_top: bool,
}

#[derive(Debug, Default)]
struct Parser {
    source: Source,
    /// Widths of the groups, by their number; none of one that is open. The whole is the first, and stays open.
    groups: Vec<Option<Width>>,
    names: BTreeMap<String, usize>,
    /// Groups that conditions name.
    conditions: Vec<usize>,
    /// In a look-behind: how many groups there were before it.
    behind: Option<usize>,
    flags: Flags,
}

impl Parser {
    /// `a|b|c`
    fn alternatives(&mut self, mut context: Context) -> Result<Width, Refused> {
        let mut width = self.sequence(context, context.is_top)?;
        while self.source.take('|') {
            if context.is_top {
                context.verbose = self.flags.verbose;
            }
            width = width.or(self.sequence(context, false)?);
        }
        Ok(width)
    }

    /// Up to a `|`, a `)` or the end. Only at the very beginning may flags be set for the whole.
    fn sequence(&mut self, mut context: Context, is_first: bool) -> Result<Width, Refused> {
        let mut sequence = Sequence::default();
        while let Some(token) = self.source.peek() {
            if matches!(token, Plain('|' | ')')) {
                break;
            }
            self.source.get();
            match token {
                Plain(' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c') if context.verbose => {}
                Plain('#') if context.verbose => while !matches!(self.source.get(), None | Some(Plain('\n'))) {},
                Escaped(char) => {
                    let (part, width) = self.escape(char)?;
                    sequence.push(part, width);
                }
                Plain('[') => {
                    self.set()?;
                    sequence.push(Part::Other, Width::ONE);
                }
                Plain(sign @ ('?' | '*' | '+' | '{')) => self.repeat(sign, &mut sequence)?,
                Plain('(') => {
                    let may_set = is_first && sequence.last.is_none();
                    match self.parenthesis(context, may_set)? {
                        Parenthesis::Part(width) => sequence.push(Part::Other, width),
                        Parenthesis::Nothing => {}
                        Parenthesis::Flags => context.verbose = self.flags.verbose,
                    }
                }
                Plain('^' | '$') => sequence.push(Part::At, Width::default()),
                Plain(_) => sequence.push(Part::Other, Width::ONE),
            }
        }
        Ok(sequence.width())
    }

    /// What follows a backslash, outside of a set.
    fn escape(&mut self, char: char) -> Result<(Part, Width), Refused> {
        match char {
            'A' | 'b' | 'B' | 'Z' => Ok((Part::At, Width::default())),
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Ok((Part::Other, Width::ONE)),
            '0' => {
                self.source.take_while(2, is_octal);
                Ok((Part::Other, Width::ONE))
            }
            '1'..='9' => self.number(char),
            char => self.character(char).map(|_| (Part::Other, Width::ONE)),
        }
    }

    /// An octal number of three digits, or the number of a group.
    fn number(&mut self, first: char) -> Result<(Part, Width), Refused> {
        let mut digits = String::from(first);
        digits.push_str(&self.source.take_while(1, |char| char.is_ascii_digit()));
        if digits.len() == 2 && digits.chars().all(is_octal) {
            digits.push_str(&self.source.take_while(1, is_octal));
        }
        if digits.len() == 3 {
            return octal(&digits).map(|_| (Part::Other, Width::ONE));
        }
        let group = digits.parse().map_err(|_| "invalid group reference")?;
        Ok((Part::Other, self.reference(group)?))
    }

    /// The width of a group that was closed before.
    fn reference(&self, group: usize) -> Result<Width, Refused> {
        let width = self.groups.get(group).ok_or("invalid group reference")?;
        let width = width.ok_or("cannot refer to an open group")?;
        self.is_before_look_behind(group)?;
        Ok(width)
    }

    fn is_before_look_behind(&self, group: usize) -> Result<(), Refused> {
        let Some(before) = self.behind else { return Ok(()) };
        if self.groups.get(group).copied().flatten().is_none() {
            return Err("cannot refer to an open group");
        }
        if group >= before { Err("cannot refer to group defined in the same lookbehind subpattern") } else { Ok(()) }
    }

    /// The number of what stands behind a backslash for one character everywhere. Halves of pairs are characters to Python.
    fn character(&mut self, char: char) -> Result<u32, Refused> {
        let known = match char {
            'a' => 0x07,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            'x' => return self.hexadecimal(2),
            'u' => return self.hexadecimal(4),
            'U' => return self.hexadecimal(8),
            'N' => return self.named(),
            char if char.is_ascii_alphanumeric() => return Err("bad escape"),
            char => u32::from(char),
        };
        Ok(known)
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<u32, Refused> {
        let taken = self.source.take_while(digits, |char| char.is_ascii_hexdigit());
        let number = u32::from_str_radix(&taken, 16).ok().filter(|_| taken.len() == digits);
        let number = number.ok_or("incomplete escape")?;
        if number > u32::from(char::MAX) { Err("bad escape") } else { Ok(number) }
    }

    fn named(&mut self) -> Result<u32, Refused> {
        if !self.source.take('{') {
            return Err("missing {");
        }
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, ' ' | '-');
        let name = self.source.name('}')?.filter(|name| name.chars().all(is_name));
        name.map(|_| u32::from(char::REPLACEMENT_CHARACTER)).ok_or("undefined character name")
    }

    /// `[…]`, of which the bracket is taken.
    fn set(&mut self) -> Result<(), Refused> {
        const OPEN: Refused = "unterminated character set";
        self.source.take('^');
        let mut is_empty = true;
        loop {
            let token = self.source.get().ok_or(OPEN)?;
            if token == Plain(']') && !is_empty {
                return Ok(());
            }
            is_empty = false;
            let low = self.member(token)?;
            if !self.source.take('-') {
                continue;
            }
            let token = self.source.get().ok_or(OPEN)?;
            if token == Plain(']') {
                return Ok(());
            }
            match (low, self.member(token)?) {
                (Some(low), Some(high)) if low <= high => {}
                _ => return Err("bad character range"),
            }
        }
    }

    /// The number of a member of a set; none for one that is many characters.
    fn member(&mut self, token: Token) -> Result<Option<u32>, Refused> {
        match token {
            Plain(char) => Ok(Some(u32::from(char))),
            Escaped('b') => Ok(Some(0x08)),
            Escaped('d' | 'D' | 's' | 'S' | 'w' | 'W') => Ok(None),
            Escaped(first @ '0'..='7') => {
                let mut digits = String::from(first);
                digits.push_str(&self.source.take_while(2, is_octal));
                octal(&digits).map(Some)
            }
            Escaped(char) => self.character(char).map(Some),
        }
    }

    /// `?`, `*`, `+` or `{…}`, of which the first character is taken.
    fn repeat(&mut self, sign: char, sequence: &mut Sequence) -> Result<(), Refused> {
        let (least, most) = match sign {
            '?' => (0, 1),
            '*' => (0, MAX_REPEAT),
            '+' => (1, MAX_REPEAT),
            _ => match self.bounds()? {
                Some(bounds) => bounds,
                // It stands for itself.
                None => {
                    sequence.push(Part::Other, Width::ONE);
                    return Ok(());
                }
            },
        };
        let width = match sequence.last {
            None | Some((Part::At, _)) => return Err("nothing to repeat"),
            Some((Part::Repeated, _)) => return Err("multiple repeat"),
            Some((Part::Other, width)) => width,
        };
        // As little as possible, or whatever comes after.
        if !self.source.take('?') {
            self.source.take('+');
        }
        sequence.last = Some((Part::Repeated, width.times(least, most)));
        Ok(())
    }

    /// The numbers in `{…}`; none when it is nothing of that kind.
    fn bounds(&mut self) -> Result<Option<(u128, u128)>, Refused> {
        if self.source.peek() == Some(Plain('}')) {
            return Ok(None);
        }
        let place = self.source.place;
        let digits = |source: &mut Source| source.take_while(MAX_CHARS, |char| char.is_ascii_digit());
        let low = digits(&mut self.source);
        let high = if self.source.take(',') { digits(&mut self.source) } else { low.clone() };
        if !self.source.take('}') {
            self.source.place = place;
            return Ok(None);
        }
        let number = |digits: &str, otherwise: u128| match digits {
            "" => Ok(otherwise),
            digits => digits.parse().ok().filter(|number| *number < MAX_REPEAT).ok_or("the number is too large"),
        };
        let (least, most) = (number(&low, 0)?, number(&high, MAX_REPEAT)?);
        if most < least { Err("min repeat greater than max repeat") } else { Ok(Some((least, most))) }
    }
}

/// What stands in parentheses.
enum Parenthesis {
    Part(Width),
    /// A comment.
    Nothing,
    /// Flags for the whole.
    Flags,
}

/// What kind of parenthesis is open.
enum Opening {
    /// A group with a number, and perhaps a name.
    Group(Option<String>),
    /// One without, in which white space counts or not.
    Plain { verbose: bool },
}

impl Parser {
    /// `(…)`, of which the first parenthesis is taken.
    fn parenthesis(&mut self, context: Context, may_set: bool) -> Result<Parenthesis, Refused> {
        const ENDED: Refused = "unexpected end of pattern";
        let mut opening = Opening::Plain { verbose: context.verbose };
        if !self.source.take('?') {
            opening = Opening::Group(None);
        } else {
            match self.source.get().ok_or(ENDED)? {
                Plain('P') if self.source.take('<') => opening = Opening::Group(Some(self.identifier('>')?)),
                Plain('P') if self.source.take('=') => {
                    let name = self.identifier(')')?;
                    let group = *self.names.get(&name).ok_or("unknown group name")?;
                    return Ok(Parenthesis::Part(self.reference(group)?));
                }
                Plain(':' | '>') => {}
                Plain('#') => {
                    while self.source.get().ok_or("unterminated comment")? != Plain(')') {}
                    return Ok(Parenthesis::Nothing);
                }
                Plain('=' | '!') => return self.look(context, false),
                Plain('<') => {
                    return match self.source.get().ok_or(ENDED)? {
                        Plain('=' | '!') => self.look(context, true),
                        _ => Err("unknown extension"),
                    };
                }
                Plain('(') => return self.condition(context),
                Plain(sign) if sign == '-' || is_flag(sign) => match self.flags(sign)? {
                    Some((on, off)) => {
                        let verbose = (context.verbose || on.contains('x')) && !off.contains('x');
                        opening = Opening::Plain { verbose };
                    }
                    None if may_set => return Ok(Parenthesis::Flags),
                    None => return Err("global flags not at the start of the expression"),
                },
                _ => return Err("unknown extension"),
            }
        }
        self.group(context, opening).map(Parenthesis::Part)
    }

    /// The contents of a group, and its end.
    fn group(&mut self, context: Context, opening: Opening) -> Result<Width, Refused> {
        let (number, verbose) = match opening {
            Opening::Plain { verbose } => (None, verbose),
            Opening::Group(name) => {
                let number = self.groups.len();
                self.groups.push(None);
                if name.is_some_and(|name| self.names.insert(name, number).is_some()) {
                    return Err("redefinition of group name");
                }
                (Some(number), context.verbose)
            }
        };
        let width = self.alternatives(Context { verbose, is_top: false })?;
        self.closes()?;
        if let Some(group) = number.and_then(|number| self.groups.get_mut(number)) {
            *group = Some(width);
        }
        Ok(width)
    }

    fn closes(&mut self) -> Result<(), Refused> {
        if self.source.take(')') { Ok(()) } else { Err("unterminated subpattern") }
    }

    /// A look-ahead or look-behind: it matches no character.
    fn look(&mut self, context: Context, is_behind: bool) -> Result<Parenthesis, Refused> {
        let outer = self.behind;
        if is_behind {
            self.behind = outer.or(Some(self.groups.len()));
        }
        let width = self.alternatives(Context { is_top: false, ..context })?;
        self.behind = outer;
        self.closes()?;
        if is_behind && width.least != width.most {
            return Err("look-behind requires fixed-width pattern");
        }
        Ok(Parenthesis::Part(Width::default()))
    }

    /// `(?(1)…|…)`, up to the second parenthesis taken.
    fn condition(&mut self, context: Context) -> Result<Parenthesis, Refused> {
        let name = self.source.name(')')?.ok_or("bad character in group name")?;
        let group = if name.bytes().all(|byte| byte.is_ascii_digit()) {
            let group = name.parse().ok().filter(|group| *group <= MAX_CHARS).ok_or("invalid group reference")?;
            if group == 0 {
                return Err("bad group number");
            }
            self.conditions.push(group);
            group
        } else if is_identifier(&name) {
            *self.names.get(&name).ok_or("unknown group name")?
        } else {
            return Err("bad character in group name");
        };
        self.is_before_look_behind(group)?;
        let context = Context { is_top: false, ..context };
        let width = self.sequence(context, false)?;
        let otherwise = if self.source.take('|') { self.sequence(context, false)? } else { Width::default() };
        if self.source.peek() == Some(Plain('|')) {
            return Err("conditional backref with more than two branches");
        }
        self.closes()?;
        Ok(Parenthesis::Part(width.or(otherwise)))
    }

    fn identifier(&mut self, end: char) -> Result<String, Refused> {
        let name = self.source.name(end)?;
        name.filter(|name| is_identifier(name)).ok_or("bad character in group name")
    }

    /// `i-s:` or `i)`, of which the first character is taken: what is switched on and off for a group, or none for what is set for the whole.
    fn flags(&mut self, first: char) -> Result<Option<(String, String)>, Refused> {
        const UNKNOWN: Refused = "unknown flag";
        let (mut on, mut off) = (String::new(), String::new());
        let mut sign = first;
        while is_flag(sign) {
            if sign == 'L' {
                return Err("cannot use 'L' flag with a str pattern");
            }
            on.push(sign);
            if on.contains('a') && on.contains('u') {
                return Err("flags 'a', 'u' and 'L' are incompatible");
            }
            sign = self.sign().ok_or(UNKNOWN)?;
        }
        if sign == ')' {
            self.flags.verbose |= on.contains('x');
            self.flags.ascii |= on.contains('a');
            self.flags.unicode |= on.contains('u');
            return Ok(None);
        }
        if sign == '-' {
            sign = self.sign().filter(|sign| is_flag(*sign)).ok_or("missing flag")?;
            while is_flag(sign) {
                if matches!(sign, 'a' | 'u' | 'L') {
                    return Err("cannot turn off flags 'a', 'u' and 'L'");
                }
                off.push(sign);
                sign = self.sign().ok_or("missing :")?;
            }
        }
        if sign != ':' {
            return Err(UNKNOWN);
        }
        if on.chars().any(|flag| off.contains(flag)) { Err("flag turned on and off") } else { Ok(Some((on, off))) }
    }

    /// The next character; none for one behind a backslash.
    fn sign(&mut self) -> Option<char> {
        match self.source.get()? {
            Plain(char) => Some(char),
            Escaped(_) => None,
        }
    }
}

fn is_flag(char: char) -> bool {
    matches!(char, 'a' | 'i' | 'L' | 'm' | 's' | 'u' | 'x')
}

fn is_octal(char: char) -> bool {
    matches!(char, '0'..='7')
}

fn octal(digits: &str) -> Result<u32, Refused> {
    let number = u8::from_str_radix(digits, 8).map_err(|_| "octal escape value outside of range 0-0o377")?;
    Ok(u32::from(number))
}

/// What Python takes for a name.
fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = |char| char == '_' || unicode_ident::is_xid_start(char);
    chars.next().is_some_and(begins) && chars.all(unicode_ident::is_xid_continue)
}

#[cfg(test)]
mod tests;
