//! Explains what is wrong with the parameters of a stage, at the place that sets them.

use nnflow_stage::{ParameterProblem, StageSpec, Step};

use crate::diagnostic::{Diagnostic, Place, suggestion};
use crate::workflow::model::StageDeclaration;
use crate::workflow::tree::{Table, ValueKind, shortened};

/// One diagnostic for each problem.
pub(super) fn explain(stage: &StageDeclaration, spec: &StageSpec, problems: &[ParameterProblem]) -> Vec<Diagnostic> {
    problems.iter().map(|problem| explain_one(stage, spec, problem)).collect()
}

fn explain_one(stage: &StageDeclaration, spec: &StageSpec, problem: &ParameterProblem) -> Diagnostic {
    match problem {
        ParameterProblem::Unknown { path, valid } => {
            let (key, _) = places(stage, path);
            let name = match path.last() {
                Some(Step::Key(name)) => name.as_str(),
                _ => "",
            };
            Diagnostic::error(format!("`{}` has no parameter `{}`", stage.name, shortened(&written(path))))
                .at(&key, "unknown parameter")
                .maybe_hint(suggestion(name, valid.iter().copied()))
                .maybe_note(valid.is_empty().then(|| format!("stage `{}` has no parameters", spec.name)))
        }
        ParameterProblem::Invalid { path, expected, found } => {
            let (_, value) = places(stage, path);
            let message = format!(
                "parameter `{}` of `{}` must be {expected}, but is {}",
                written(path),
                stage.name,
                shortened(found)
            );
            Diagnostic::error(message).at(&value, format!("expected {expected}"))
        }
    }
}

/// A path as it is written in TOML: `optimizer.betas[1]`.
fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// The places of the key and of the value that a path leads to, or of the last step that there is.
fn places(stage: &StageDeclaration, path: &[Step]) -> (Place, Place) {
    let mut found = (stage.with_place.clone(), stage.with_place.clone());
    let whole = ValueKind::Table(stage.with.clone());
    let mut kind = &whole;
    for step in path {
        match (step, kind) {
            (Step::Key(key), ValueKind::Table(table)) => {
                let Some(entry) = Table::get(table, key) else { break };
                found = (entry.key_place.clone(), entry.value.place.clone());
                kind = &entry.value.kind;
            }
            (Step::Index(index), ValueKind::Array(values)) => {
                let Some(value) = values.get(*index) else { break };
                found = (value.place.clone(), value.place.clone());
                kind = &value.kind;
            }
            _ => break,
        }
    }
    found
}
