//! `nnflow stage`: lists the stages, shows one, or runs one by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use nnflow_nnunet::registry;
use nnflow_stage::{
    Axes, Parameter, ParameterKind, ParameterProblem, PhaseKind, Read, Runner, Stage, StageSpec, Step,
    effective_parameters,
};
use serde_json::{Map, Value};

use super::machine::{MachineArguments, worker_program};
use super::outcome::{Exit, Failed, print};
use crate::diagnostic::suggestion;
use crate::engine::alone::{Alone, AloneInput, run_alone};
use crate::workflow::Settings;

/// What `nnflow stage` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum StageCommand {
    /// List the stages, in the order of the pipeline.
    List,
    /// Show a stage: what it does, its ports, its parameters with defaults and units.
    Show {
        /// The stage.
        stage: String,
    },
    /// Run a stage by itself, from files to files.
    Run(StageRunArguments),
}

/// What `nnflow stage run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct StageRunArguments {
    /// The stage.
    stage: String,
    /// What arrives at an input port: a file, or a folder with a file or folder for each case. A port that takes several is
    /// given each with its place, as in `labels[configuration=2d]=PATH`.
    #[arg(long = "input", value_name = "PORT=PATH")]
    inputs: Vec<String>,
    /// A parameter, its value as in TOML.
    #[arg(long = "with", value_name = "NAME=VALUE")]
    with: Vec<String>,
    /// A value on an axis, such as `configuration=2d`.
    #[arg(long = "axis", value_name = "AXIS=VALUE")]
    axes: Vec<String>,
    /// The seed of stages that draw random numbers.
    #[arg(long, default_value_t = crate::workflow::DEFAULT_SEED)]
    seed: u64,
    /// The folder that takes what the stage makes.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    machine: MachineArguments,
}

/// Lists, shows or runs stages.
pub(crate) fn stage(command: &StageCommand) -> Result<Exit, Failed> {
    match command {
        StageCommand::List => {
            let lines =
                registry::STAGES.iter().map(|stage| format!("{:<14} {}\n", stage.spec().name, stage.spec().summary));
            print(&lines.collect::<String>());
        }
        StageCommand::Show { stage } => print(&describe(find(stage)?.spec())),
        StageCommand::Run(arguments) => run(arguments)?,
    }
    Ok(Exit::Done)
}

fn find(name: &str) -> Result<&'static dyn Stage, Failed> {
    registry::stage(name).ok_or_else(|| {
        let names = registry::STAGES.iter().map(|stage| stage.spec().name);
        let hint = suggestion(name, names).unwrap_or_else(|| "`nnflow stage list` shows all stages".to_owned());
        Failed::input_with_hint(format!("there is no stage `{name}`"), hint)
    })
}

fn run(arguments: &StageRunArguments) -> Result<(), Failed> {
    let stage = find(&arguments.stage)?;
    let alone = Alone {
        stage,
        inputs: arguments.inputs.iter().map(|text| input(text)).collect::<Result<_, _>>()?,
        parameters: parameters(stage.spec(), &arguments.with)?,
        axes: pairs(&arguments.axes, "--axis")?.into_iter().collect::<Axes>(),
        seed: arguments.seed,
        output: arguments.output.clone(),
        worker: worker_program(),
        device: arguments.machine.device(&Settings::default()),
        capacity: arguments.machine.capacity(&Settings::default()),
    };
    let made = run_alone(&alone)?;
    print(&made.join("\n"));
    Ok(())
}

/// `PORT=PATH`, or `PORT[AXIS=VALUE,…]=PATH`.
fn input(text: &str) -> Result<AloneInput, Failed> {
    let wrong = || Failed::input(format!("`--input {text}`: expected `PORT=PATH` or `PORT[AXIS=VALUE]=PATH`"));
    let (name, path) = match (text.find('='), text.find('['), text.find("]=")) {
        (Some(equals), Some(open), Some(close)) if open < equals => (&text[..=close], &text[close + 2..]),
        (Some(equals), _, _) => (&text[..equals], &text[equals + 1..]),
        _ => return Err(wrong()),
    };
    let (port, places) = name.strip_suffix(']').and_then(|name| name.split_once('[')).unwrap_or((name, ""));
    let places: Vec<String> = places.split(',').filter(|place| !place.is_empty()).map(str::to_owned).collect();
    let axes = pairs(&places, "--input")?.into_iter().collect::<Axes>();
    Ok(AloneInput { port: port.to_owned(), axes, path: PathBuf::from(path) })
}

fn pairs(texts: &[String], option: &str) -> Result<BTreeMap<String, String>, Failed> {
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| Failed::input(format!("`{option} {text}`: expected a name, `=` and a value")))
    };
    texts.iter().map(pair).collect()
}

fn parameters(spec: &'static StageSpec, with: &[String]) -> Result<nnflow_stage::Parameters, Failed> {
    let mut given = Map::new();
    for (name, text) in pairs(with, "--with")? {
        given.insert(name.clone(), toml_value(&text));
    }
    effective_parameters(spec.parameters, &given).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(describe_problem).collect();
        Failed::input_with_hint(
            format!("the parameters of stage `{}` are wrong\n  {}", spec.name, lines.join("\n  ")),
            format!("`nnflow stage show {}` lists all parameters", spec.name),
        )
    })
}

/// A value as TOML would read it, or else the text itself.
fn toml_value(text: &str) -> Value {
    let document: Result<toml::Table, _> = toml::from_str(&format!("value = {text}"));
    let value = document.ok().and_then(|mut table| table.remove("value"));
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_else(|| Value::from(text))
}

fn describe_problem(problem: &ParameterProblem) -> String {
    let place = |path: &[Step]| {
        let steps = path.iter().map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(index) => index.to_string(),
        });
        steps.collect::<Vec<_>>().join(".")
    };
    match problem {
        ParameterProblem::Unknown { path, valid } => {
            let name = place(path);
            let last = name.rsplit('.').next().unwrap_or(&name).to_owned();
            let hint = suggestion(&last, valid.iter().copied()).map_or_else(String::new, |hint| format!(" ({hint})"));
            format!("there is no parameter `{name}`{hint}")
        }
        ParameterProblem::Invalid { path, expected, found } => {
            format!("`{}`: expected {expected}, found `{found}`", place(path))
        }
    }
}

/// A stage's documentation, ports and parameters.
fn describe(spec: &StageSpec) -> String {
    let runner = match spec.runner {
        Runner::Native => "",
        Runner::Torch => "  (runs in the worker `nnflow-torch`)",
    };
    let mut text =
        format!("{} (version {}){runner}\n{}\n\n{}\n", spec.name, spec.version, spec.summary, spec.docs.trim());
    text.push_str("\nInputs\n");
    for port in spec.inputs {
        let mut words = vec![port.kinds.join(" or ")];
        words.extend(port.per_case.then(|| "per case".to_owned()));
        words.extend(port.many.then(|| "one or several".to_owned()));
        words.extend(port.optional.then(|| "optional".to_owned()));
        words.extend((port.read != Read::Whole).then(|| "only what is used enters the key".to_owned()));
        text.push_str(&format!("  {:<16} {}\n      {}\n", port.name, words.join(", "), port.doc));
    }
    text.push_str("\nOutputs\n");
    for port in spec.outputs {
        let mut words = vec![port.kind.to_owned()];
        words.extend(port.per_case.then(|| "per case".to_owned()));
        words.extend(port.optional.then(|| "optional".to_owned()));
        text.push_str(&format!("  {:<16} {}\n      {}\n", port.name, words.join(", "), port.doc));
    }
    if !spec.parameters.is_empty() {
        text.push_str("\nParameters\n");
        describe_parameters(spec.parameters, "  ", &mut text);
    }
    let phases = spec.phases.iter().map(|phase| match phase.kind {
        PhaseKind::Whole => phase.name.to_owned(),
        PhaseKind::PerCase => format!("{} (per case)", phase.name),
    });
    text.push_str(&format!("\nPhases: {}\n", phases.collect::<Vec<_>>().join(", then ")));
    if !spec.axes.is_empty() {
        text.push_str(&format!("Axes: {}\n", spec.axes.join(", ")));
    }
    text
}

fn describe_parameters(parameters: &[Parameter], indent: &str, text: &mut String) {
    for parameter in parameters {
        let unit = if parameter.unit.is_empty() { String::new() } else { format!(" {}", parameter.unit) };
        if let ParameterKind::Table(inner) = parameter.kind {
            text.push_str(&format!("{indent}{}\n{indent}    {}\n", parameter.name, parameter.doc));
            describe_parameters(inner, &format!("{indent}    "), text);
        } else {
            let default = if parameter.default == "null" { "\"none\"" } else { parameter.default };
            text.push_str(&format!("{indent}{} = {default}{unit}\n", parameter.name));
            text.push_str(&format!("{indent}    {}; {}\n", parameter.kind.describe(), parameter.doc));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_is_read_as_toml_or_else_as_text() {
        let read = ["3", "[1.5, 2]", "\"3\"", "auto", "true", "a = b"].map(toml_value);
        assert_eq!(read, [json!(3), json!([1.5, 2]), json!("3"), json!("auto"), json!(true), json!("a = b")]);
    }

    #[test]
    fn an_input_may_name_its_place_on_the_axes() {
        let read = |text: &str| {
            let AloneInput { port, axes, path } = input(text).expect("an input");
            (port, axes.into_iter().collect::<Vec<_>>(), path)
        };
        let place = |axis: &str, value: &str| (axis.to_owned(), value.to_owned());
        assert_eq!(read("plan=a=[b]=c"), ("plan".to_owned(), vec![], "a=[b]=c".into()));
        let places = vec![place("configuration", "2d"), place("fold", "0")];
        assert_eq!(read("labels[configuration=2d,fold=0]=x"), ("labels".to_owned(), places, "x".into()));
        assert!(input("labels").is_err());
    }

    #[test]
    fn a_wrong_parameter_is_told_with_its_place() {
        let path = vec![Step::Key("optimizer".to_owned()), Step::Key("betas".to_owned()), Step::Index(1)];
        let problem = ParameterProblem::Invalid { path, expected: "a number".to_owned(), found: "\"x\"".to_owned() };
        assert_eq!(describe_problem(&problem), "`optimizer.betas.1`: expected a number, found `\"x\"`");
    }
}
