//! Errors in what a person wrote, drawn with the line they are about.
//!
//! A [`Diagnostic`] says what is wrong, points at the place, and where it can says what to do next. All diagnostics of a
//! workflow are collected in [`Diagnostics`], so that they can be mended in one go. A [`Source`] need not be a file: an
//! argument of the command line is one too, so that `--set` gets errors of the same quality as a line of a file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Where a text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A file.
    File(PathBuf),
    /// A recipe that is compiled in, by its name.
    Recipe(String),
    /// An argument of the command line, by its name, such as `--set`.
    Argument(&'static str),
    /// A text that the program itself made.
    Generated,
}

/// A text that a diagnostic can point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    text: String,
    kind: SourceKind,
}

impl Source {
    /// A text under the name that people see.
    pub fn new(name: impl Into<String>, text: impl Into<String>, kind: SourceKind) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into(), kind })
    }

    /// The name that people see.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the text comes from.
    #[must_use]
    pub fn kind(&self) -> &SourceKind {
        &self.kind
    }

    /// The folder that relative paths of this text are relative to, if it is a file.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.kind {
            SourceKind::File(path) => path.parent(),
            _ => None,
        }
    }
}

/// A range of bytes of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    span: Range<usize>,
}

impl Place {
    /// A place; what reaches beyond the text, or cuts a character, is widened or cut to what can be drawn.
    #[must_use]
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let text = source.text();
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let stop = text.ceil_char_boundary(span.end.clamp(start, text.len()));
        Self { source: Arc::clone(source), span: start..stop }
    }

    /// The text that holds the place.
    #[must_use]
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The bytes of the place.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The text at the place.
    #[must_use]
    pub fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }

    /// The part `range` of a quoted string that stands here, where the string is written without escapes; else all of it.
    #[must_use]
    pub fn within_string(&self, value: &str, range: Range<usize>) -> Self {
        let written = self.text();
        let inner = written.get(1..written.len().saturating_sub(1));
        let offset = if written == value {
            0
        } else if inner == Some(value) {
            1
        } else {
            return self.clone();
        };
        Self::new(&self.source, self.span.start + offset + range.start..self.span.start + offset + range.end)
    }

    /// Line and column, both counted from 1; columns are characters.
    #[must_use]
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = self.source.text.get(..self.span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The source and the line, as a comment of an expanded workflow names it; an argument has no line.
    #[must_use]
    pub fn origin(&self) -> String {
        match self.source.kind() {
            SourceKind::Argument(name) => (*name).to_owned(),
            _ => format!("{}:{}", self.source.name, self.line_and_column().0),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(formatter, "{}:{line}:{column}", self.source.name)
    }
}

/// A value together with the place that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// The place that says it.
    pub place: Place,
}

impl<T> Located<T> {
    /// A value and its place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing can be done before this is mended.
    Error,
    /// The work can be done, but is perhaps not what was meant.
    Warning,
}

/// A place and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The place.
    pub place: Place,
    /// What is said of it; may be empty.
    pub text: String,
    /// Whether the diagnostic is about this place, rather than that it helps to understand.
    pub primary: bool,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A lower-case phrase with values in backticks.
    pub message: String,
    /// The places.
    pub labels: Vec<Label>,
    /// What helps to understand.
    pub notes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), labels: Vec::new(), notes: Vec::new(), hint: None }
    }

    /// A warning.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// Points at the place that the diagnostic is about.
    #[must_use]
    pub fn at(mut self, place: &Place, text: impl Into<String>) -> Self {
        self.labels.push(Label { place: place.clone(), text: text.into(), primary: true });
        self
    }

    /// Points at a place that helps to understand.
    #[must_use]
    pub fn context(mut self, place: &Place, text: impl Into<String>) -> Self {
        self.labels.push(Label { place: place.clone(), text: text.into(), primary: false });
        self
    }

    /// Adds what helps to understand.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds what helps to understand, if there is something.
    #[must_use]
    pub fn maybe_note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do next, if that is known.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// The place that the diagnostic is about.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.labels.iter().find(|label| label.primary).map(|label| &label.place)
    }

    /// The diagnostic as text, in colour or plain.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        for labels in self.labels_by_source() {
            group = group.element(snippet_of(&labels));
        }
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        renderer.render(&[group])
    }

    fn labels_by_source(&self) -> Vec<Vec<&Label>> {
        let mut groups: Vec<Vec<&Label>> = Vec::new();
        for label in &self.labels {
            let known = groups.iter_mut().find(|group| Arc::ptr_eq(group[0].place.source(), label.place.source()));
            match known {
                Some(group) => group.push(label),
                None => groups.push(vec![label]),
            }
        }
        groups
    }
}

fn snippet_of<'a>(labels: &[&'a Label]) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let source = labels[0].place.source();
    let annotations = labels.iter().map(|label| {
        let kind = if label.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
        let text = (!label.text.is_empty()).then_some(label.text.as_str());
        kind.span(label.place.span()).label(text)
    });
    Snippet::source(source.text()).path(source.name()).annotations(annotations)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostic {}

/// Everything that is wrong with what a person wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Nothing wrong so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, unless the very same was said already.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Adds others.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Diagnostic>) {
        for diagnostic in others {
            self.push(diagnostic);
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Puts them in the order of their places, those of the text `first` before those of others; those without a place
    /// come before all.
    pub fn sort(&mut self, first: &Arc<Source>) {
        let mut sources: Vec<Arc<Source>> = vec![Arc::clone(first)];
        let keys = self.0.iter().map(|diagnostic| {
            let Some(place) = diagnostic.place() else { return (0, 0) };
            let known = sources.iter().position(|source| Arc::ptr_eq(source, place.source()));
            let rank = known.unwrap_or_else(|| {
                sources.push(Arc::clone(place.source()));
                sources.len() - 1
            });
            (rank + 1, place.span().start)
        });
        let mut ranked: Vec<_> = keys.collect::<Vec<_>>().into_iter().zip(self.0.drain(..)).collect();
        ranked.sort_by_key(|(key, _)| *key);
        self.0 = ranked.into_iter().map(|(_, diagnostic)| diagnostic).collect();
    }

    /// All of them as text, in colour or plain, an empty line between each two.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let rendered: Vec<_> = self.0.iter().map(|diagnostic| diagnostic.render(colour)).collect();
        rendered.join("\n\n")
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// The name among `names` that `written` was probably meant to be.
///
/// A name is near when at most a third of its letters differ (Damerau-Levenshtein distance), or one is the beginning of
/// the other.
pub fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let mut best: Option<(usize, &'a str)> = None;
    for name in names {
        let candidate = name.to_lowercase();
        let distance = strsim::damerau_levenshtein(&lower, &candidate);
        let shorter = lower.len().min(candidate.len());
        let prefix = shorter >= 3 && (lower.starts_with(&candidate) || candidate.starts_with(&lower));
        let near = distance <= lower.chars().count().max(candidate.chars().count()).div_ceil(3);
        if (near || prefix) && distance < best.map_or(usize::MAX, |(distance, _)| distance) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// `did you mean …`, or else the names that there are.
pub fn suggestion<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    match nearest(written, names.iter().copied()) {
        Some(name) => Some(format!("did you mean `{name}`?")),
        None if names.is_empty() => None,
        None => Some(format!("there is {}", listed(names))),
    }
}

/// Names in backticks, separated by commas.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, span: Range<usize>) -> Place {
        Place::new(&Source::new("a.toml", text, SourceKind::Generated), span)
    }

    #[test]
    fn a_place_beyond_the_text_or_inside_a_character_is_mended() {
        assert_eq!(place("é", 1..1).span(), 0..2);
        assert_eq!(place("ab", 5..9).span(), 2..2);
        let backwards = Range { start: 2, end: 1 };
        assert_eq!(place("abc", backwards).span(), 2..2);
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(place("a\nüö = 1", 7..8).line_and_column(), (2, 4));
    }

    #[test]
    fn a_part_of_a_string_is_found_unless_it_has_escapes() {
        assert_eq!(place("a = \"b c\"", 4..9).within_string("b c", 2..3).text(), "c");
        assert_eq!(place("a = \"b\\tc\"", 4..10).within_string("b\tc", 2..3).text(), "\"b\\tc\"");
    }

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        assert_eq!(nearest("resampel", ["sample", "resample", "train"]), Some("resample"));
        assert_eq!(nearest("config", ["fold", "configuration"]), Some("configuration"));
        assert_eq!(nearest("x", ["fold", "configuration"]), None);
    }

    #[test]
    fn the_same_is_said_once() {
        let mut diagnostics = Diagnostics::from(Diagnostic::error("a"));
        diagnostics.extend([Diagnostic::error("a"), Diagnostic::error("b")]);
        assert_eq!(diagnostics.len(), 2);
    }

    #[test]
    fn errors_of_the_own_text_come_first_in_their_order() {
        let (own, other) = (place("abc", 0..1), place("abc", 0..1));
        let later = Place::new(own.source(), 2..3);
        let mut diagnostics = Diagnostics::new();
        diagnostics.extend([
            Diagnostic::error("other").at(&other, ""),
            Diagnostic::error("later").at(&later, ""),
            Diagnostic::error("first").at(&own, ""),
            Diagnostic::error("nowhere"),
        ]);
        diagnostics.sort(own.source());
        let order: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(order, ["nowhere", "first", "later", "other"]);
    }
}
