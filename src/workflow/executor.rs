//! Reading what a workflow says about where its units run besides this machine.

use super::read::{Fields, boolean, joined, list, mismatch, table, text, whole};
use super::tree::{Entry, Value};
use super::{model::SlurmDeclaration, quantity};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, suggestion};

/// What stands for the number of GPUs in the option that asks for them.
const GPU_NUMBER: &str = "{n}";

/// Reads `[executor]`; nothing but Slurm can be told anything there.
pub(super) fn read(entry: &Entry, diagnostics: &mut Diagnostics) -> SlurmDeclaration {
    let executor = match table(&entry.value, "executor") {
        Ok(executor) => executor,
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            return SlurmDeclaration::default();
        }
    };
    let mut fields = Fields::new(executor, "executor");
    let slurm = fields.take("slurm").map(|entry| slurm(&entry.value, diagnostics)).unwrap_or_default();
    fields.finish(diagnostics);
    slurm
}

/// Reports stages that are to be handed over and that the workflow has not.
pub(super) fn check<'a>(
    declared: &SlurmDeclaration,
    stages: impl Iterator<Item = &'a str> + Clone,
    diagnostics: &mut Diagnostics,
) {
    let unknown = declared.stages.iter().filter(|stage| !stages.clone().any(|name| name == stage.value));
    diagnostics.extend(unknown.map(|stage| {
        Diagnostic::error(format!("there is no stage `{}`", stage.value))
            .at(&stage.place, "unknown stage")
            .maybe_hint(suggestion(&stage.value, stages.clone()))
    }));
}

fn slurm(value: &Value, diagnostics: &mut Diagnostics) -> SlurmDeclaration {
    let path = joined("executor", "slurm");
    let settings = match table(value, &path) {
        Ok(settings) => settings,
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            return SlurmDeclaration::default();
        }
    };
    let plain = |value: &Value, path: &str| text(value, path).map(|text| text.value);
    let mut fields = Fields::new(settings, path);
    let declared = SlurmDeclaration {
        partition: fields.read("partition", diagnostics, plain),
        account: fields.read("account", diagnostics, plain),
        qos: fields.read("qos", diagnostics, plain),
        options: fields.read("options", diagnostics, texts).unwrap_or_default(),
        gpu: fields.read("gpu", diagnostics, gpu),
        prolog: fields.read("prolog", diagnostics, texts).unwrap_or_default(),
        stages: fields.read("stages", diagnostics, located_texts).unwrap_or_default(),
        time: fields.read("time", diagnostics, quantity::duration),
        threads: fields.read("threads", diagnostics, |value, path| whole(value, path, 1)),
        warning: fields.read("warning", diagnostics, quantity::duration),
        poll: fields.read("poll", diagnostics, quantity::duration),
        requeues: fields.read("requeues", diagnostics, |value, path| whole(value, path, 0)),
        parallel: fields.read("parallel", diagnostics, |value, path| whole(value, path, 1)),
        detach: fields.read("detach", diagnostics, boolean).unwrap_or_default(),
    };
    fields.finish(diagnostics);
    declared
}

fn located_texts(value: &Value, path: &str) -> Result<Vec<Located<String>>, Diagnostic> {
    list(value, path, "texts")?.iter().map(|item| text(item, path)).collect()
}

fn texts(value: &Value, path: &str) -> Result<Vec<String>, Diagnostic> {
    Ok(located_texts(value, path)?.into_iter().map(|text| text.value).collect())
}

fn gpu(value: &Value, path: &str) -> Result<String, Diagnostic> {
    let written = text(value, path)?.value;
    if written.contains(GPU_NUMBER) {
        Ok(written)
    } else {
        Err(mismatch(value, path, "an option with `{n}` for the number of GPUs, such as \"--gres=gpu:a100:{n}\""))
    }
}
