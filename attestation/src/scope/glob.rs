//! The globs of scope rules (FORMATS.md section 6), compiled to one pattern a component.
//!
//! Every pattern is matched in time linear in the name for a given glob: a star goes back at most to the last star, and
//! alternatives run side by side. Nothing is expanded, so no glob of 1 KiB can grow.

use std::fmt;

use crate::path::octal_escape;

/// The longest glob.
pub(super) const MAX_GLOB: usize = 1_024;

/// A compiled glob: what each component of a path must be.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    pub(super) components: Vec<Component>,
}

/// One component of a glob.
#[derive(Clone, Debug)]
pub(super) enum Component {
    /// `**`: any number of components; as the last of several, at least one.
    AnyDepth,
    /// No special character.
    Literal(Box<[u8]>),
    /// Bytes, sets and stars.
    Wild(Box<[Token]>),
    /// The same with alternatives.
    Choice(Box<[Step]>),
}

/// What one place of a pattern takes.
#[derive(Clone, Debug)]
pub(super) enum Token {
    Byte(u8),
    Set(Box<ByteSet>),
    Star,
}

/// A step of a pattern with alternatives; a run that comes to the end of the steps has matched.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Takes what the token says and goes on.
    Take(Token),
    /// Goes on at each of these.
    Fork(Box<[usize]>),
    /// Goes on there.
    Jump(usize),
}

/// Why a glob is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing at all.
    #[error("a glob is not empty")]
    Empty,
    /// More than 1,024 bytes.
    #[error("a glob has at most {MAX_GLOB} bytes")]
    TooLong,
    /// A leading or trailing `/`, or two in a row.
    #[error("a glob has no leading or trailing `/` and no `//`")]
    EmptyComponent,
    /// `.` or `..` as a component: no path has it.
    #[error("a glob has no component `.` or `..`")]
    DotComponent,
    /// A NUL byte or an escaped `/`: no name has it.
    #[error("a glob has no NUL byte and no escaped `/`")]
    ImpossibleByte,
    /// A question mark.
    #[error("`?` is not known; `\\077` is the character")]
    QuestionMark,
    /// `**` beside other characters.
    #[error("`**` stands alone between two `/`")]
    StarStar,
    /// A backslash without three octal digits up to 377.
    #[error("a backslash is followed by three octal digits up to 377")]
    Escape,
    /// `[^`.
    #[error("`[^` is not known; `[!` is outside a set")]
    Caret,
    /// `[]` or `[!]`.
    #[error("a set is not empty")]
    EmptySet,
    /// A falling range, or one that goes on from another.
    #[error("a range rises from one byte to another")]
    Range,
    /// A member of a set that is not ASCII, or `/`.
    #[error("a set has ASCII members, and no `/`")]
    SetMember,
    /// A bracket or brace that is not closed, or closed without being open.
    #[error("a bracket is open")]
    Open,
    /// A bracket or brace where one is already open.
    #[error("a bracket is nested")]
    Nested,
    /// A part of `{…}` without a character.
    #[error("no part of `{{…}}` is empty")]
    EmptyPart,
    /// A `/` in `{…}`.
    #[error("no `/` stands in `{{…}}`")]
    SlashInBraces,
}

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn inverted(self) -> Self {
        ByteSet(self.0.map(|word| !word))
    }
}

impl fmt::Debug for ByteSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_set()
            .entries((0..=255_u8).filter(|byte| self.contains(*byte)))
            .finish()
    }
}

impl Glob {
    pub(super) fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_GLOB {
            return Err(GlobError::TooLong);
        }
        let mut parser = Parser {
            rest: text.as_bytes(),
        };
        let mut components = Vec::new();
        loop {
            let component = parser.component()?;
            // `**/**` asks for no more than `**` does: one is kept, so that no two follow each other.
            let repeated = matches!(
                (components.last(), &component),
                (Some(Component::AnyDepth), Component::AnyDepth)
            );
            if !repeated {
                components.push(component);
            } else if components.len() == 1 && parser.rest.is_empty() {
                // But `**/**` alone is what lies below the root, and not the root.
                components = vec![Component::Wild(Box::new([Token::Star]))];
            }
            match parser.rest {
                [] => return Ok(Glob { components }),
                [_, rest @ ..] => parser.rest = rest,
            }
        }
    }

    /// Whether it matches the root: only `**` alone does.
    pub(super) fn matches_root(&self) -> bool {
        matches!(self.components[..], [Component::AnyDepth])
    }

    /// The raw path that it names, when it names just one.
    pub(super) fn literal(&self) -> Option<Vec<u8>> {
        let names = self.components.iter().map(|component| match component {
            Component::Literal(name) => Some(&name[..]),
            _ => None,
        });
        Some(names.collect::<Option<Vec<_>>>()?.join(&b'/'))
    }
}

impl Component {
    /// Whether it matches one name.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Component::AnyDepth => true,
            Component::Literal(literal) => **literal == *name,
            Component::Wild(tokens) => matches_wild(tokens, name),
            Component::Choice(steps) => matches_choice(steps, name),
        }
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(own) => *own == byte,
            Token::Set(set) => set.contains(byte),
            Token::Star => true,
        }
    }
}

/// Greedy matching that goes back to the last star only: an earlier one can take nothing that the last could not.
fn matches_wild(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut byte) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while byte < name.len() {
        match tokens.get(token) {
            Some(Token::Star) => {
                last_star = Some((token + 1, byte));
                token += 1;
            }
            Some(one) if one.takes(name[byte]) => {
                token += 1;
                byte += 1;
            }
            _ => match &mut last_star {
                Some((after_star, taken)) => {
                    *taken += 1;
                    (token, byte) = (*after_star, *taken);
                }
                None => return false,
            },
        }
    }
    tokens[token..]
        .iter()
        .all(|token| matches!(token, Token::Star))
}

/// All runs side by side, each step at most once a byte.
fn matches_choice(steps: &[Step], name: &[u8]) -> bool {
    let mut runs = Runs {
        steps,
        seen: vec![0; steps.len() + 1],
        round: 0,
        at: Vec::new(),
    };
    let mut at = Vec::new();
    runs.begin_round();
    runs.reach(0);
    for byte in name {
        std::mem::swap(&mut at, &mut runs.at);
        runs.begin_round();
        for step in at.drain(..) {
            match steps.get(step) {
                Some(Step::Take(Token::Star)) => runs.reach(step),
                Some(Step::Take(token)) if token.takes(*byte) => runs.reach(step + 1),
                _ => {}
            }
        }
    }
    runs.at.contains(&steps.len())
}

struct Runs<'a> {
    steps: &'a [Step],
    seen: Vec<usize>,
    round: usize,
    at: Vec<usize>,
}

impl Runs<'_> {
    fn begin_round(&mut self) {
        self.round += 1;
        self.at.clear();
    }

    /// Adds a step and all that can be reached from it without taking a byte.
    fn reach(&mut self, step: usize) {
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            if std::mem::replace(&mut self.seen[step], self.round) == self.round {
                continue;
            }
            match self.steps.get(step) {
                Some(Step::Fork(targets)) => open.extend_from_slice(targets),
                Some(Step::Jump(target)) => open.push(*target),
                Some(Step::Take(Token::Star)) => {
                    open.push(step + 1);
                    self.at.push(step);
                }
                Some(Step::Take(_)) | None => self.at.push(step),
            }
        }
    }
}

/// One piece of a component as it is read.
enum Piece {
    Token(Token),
    Choice(Vec<Vec<Token>>),
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    /// Reads up to the next `/` or the end.
    fn component(&mut self) -> Result<Component, GlobError> {
        if let [b'*', b'*', after @ ..] = self.rest
            && matches!(after, [] | [b'/', ..])
        {
            self.rest = after;
            return Ok(Component::AnyDepth);
        }
        let mut pieces = Vec::new();
        while let Some(&byte) = self.rest.first().filter(|byte| **byte != b'/') {
            pieces.push(match byte {
                b'{' => Piece::Choice(self.braces()?),
                b'}' => return Err(GlobError::Open),
                _ => Piece::Token(self.token()?),
            });
        }
        if pieces.is_empty() {
            return Err(GlobError::EmptyComponent);
        }
        let component = compile(pieces);
        match &component {
            Component::Literal(name) if matches!(&**name, b"." | b"..") => {
                Err(GlobError::DotComponent)
            }
            _ => Ok(component),
        }
    }

    fn token(&mut self) -> Result<Token, GlobError> {
        let byte = self.advance().ok_or(GlobError::Open)?;
        Ok(match byte {
            b'*' if self.rest.first() == Some(&b'*') => return Err(GlobError::StarStar),
            b'*' => Token::Star,
            b'?' => return Err(GlobError::QuestionMark),
            b'[' => Token::Set(Box::new(self.set()?)),
            _ => Token::Byte(self.meant(byte)?),
        })
    }

    fn advance(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// The byte that a character or an escape stands for.
    fn meant(&mut self, byte: u8) -> Result<u8, GlobError> {
        let meant = if byte == b'\\' {
            let meant = octal_escape(self.rest).ok_or(GlobError::Escape)?;
            self.rest = &self.rest[3..];
            meant
        } else {
            byte
        };
        if matches!(meant, 0 | b'/') {
            Err(GlobError::ImpossibleByte)
        } else {
            Ok(meant)
        }
    }

    /// The parts of `{…}`.
    fn braces(&mut self) -> Result<Vec<Vec<Token>>, GlobError> {
        self.advance();
        let mut parts = vec![Vec::new()];
        loop {
            let byte = *self.rest.first().ok_or(GlobError::Open)?;
            let part = parts.last_mut().ok_or(GlobError::EmptyPart)?;
            match byte {
                b',' | b'}' if part.is_empty() => return Err(GlobError::EmptyPart),
                b'{' => return Err(GlobError::Nested),
                b'/' => return Err(GlobError::SlashInBraces),
                b',' => parts.push(Vec::new()),
                b'}' => {
                    self.advance();
                    return Ok(parts);
                }
                _ => {
                    part.push(self.token()?);
                    continue;
                }
            }
            self.advance();
        }
    }

    /// The set after its `[`.
    fn set(&mut self) -> Result<ByteSet, GlobError> {
        let inverted = match self.rest.first() {
            Some(b'^') => return Err(GlobError::Caret),
            Some(b'!') => self.advance().is_some(),
            _ => false,
        };
        let mut set = ByteSet([0; 4]);
        let mut empty = true;
        loop {
            if self.rest.first().ok_or(GlobError::Open)? == &b']' {
                self.advance();
                break;
            }
            let low = self.member()?;
            empty = false;
            match self.rest {
                // A hyphen before the `]` is one itself.
                [b'-', after, ..] if *after != b']' => {
                    self.advance();
                    let high = self.member()?;
                    if high < low || matches!(self.rest, [b'-', after, ..] if *after != b']') {
                        return Err(GlobError::Range);
                    }
                    (low..=high).for_each(|byte| set.insert(byte));
                }
                _ => set.insert(low),
            }
        }
        if empty {
            return Err(GlobError::EmptySet);
        }
        Ok(if inverted { set.inverted() } else { set })
    }

    fn member(&mut self) -> Result<u8, GlobError> {
        match self.advance().ok_or(GlobError::Open)? {
            b'[' | b'{' | b'}' => Err(GlobError::Nested),
            b'/' | 128.. => Err(GlobError::SetMember),
            byte => match self.meant(byte)? {
                128.. => Err(GlobError::SetMember),
                meant => Ok(meant),
            },
        }
    }
}

fn compile(pieces: Vec<Piece>) -> Component {
    let byte = |piece: &Piece| match piece {
        Piece::Token(Token::Byte(byte)) => Some(*byte),
        _ => None,
    };
    if let Some(literal) = pieces.iter().map(byte).collect() {
        return Component::Literal(literal);
    }
    let mut steps = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Token(token) => steps.push(Step::Take(token)),
            Piece::Choice(parts) => add_choice(parts, &mut steps),
        }
    }
    let token = |step: &Step| match step {
        Step::Take(token) => Some(token.clone()),
        _ => None,
    };
    match steps.iter().map(token).collect() {
        Some(tokens) => Component::Wild(tokens),
        None => Component::Choice(steps.into()),
    }
}

/// A fork to the beginning of each part, and from the end of each part a jump behind the last.
fn add_choice(parts: Vec<Vec<Token>>, steps: &mut Vec<Step>) {
    let mut start = steps.len() + 1;
    let mut starts = Vec::new();
    for part in &parts {
        starts.push(start);
        start += part.len() + 1;
    }
    let end = start;
    steps.push(Step::Fork(starts.into()));
    for part in parts {
        steps.extend(part.into_iter().map(Step::Take));
        steps.push(Step::Jump(end));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn refused() {
        use GlobError::*;
        let long = "a".repeat(MAX_GLOB + 1);
        for (glob, error) in [
            ("", Empty),
            (&long, TooLong),
            ("/", EmptyComponent),
            ("/a", EmptyComponent),
            ("a/", EmptyComponent),
            ("a//b", EmptyComponent),
            ("**/", EmptyComponent),
            (".", DotComponent),
            ("./a", DotComponent),
            ("a/./b", DotComponent),
            ("a/..", DotComponent),
            ("\\056/a", DotComponent),
            ("a?", QuestionMark),
            ("{a,?}", QuestionMark),
            ("a**", StarStar),
            ("**a", StarStar),
            ("***", StarStar),
            ("a/**b/c", StarStar),
            ("{**,a}", StarStar),
            ("a\\", Escape),
            ("\\04", Escape),
            ("\\*", Escape),
            ("\\\\", Escape),
            ("\\400", Escape),
            ("[\\]]", Escape),
            ("\\057", ImpossibleByte),
            ("a\\000", ImpossibleByte),
            ("a\0", ImpossibleByte),
            ("[^a]", Caret),
            ("[]", EmptySet),
            ("[]a]", EmptySet),
            ("[!]", EmptySet),
            ("[b-a]", Range),
            ("[a-c-e]", Range),
            ("[a/b]", SetMember),
            ("[\u{e9}]", SetMember),
            ("[\\377]", SetMember),
            ("[a", Open),
            ("[a-", Open),
            ("[", Open),
            ("[!", Open),
            ("{a", Open),
            ("{a,b", Open),
            ("a}", Open),
            ("{a,{b,c}}", Nested),
            ("[[a]", Nested),
            ("[{a,b}]", Nested),
            ("{}", EmptyPart),
            ("{a,}", EmptyPart),
            ("{,a}", EmptyPart),
            ("{a,,b}", EmptyPart),
            ("{a/b,c}", SlashInBraces),
        ] {
            assert_eq!(Glob::parse(glob).err(), Some(error), "{glob}");
        }
        assert!(Glob::parse(&"a".repeat(MAX_GLOB)).is_ok());
    }

    #[test]
    fn one_component() {
        for (glob, yes, no) in [
            ("*", "a .hidden \u{e9}", ""),
            ("a*", "a ab a.b", "ba"),
            ("*.log", ".log a.log a.log.log", "a.logs log"),
            ("a*b*c", "abc axbxc abbcc", "ab acb"),
            ("[a-c]x", "ax cx", "dx x -x"),
            ("[!a-c]x", "dx", "ax x \u{e9}x"),
            ("[a-]", "a -", "b"),
            ("[-a]", "a -", "b"),
            ("[\\001-\\037]", "\u{1} \n", "a"),
            ("[a!]", "a !", "b"),
            ("{a,b}", "a b", "c ab {a,b}"),
            ("{a}", "a", "{a}"),
            ("x{a*,[0-9]}y", "xay xazzy x7y", "xy xby"),
            ("{a,ab}{c,bc}", "ac abc abbc", "ab a"),
            ("{*,x}.gz", ".gz x.gz y.gz", "gz"),
            ("a]", "a]", "a"),
            ("a,b!", "a,b!", "a"),
            ("\\052\\134", "*\\", "a\\"),
            ("caf\u{e9}", "caf\u{e9}", "cafe"),
            ("caf\\303\\251", "caf\u{e9}", "cafe"),
        ] {
            let compiled = Glob::parse(glob).unwrap();
            assert_eq!(compiled.components.len(), 1, "{glob}");
            let matches = |name: &str| compiled.components[0].matches(name.as_bytes());
            for name in yes.split(' ') {
                assert!(matches(name), "{glob} {name:?}");
            }
            for name in no.split(' ').filter(|name| !name.is_empty()) {
                assert!(!matches(name), "{glob} {name:?}");
            }
        }
        assert!(Glob::parse("[!a]").unwrap().components[0].matches(b"\xff"));
        assert!(Glob::parse("\\377").unwrap().components[0].matches(b"\xff"));
    }

    #[test]
    fn many_alternatives_stay_small() {
        let glob = Glob::parse(&"{a,*}".repeat(204)).unwrap();
        assert!(glob.components[0].matches(&[b'b'; 255]));
        let stars = Glob::parse(&"*a".repeat(500)).unwrap();
        assert!(!stars.components[0].matches(&[b'a'; 255]));
    }
}
