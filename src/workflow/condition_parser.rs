//! Parses conditions.
//!
//! ```text
//! any    = all { "or" all }
//! all    = single { "and" single }
//! single = "not" single | "(" any ")" | "every" INPUT
//!        | AXIS ("==" | "!=") value | AXIS [ "not" ] "in" ( INPUT | "[" value { "," value } "]" )
//! ```

use std::ops::Range;

use super::condition::Condition;
use super::words::{Cursor, SyntaxProblem};

/// A condition, and where in its text it names what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedCondition {
    pub(super) condition: Condition,
    pub(super) mentions: Vec<(Mention, Range<usize>)>,
}

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mention {
    Axis(String),
    Value { axis: String, value: String },
    Input(String),
}

/// Deeper nesting than this is no condition that a person wrote, and would use up the stack.
const DEEPEST: usize = 32;

const WORDS: &[&str] = &["and", "or", "not", "in", "every"];

/// Whether a name means something in conditions and so cannot be an axis.
pub(super) fn is_keyword(name: &str) -> bool {
    WORDS.contains(&name)
}

pub(super) fn parse(text: &str) -> Result<ParsedCondition, SyntaxProblem> {
    let mut parser = Parser { cursor: Cursor::new(text)?, mentions: Vec::new(), depth: 0 };
    let condition = parser.any()?;
    parser.cursor.finish("expected `and`, `or` or the end")?;
    Ok(ParsedCondition { condition, mentions: parser.mentions })
}

struct Parser {
    cursor: Cursor,
    mentions: Vec<(Mention, Range<usize>)>,
    depth: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Condition, SyntaxProblem> {
        let mut parts = vec![self.all()?];
        while self.cursor.take_keyword("or") {
            parts.push(self.all()?);
        }
        Ok(single_or(parts, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, SyntaxProblem> {
        let mut parts = vec![self.single()?];
        while self.cursor.take_keyword("and") {
            parts.push(self.single()?);
        }
        Ok(single_or(parts, Condition::All))
    }

    fn single(&mut self) -> Result<Condition, SyntaxProblem> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.cursor.unexpected("too deeply nested"));
        }
        let condition = if self.cursor.take_keyword("not") {
            Condition::Not(Box::new(self.single()?))
        } else if self.cursor.take_symbol("(") {
            let inner = self.any()?;
            self.cursor.expect_symbol(")")?;
            inner
        } else if self.cursor.take_keyword("every") {
            Condition::Every { input: self.input()? }
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Condition, SyntaxProblem> {
        let (axis, range) = self.name("expected an axis")?;
        self.mentions.push((Mention::Axis(axis.clone()), range));
        if self.cursor.take_symbol("==") {
            return Ok(Condition::OneOf { values: vec![self.value(&axis)?], axis });
        }
        if self.cursor.take_symbol("!=") {
            return Ok(Condition::NoneOf { values: vec![self.value(&axis)?], axis });
        }
        let negated = self.cursor.take_keyword("not");
        if !self.cursor.take_keyword("in") {
            return Err(self.cursor.unexpected("expected `==`, `!=`, `in` or `not in`"));
        }
        self.membership(axis, negated)
    }

    fn membership(&mut self, axis: String, negated: bool) -> Result<Condition, SyntaxProblem> {
        if self.cursor.take_symbol("[") {
            let values = self.values(&axis)?;
            return Ok(if negated { Condition::NoneOf { axis, values } } else { Condition::OneOf { axis, values } });
        }
        let named = Condition::Named { axis, input: self.input()? };
        Ok(if negated { Condition::Not(Box::new(named)) } else { named })
    }

    fn values(&mut self, axis: &str) -> Result<Vec<String>, SyntaxProblem> {
        let mut values = vec![self.value(axis)?];
        while self.cursor.take_symbol(",") {
            values.push(self.value(axis)?);
        }
        self.cursor.expect_symbol("]")?;
        Ok(values)
    }

    fn value(&mut self, axis: &str) -> Result<String, SyntaxProblem> {
        let (value, range) = self.cursor.expect_value("expected a value in quotes")?;
        self.mentions.push((Mention::Value { axis: axis.to_owned(), value: value.clone() }, range));
        Ok(value)
    }

    fn input(&mut self) -> Result<String, SyntaxProblem> {
        let (input, range) = self.name("expected an input or a list of values")?;
        self.mentions.push((Mention::Input(input.clone()), range));
        Ok(input)
    }

    fn name(&mut self, expected: &str) -> Result<(String, Range<usize>), SyntaxProblem> {
        let (name, range) = self.cursor.expect_word(expected)?;
        if is_keyword(&name) { Err(SyntaxProblem::new(expected, range)) } else { Ok((name, range)) }
    }
}

fn single_or(mut parts: Vec<Condition>, several: fn(Vec<Condition>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            several(parts)
        }
    }
}
