//! The words of the small languages inside strings: conditions and references.

use std::ops::Range;

/// A word, a symbol or a quoted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// The bytes of the token, quotes included.
    pub(super) range: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// Letters, digits, `_`, `-`, `.` and `+`.
    Word(String),
    /// A text in quotes of either kind.
    Quoted(String),
    /// One of the symbols that the language has.
    Symbol(&'static str),
}

/// What cannot be read, and where in the string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxProblem {
    pub(super) expected: String,
    pub(super) range: Range<usize>,
}

impl SyntaxProblem {
    pub(super) fn new(expected: impl Into<String>, range: Range<usize>) -> Self {
        Self { expected: expected.into(), range }
    }
}

/// Longer symbols come first, so that `==` is not read as two `=`.
const SYMBOLS: &[&str] = &["==", "!=", "=", "(", ")", "[", "]", ",", "*"];

/// Cuts a text into tokens.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxProblem> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let token = if character.is_whitespace() {
            at += character.len_utf8();
            continue;
        } else if character == '\'' || character == '"' {
            quoted(text, at, character)?
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| text[at..].starts_with(**symbol)) {
            Token { kind: TokenKind::Symbol(symbol), range: at..at + symbol.len() }
        } else {
            word(text, at)?
        };
        at = token.range.end;
        found.push(token);
    }
    Ok(found)
}

fn quoted(text: &str, start: usize, quote: char) -> Result<Token, SyntaxProblem> {
    let inner = &text[start + 1..];
    let length = inner
        .find(quote)
        .ok_or_else(|| SyntaxProblem::new(format!("expected a closing {quote}"), start..text.len()))?;
    Ok(Token { kind: TokenKind::Quoted(inner[..length].to_owned()), range: start..start + length + 2 })
}

fn word(text: &str, start: usize) -> Result<Token, SyntaxProblem> {
    let rest = &text[start..];
    let stop = |character: char| !(character.is_ascii_alphanumeric() || "_-.+".contains(character));
    let length = rest.find(stop).unwrap_or(rest.len());
    if length == 0 {
        let width = rest.chars().next().map_or(1, char::len_utf8);
        return Err(SyntaxProblem::new("unexpected character", start..start + width));
    }
    Ok(Token { kind: TokenKind::Word(rest[..length].to_owned()), range: start..start + length })
}

/// Reads tokens one after the other.
#[derive(Debug)]
pub(super) struct Cursor {
    tokens: Vec<Token>,
    next: usize,
    length: usize,
}

impl Cursor {
    /// Starts at the beginning of a text.
    pub(super) fn new(text: &str) -> Result<Self, SyntaxProblem> {
        Ok(Self { tokens: tokens(text)?, next: 0, length: text.len() })
    }

    /// The next token, without taking it.
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    /// Takes the next token if it is this symbol.
    pub(super) fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token { kind: TokenKind::Symbol(next), .. }) if *next == symbol);
        self.next += usize::from(found);
        found
    }

    /// Takes the next token if it is this symbol, and tells where it stood.
    pub(super) fn take_symbol_range(&mut self, symbol: &str) -> Option<Range<usize>> {
        let range = self.peek()?.range.clone();
        self.take_symbol(symbol).then_some(range)
    }

    /// Takes the next token if it is this word.
    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some(Token { kind: TokenKind::Word(next), .. }) if next == keyword);
        self.next += usize::from(found);
        found
    }

    /// Takes the next token, which must be this symbol.
    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Result<(), SyntaxProblem> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected(format!("expected `{symbol}`"))) }
    }

    /// Takes the next token, which must be a word.
    pub(super) fn expect_word(&mut self, expected: &str) -> Result<(String, Range<usize>), SyntaxProblem> {
        match self.peek() {
            Some(Token { kind: TokenKind::Word(word), range }) => {
                let found = (word.clone(), range.clone());
                self.next += 1;
                Ok(found)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Takes the next token, which must be a word or a quoted text.
    pub(super) fn expect_value(&mut self, expected: &str) -> Result<(String, Range<usize>), SyntaxProblem> {
        match self.peek() {
            Some(Token { kind: TokenKind::Word(text) | TokenKind::Quoted(text), range }) => {
                let found = (text.clone(), range.clone());
                self.next += 1;
                Ok(found)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Makes sure that nothing is left.
    pub(super) fn finish(&self, expected: &str) -> Result<(), SyntaxProblem> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The problem that something else was expected where the next token is.
    pub(super) fn unexpected(&self, expected: impl Into<String>) -> SyntaxProblem {
        let range = self.peek().map_or(self.length.saturating_sub(1)..self.length, |token| token.range.clone());
        SyntaxProblem::new(expected, range)
    }
}
