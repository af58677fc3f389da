//! Checks what each stage of a workflow says against the stage that it uses, before anything is multiplied along axes.

use std::collections::BTreeSet;

use nnflow_stage::{InputPort, OutputPort, Parameters, StageSpec, effective_parameters};

use super::parameters;
use super::{SourceSpec, StageTable};
use crate::diagnostic::{Diagnostic, Diagnostics, Located, listed, nearest, suggestion};
use crate::workflow::condition_parser::Mention;
use crate::workflow::model::{AxisOrigin, InputDeclaration, StageDeclaration, Workflow};
use crate::workflow::reference::{ALL_VALUES, Reference};
use crate::workflow::tree::shortened;

/// A stage of the workflow that fits the stage which it uses.
#[derive(Debug)]
pub(super) struct CheckedStage<'w> {
    pub(super) declaration: &'w StageDeclaration,
    pub(super) spec: &'static StageSpec,
    pub(super) parameters: Parameters,
    /// In the order of the stage's ports; unconnected ports are absent.
    pub(super) inputs: Vec<CheckedInput<'w>>,
}

/// A port and what is connected to it.
#[derive(Debug)]
pub(super) struct CheckedInput<'w> {
    pub(super) port: &'static InputPort,
    pub(super) references: Vec<CheckedReference<'w>>,
    /// Whether all references that are declared lead somewhere; else it cannot be told whether something is missing.
    pub(super) complete: bool,
}

/// A reference and what it leads to.
#[derive(Debug)]
pub(super) struct CheckedReference<'w> {
    pub(super) reference: &'w Reference,
    pub(super) producer: CheckedProducer,
    pub(super) port: &'static OutputPort,
}

/// What a reference leads to.
#[derive(Debug, Clone, Copy)]
pub(super) enum CheckedProducer {
    /// A stage, by its position in the workflow.
    Stage(usize),
    /// A source.
    Source(&'static str),
}

/// Checks all stages; those with a problem are absent.
pub(super) fn check<'w>(
    workflow: &'w Workflow,
    stages: &dyn StageTable,
    sources: &[SourceSpec],
    diagnostics: &mut Diagnostics,
) -> Vec<Option<CheckedStage<'w>>> {
    let specs = workflow.stages.iter().map(|stage| stages.stage(&stage.uses.value).map(|found| found.spec())).collect();
    let mut checker = Checker { workflow, stages, sources, specs, diagnostics, missing_sources: BTreeSet::new() };
    let checked = workflow.stages.iter().enumerate().map(|(position, stage)| {
        let before = checker.diagnostics.len();
        let checked = checker.stage(position, stage);
        let sound = checker.diagnostics.len() == before && !workflow.broken.contains(&stage.name);
        checked.filter(|_| sound)
    });
    checked.collect()
}

struct Checker<'w, 'a> {
    workflow: &'w Workflow,
    stages: &'a dyn StageTable,
    sources: &'a [SourceSpec],
    /// The declarations of the stages that are used, by position; those that do not exist are absent.
    specs: Vec<Option<&'static StageSpec>>,
    diagnostics: &'a mut Diagnostics,
    missing_sources: BTreeSet<&'static str>,
}

impl<'w> Checker<'w, '_> {
    fn stage(&mut self, position: usize, stage: &'w StageDeclaration) -> Option<CheckedStage<'w>> {
        if let Some(source) = self.sources.iter().find(|source| source.name == stage.name) {
            let message = format!("a stage cannot be called `{}`", source.name);
            self.diagnostics.push(Diagnostic::error(message).at(&stage.place, "the name of a source of the workflow"));
        }
        let Some(spec) = self.specs.get(position).copied().flatten() else {
            self.diagnostics.push(self.unknown_stage(stage));
            return None;
        };
        let understood = !self.workflow.broken.contains(&stage.name);
        if understood {
            self.axes(stage, spec);
        }
        let parameters = effective_parameters(spec.parameters, &stage.with.to_json())
            .map_err(|problems| self.diagnostics.extend(parameters::explain(stage, spec, &problems)));
        let inputs = self.inputs(stage, spec);
        self.condition(stage, spec, understood);
        Some(CheckedStage { declaration: stage, spec, parameters: parameters.ok()?, inputs })
    }

    fn unknown_stage(&self, stage: &StageDeclaration) -> Diagnostic {
        let written = &stage.uses.value;
        let message = format!("there is no stage `{}` to use", shortened(written));
        let others = self.workflow.stages.iter().map(|other| other.name.as_str()).filter(|name| *name != stage.name);
        // A table with a mistyped name was meant to change an inherited stage rather than to declare a new one.
        let meant = (*written == stage.name && stage.inputs.is_empty()).then(|| nearest(written, others)).flatten();
        let hint = match meant {
            Some(name) => Some(format!("did you mean to change the stage `stages.{name}`?")),
            None => suggestion(written, self.stages.names()),
        };
        Diagnostic::error(message).at(&stage.uses.place, "unknown stage").maybe_hint(hint)
    }

    fn axes(&mut self, stage: &StageDeclaration, spec: &StageSpec) {
        for axis in spec.axes {
            if !stage.over.iter().any(|name| name.value == *axis) {
                let message = format!("`{}` must run over axis `{axis}`", stage.name);
                let diagnostic = Diagnostic::error(message)
                    .at(&stage.place, format!("`{}` looks up what it needs by `{axis}`", spec.name))
                    .hint(format!("add \"{axis}\" to `stages.{}.over`", stage.name));
                self.diagnostics.push(diagnostic);
            }
        }
    }

    /// Checks what the condition says of inputs; whether they are connected only if all of the stage is understood.
    fn condition(&mut self, stage: &StageDeclaration, spec: &StageSpec, understood: bool) {
        for (mention, place) in stage.condition.iter().flat_map(|when| &when.mentions) {
            let Mention::Input(input) = mention else { continue };
            if spec.input(input).is_none() {
                let names = spec.inputs.iter().map(|port| port.name);
                self.diagnostics.push(
                    Diagnostic::error(format!("`{}` has no input `{}`", stage.name, shortened(input)))
                        .at(place, "unknown input")
                        .maybe_hint(suggestion(input, names)),
                );
            } else if understood
                && !stage.inputs.iter().any(|declared| declared.port.value == *input && !declared.references.is_empty())
            {
                let message =
                    format!("the condition of `{}` looks at its input `{input}`, which is not connected", stage.name);
                self.diagnostics.push(Diagnostic::error(message).at(place, "not connected"));
            }
        }
    }

    fn inputs(&mut self, stage: &'w StageDeclaration, spec: &'static StageSpec) -> Vec<CheckedInput<'w>> {
        for declared in &stage.inputs {
            if spec.input(&declared.port.value).is_none() {
                self.diagnostics.push(unknown_input(stage, spec, &declared.port));
            }
        }
        let mut inputs = Vec::new();
        for port in spec.inputs {
            match stage.inputs.iter().find(|declared| declared.port.value == port.name) {
                Some(declared) if !declared.references.is_empty() => inputs.push(self.input(stage, port, declared)),
                _ if port.optional || self.workflow.broken.contains(&stage.name) => {}
                _ => {
                    let diagnostic = self.missing_input(stage, port);
                    self.diagnostics.push(diagnostic);
                }
            }
        }
        inputs
    }

    fn missing_input(&self, stage: &StageDeclaration, port: &InputPort) -> Diagnostic {
        let message = format!("`{}` lacks its input `{}`", stage.name, port.name);
        let hint = match self.givers(port).next() {
            Some(giver) => format!("connect it: `stages.{}.inputs.{} = \"{giver}\"`", stage.name, port.name),
            None => format!("no stage of the workflow gives {}", kinds(port)),
        };
        Diagnostic::error(message).at(&stage.place, format!("needs {}", kinds(port))).hint(hint)
    }

    /// References to outputs that a port takes, the workflow's stages first.
    fn givers<'s>(&'s self, port: &'s InputPort) -> impl Iterator<Item = String> + 's {
        let stages = self.workflow.stages.iter().zip(&self.specs);
        let stages = stages.filter_map(|(stage, spec)| Some((stage.name.as_str(), (*spec)?.outputs)));
        let sources = self.sources.iter().map(|source| (source.name, source.outputs));
        stages.chain(sources).filter_map(|(name, outputs)| {
            let mut fitting = outputs.iter().filter(|output| takes(port, output));
            let first = fitting.next()?;
            Some(if fitting.next().is_some() { format!("{name}.{}", first.name) } else { name.to_owned() })
        })
    }

    fn input(
        &mut self,
        stage: &'w StageDeclaration,
        port: &'static InputPort,
        declared: &'w InputDeclaration,
    ) -> CheckedInput<'w> {
        if let (false, false, [_, second, ..]) = (port.many, port.per_case, declared.references.as_slice()) {
            let both_conditional = declared.references.iter().all(|reference| reference.condition.is_some());
            if !both_conditional {
                let message = format!("`{}.{}` takes one producer", stage.name, port.name);
                self.diagnostics.push(
                    Diagnostic::error(message)
                        .at(&second.place, "a second producer")
                        .hint("name one of them, or give each a `when` so that only one counts"),
                );
            }
        }
        let references = declared.references.iter().filter_map(|reference| self.reference(stage, port, reference));
        let references: Vec<_> = references.collect();
        CheckedInput { port, complete: references.len() == declared.references.len(), references }
    }

    fn reference(
        &mut self,
        stage: &StageDeclaration,
        port: &'static InputPort,
        reference: &'w Reference,
    ) -> Option<CheckedReference<'w>> {
        let (producer, outputs) = self.producer(stage, reference)?;
        self.picks(stage, producer, reference);
        let output = match output_for(stage, port, reference, outputs) {
            Ok(output) => output,
            Err(diagnostic) => {
                let elsewhere = self.givers(port).next();
                let hint = elsewhere.map(|giver| format!("`{giver}` gives {}", kinds(port)));
                let hint = diagnostic.hint.clone().or(hint);
                self.diagnostics.push(diagnostic.maybe_hint(hint));
                return None;
            }
        };
        Some(CheckedReference { reference, producer, port: output })
    }

    fn producer(
        &mut self,
        stage: &StageDeclaration,
        reference: &Reference,
    ) -> Option<(CheckedProducer, &'static [OutputPort])> {
        let name = &reference.producer.value;
        if let Some(source) = self.sources.iter().find(|source| source.name == *name) {
            self.require_source(source.name, reference);
            return Some((CheckedProducer::Source(source.name), source.outputs));
        }
        let Some(position) = self.workflow.stages.iter().position(|other| other.name == *name) else {
            if self.workflow.broken.contains(name) {
                return None;
            }
            let diagnostic = self.unknown_producer(reference);
            self.diagnostics.push(diagnostic);
            return None;
        };
        if *name == stage.name && reference.picks.is_empty() {
            let message = format!("`{name}` reads what it makes itself");
            self.diagnostics.push(Diagnostic::error(message).at(&reference.place, "this is the same stage"));
            return None;
        }
        // A stage that does not exist was reported where it is declared.
        let spec = self.specs.get(position).copied().flatten()?;
        Some((CheckedProducer::Stage(position), spec.outputs))
    }

    fn unknown_producer(&self, reference: &Reference) -> Diagnostic {
        let name = &reference.producer.value;
        if let Some(place) = self.workflow.disabled.get(name) {
            return Diagnostic::error(format!("stage `{name}` is disabled, but its results are needed"))
                .at(&reference.place, "needed here")
                .context(place, "disabled here");
        }
        let stages = self.workflow.stages.iter().map(|stage| stage.name.as_str());
        let names = stages.chain(self.sources.iter().map(|source| source.name));
        Diagnostic::error(format!("there is no stage `{}`", shortened(name)))
            .at(&reference.producer.place, "unknown stage")
            .maybe_hint(suggestion(name, names))
    }

    /// Says once that the workflow lacks the dataset or the model that is referred to.
    fn require_source(&mut self, name: &'static str, reference: &Reference) {
        let (present, key) = match name {
            "dataset" => (self.workflow.dataset.is_some(), "path = \"data/Dataset004_Hippocampus\""),
            "model" => (self.workflow.model.is_some(), "path = \"model\""),
            _ => return,
        };
        let broken = self.workflow.document.get(name).is_some();
        if !present && !broken && self.missing_sources.insert(name) {
            self.diagnostics.push(
                Diagnostic::error(format!("the workflow has no {name}"))
                    .at(&reference.place, "needed here")
                    .hint(format!("add a table `[{name}]` with `{key}`")),
            );
        }
    }

    fn picks(&mut self, stage: &StageDeclaration, producer: CheckedProducer, reference: &Reference) {
        for pick in &reference.picks {
            let over = match producer {
                CheckedProducer::Stage(position) => self.workflow.stages[position].over.as_slice(),
                CheckedProducer::Source(_) => &[],
            };
            let names: Vec<&str> = over.iter().map(|name| name.value.as_str()).collect();
            if !names.contains(&pick.axis.value.as_str()) {
                let producer = &reference.producer.value;
                let message = format!("`{producer}` does not run over an axis `{}`", shortened(&pick.axis.value));
                let runs = if names.is_empty() { "no axis".to_owned() } else { listed(names.iter().copied()) };
                self.diagnostics.push(
                    Diagnostic::error(message)
                        .at(&pick.axis.place, format!("`{producer}` runs over {runs}"))
                        .maybe_hint(nearest(&pick.axis.value, names).map(|name| format!("did you mean `{name}`?"))),
                );
            } else if let Some(diagnostic) = self.unknown_value(stage, &pick.axis.value, &pick.value) {
                self.diagnostics.push(diagnostic);
            }
        }
    }

    /// A picked value that no file gives the axis, and that is no axis of the consumer either.
    fn unknown_value(&self, stage: &StageDeclaration, axis: &str, value: &Located<String>) -> Option<Diagnostic> {
        let axis = self.workflow.axis(axis)?;
        let own: Vec<&str> = stage.over.iter().map(|name| name.value.as_str()).collect();
        let known =
            axis.known.contains(&value.value) || own.contains(&value.value.as_str()) || value.value == ALL_VALUES;
        // Which values a model gives is its own affair; a pick that no condition guards fails when it is followed.
        if known || axis.values.is_empty() || axis.origin == AxisOrigin::Model {
            return None;
        }
        let names = axis.known.iter().map(String::as_str).chain(own);
        Some(
            Diagnostic::error(format!("axis `{}` has no value `{}`", axis.name, shortened(&value.value)))
                .at(&value.place, format!("neither a value of `{}` nor an axis of `{}`", axis.name, stage.name))
                .maybe_hint(suggestion(&value.value, names)),
        )
    }
}

fn unknown_input(stage: &StageDeclaration, spec: &StageSpec, port: &Located<String>) -> Diagnostic {
    Diagnostic::error(format!("`{}` has no input `{}`", stage.name, shortened(&port.value)))
        .at(&port.place, "unknown input")
        .maybe_hint(suggestion(&port.value, spec.inputs.iter().map(|port| port.name)))
}

/// Whether an input takes what an output gives.
fn takes(input: &InputPort, output: &OutputPort) -> bool {
    input.kinds.contains(&output.kind) && input.per_case == output.per_case
}

/// What an input takes, in words.
fn kinds(port: &InputPort) -> String {
    let each = if port.per_case { " for each case" } else { "" };
    match port.kinds {
        [kind] => format!("a `{kind}`{each}"),
        kinds => format!("one of {}{each}", listed(kinds.iter().copied())),
    }
}

/// The output that a reference means for an input.
fn output_for(
    stage: &StageDeclaration,
    input: &InputPort,
    reference: &Reference,
    outputs: &'static [OutputPort],
) -> Result<&'static OutputPort, Diagnostic> {
    let producer = &reference.producer.value;
    let consumer = format!("{}.{}", stage.name, input.name);
    let Some(port) = &reference.port else { return unnamed_output(&consumer, input, reference, outputs) };
    let Some(output) = outputs.iter().find(|output| output.name == port.value) else {
        return Err(Diagnostic::error(format!("`{producer}` has no output `{}`", shortened(&port.value)))
            .at(&port.place, "unknown output")
            .maybe_hint(suggestion(&port.value, outputs.iter().map(|output| output.name))));
    };
    if takes(input, output) {
        return Ok(output);
    }
    let given =
        if output.per_case { format!("a `{}` for each case", output.kind) } else { format!("a `{}`", output.kind) };
    let fitting = outputs.iter().find(|output| takes(input, output));
    Err(Diagnostic::error(format!("`{consumer}` needs {}, but `{producer}.{}` is {given}", kinds(input), output.name))
        .at(&reference.place, format!("this is {given}"))
        .maybe_hint(fitting.map(|output| format!("`{producer}` has an output `{}` of the right kind", output.name))))
}

/// The only output whose kind the input takes.
fn unnamed_output(
    consumer: &str,
    input: &InputPort,
    reference: &Reference,
    outputs: &'static [OutputPort],
) -> Result<&'static OutputPort, Diagnostic> {
    let producer = &reference.producer.value;
    let fitting: Vec<&OutputPort> = outputs.iter().filter(|output| takes(input, output)).collect();
    match fitting.as_slice() {
        [output] => Ok(output),
        [] => Err(Diagnostic::error(format!("`{consumer}` needs {}, but `{producer}` gives none", kinds(input)))
            .at(&reference.place, format!("`{producer}` gives {}", described(outputs)))),
        several => Err(Diagnostic::error(format!("`{producer}` has several outputs that `{consumer}` can take"))
            .at(&reference.place, format!("could be {}", listed(several.iter().map(|output| output.name))))
            .hint(format!("name the output, such as `{producer}.{}`", several[0].name))),
    }
}

fn described(outputs: &[OutputPort]) -> String {
    let described: Vec<_> = outputs
        .iter()
        .map(|output| {
            let each = if output.per_case { " for each case" } else { "" };
            format!("`{}` (a `{}`{each})", output.name, output.kind)
        })
        .collect();
    if described.is_empty() { "nothing".to_owned() } else { described.join(", ") }
}
