//! References: what an input is connected to.
//!
//! ```text
//! reference = NAME [ "[" AXIS "=" VALUE { "," AXIS "=" VALUE } "]" ] [ "." PORT ]      VALUE may be *
//! ```

use std::ops::Range;

use super::condition::Condition;
use super::words::{Cursor, SyntaxProblem};
use crate::diagnostic::{Located, Place};

/// `stage[axis=value].port`, with the condition under which it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The stage or the source.
    pub producer: Located<String>,
    /// What is picked of the producer's axes.
    pub picks: Vec<Pick>,
    /// The output port; if absent, the one whose kind the input takes.
    pub port: Option<Located<String>>,
    /// When the reference counts; decided by the consumer's values on the axes.
    pub condition: Option<Located<Condition>>,
    /// The place of the whole reference.
    pub place: Place,
}

impl Reference {
    /// Whether another reference means the same, wherever it stands.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let port = |reference: &Self| reference.port.as_ref().map(|port| port.value.clone());
        let picks = |reference: &Self| -> Vec<_> {
            reference.picks.iter().map(|pick| (pick.axis.value.clone(), pick.value.value.clone())).collect()
        };
        let condition = |reference: &Self| reference.condition.as_ref().map(|condition| condition.value.clone());
        self.producer.value == other.producer.value
            && port(self) == port(other)
            && picks(self) == picks(other)
            && condition(self) == condition(other)
    }
}

/// `axis=value`: one value of the producer's axis, or the consumer's value of another axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// The producer's axis.
    pub axis: Located<String>,
    /// A value of that axis, the name of an axis of the consumer, or `*` for all values.
    pub value: Located<String>,
}

/// Picks every value of an axis, also where the consumer runs over that axis itself.
pub(super) const ALL_VALUES: &str = "*";

/// Parses a reference that stands as a string at `place`.
pub(super) fn parse(text: &str, place: &Place) -> Result<Reference, SyntaxProblem> {
    // A value of an axis may hold a point, the name of a producer may not; so the three parts are cut first.
    let (producer, picks, port) = parts(text)?;
    let locate = |range: Range<usize>| {
        let value = text.get(range.clone()).unwrap_or_default().to_owned();
        Located::new(value, place.within_string(text, range))
    };
    Ok(Reference {
        producer: locate(name(text, producer, "expected the name of a stage")?),
        picks: picks.map_or(Ok(Vec::new()), |range| parse_picks(text, range, place))?,
        port: port.map(|range| name(text, range, "expected the name of an output port").map(locate)).transpose()?,
        condition: None,
        place: place.clone(),
    })
}

/// The ranges of the producer, of what stands in brackets, and of the port.
type Parts = (Range<usize>, Option<Range<usize>>, Option<Range<usize>>);

fn parts(text: &str) -> Result<Parts, SyntaxProblem> {
    let producer_end = text.find(['[', '.']).unwrap_or(text.len());
    let mut rest = producer_end;
    let mut picks = None;
    if text[rest..].starts_with('[') {
        let close =
            text[rest..].find(']').ok_or_else(|| SyntaxProblem::new("expected a closing `]`", rest..text.len()))?;
        picks = Some(rest + 1..rest + close);
        rest += close + 1;
    }
    let port = text[rest..].starts_with('.').then(|| rest + 1..text.len());
    if port.is_none() && rest < text.len() {
        return Err(SyntaxProblem::new("expected `.` and an output port, or the end", rest..text.len()));
    }
    Ok((0..producer_end, picks, port))
}

fn name(text: &str, range: Range<usize>, expected: &str) -> Result<Range<usize>, SyntaxProblem> {
    let written = text.get(range.clone()).unwrap_or_default();
    if super::read::is_name(written) { Ok(range) } else { Err(SyntaxProblem::new(expected, range)) }
}

fn parse_picks(text: &str, range: Range<usize>, place: &Place) -> Result<Vec<Pick>, SyntaxProblem> {
    let offset = range.start;
    let inner = text.get(range).unwrap_or_default();
    let shift = |problem: SyntaxProblem| {
        SyntaxProblem::new(problem.expected, problem.range.start + offset..problem.range.end + offset)
    };
    let mut cursor = Cursor::new(inner).map_err(shift)?;
    let mut picks: Vec<Pick> = Vec::new();
    loop {
        let (pick, at) = parse_pick(&mut cursor, offset, text, place).map_err(shift)?;
        if picks.iter().any(|other| other.axis.value == pick.axis.value) {
            return Err(shift(SyntaxProblem::new(format!("`{}` is picked twice", pick.axis.value), at)));
        }
        picks.push(pick);
        if !cursor.take_symbol(",") {
            break;
        }
    }
    cursor.finish("expected `,` or `]`").map_err(shift)?;
    Ok(picks)
}

fn parse_pick(
    cursor: &mut Cursor,
    offset: usize,
    text: &str,
    place: &Place,
) -> Result<(Pick, Range<usize>), SyntaxProblem> {
    let locate = |value: String, range: &Range<usize>| {
        Located::new(value, place.within_string(text, range.start + offset..range.end + offset))
    };
    let (axis, axis_range) = cursor.expect_word("expected `axis=value`")?;
    cursor.expect_symbol("=")?;
    let (value, value_range) = match cursor.take_symbol_range(ALL_VALUES) {
        Some(range) => (ALL_VALUES.to_owned(), range),
        None => cursor.expect_value("expected a value of the axis, or `*` for all")?,
    };
    let pick = Pick { axis: locate(axis, &axis_range), value: locate(value, &value_range) };
    Ok((pick, axis_range))
}
