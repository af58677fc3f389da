//! Parameters: their declaration, their defaults and the check of what a workflow says.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::StageError;

/// What values a parameter takes.
#[derive(Debug, Clone, Copy)]
pub enum ParameterKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest value.
        minimum: i64,
        /// The largest value.
        maximum: i64,
    },
    /// A number within bounds, both included.
    Number {
        /// The smallest value.
        minimum: f64,
        /// The largest value.
        maximum: f64,
    },
    /// Any text.
    Text,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A list of values of one kind.
    List(&'static ParameterKind),
    /// A table of named parameters.
    Table(&'static [Parameter]),
    /// A value of the kind, or `"none"`, which reaches the stage as null.
    Optional(&'static ParameterKind),
}

/// The declaration of a parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name in `with`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: ParameterKind,
    /// The default, as JSON.
    pub default: &'static str,
    /// The unit, or an empty string.
    pub unit: &'static str,
    /// One or two sentences.
    pub doc: &'static str,
}

/// One step on the way to a value inside the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// What is wrong with a parameter that a workflow sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParameterProblem {
    /// No parameter has this name.
    Unknown {
        /// Where it stands.
        path: Vec<Step>,
        /// The names that exist there.
        valid: Vec<&'static str>,
    },
    /// The value is not of the parameter's kind, or out of its bounds.
    Invalid {
        /// Where it stands.
        path: Vec<Step>,
        /// What is taken there.
        expected: String,
        /// What was found.
        found: String,
    },
}

/// Every parameter of a stage with its value, defaults filled in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(pub Map<String, Value>);

impl Parameters {
    /// The parameters as the stage's own settings type.
    ///
    /// # Errors
    /// If the type does not fit the stage's declaration, which is a defect of the stage.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, StageError> {
        serde_json::from_value(Value::Object(self.0.clone()))
            .map_err(|error| StageError::internal(format!("the parameters do not fit the stage's settings: {error}")))
    }

    /// The value of one parameter as a type.
    ///
    /// # Errors
    /// If there is no such parameter or the type does not fit it, which is a defect of the stage.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, StageError> {
        let value = self.0.get(name).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|error| {
            StageError::internal(format!("parameter `{name}` does not fit the stage's settings: {error}"))
        })
    }

    /// Only the parameters of these names.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(name, _)| names.contains(&name.as_str()))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
        )
    }
}

/// Fills in the defaults and checks what is given, in the order of the declaration.
///
/// # Errors
/// Every problem that was found.
pub fn effective_parameters(
    declared: &'static [Parameter],
    given: &Map<String, Value>,
) -> Result<Parameters, Vec<ParameterProblem>> {
    let mut problems = Vec::new();
    let table = check_table(declared, given, &mut Vec::new(), &mut problems);
    if problems.is_empty() { Ok(Parameters(table)) } else { Err(problems) }
}

fn check_table(
    declared: &'static [Parameter],
    given: &Map<String, Value>,
    path: &mut Vec<Step>,
    problems: &mut Vec<ParameterProblem>,
) -> Map<String, Value> {
    for name in given.keys() {
        if !declared.iter().any(|parameter| parameter.name == name) {
            let mut place = path.clone();
            place.push(Step::Key(name.clone()));
            problems.push(ParameterProblem::Unknown { path: place, valid: declared.iter().map(|p| p.name).collect() });
        }
    }
    let mut table = Map::new();
    for parameter in declared {
        let value = match given.get(parameter.name) {
            Some(value) => {
                path.push(Step::Key(parameter.name.to_owned()));
                let value = check_value(&parameter.kind, value, path, problems);
                path.pop();
                value
            }
            None => default_of(parameter),
        };
        table.insert(parameter.name.to_owned(), value);
    }
    table
}

fn default_of(parameter: &'static Parameter) -> Value {
    let value = serde_json::from_str(parameter.default).expect("invariant: a declared default is JSON");
    match (&parameter.kind, value) {
        // A table's own defaults fill in what its default leaves out.
        (ParameterKind::Table(declared), Value::Object(given)) => {
            Value::Object(check_table(declared, &given, &mut Vec::new(), &mut Vec::new()))
        }
        (ParameterKind::Number { .. }, Value::Number(number)) => as_number(&number),
        (_, value) => value,
    }
}

/// Numbers are kept as floating point whether a workflow writes `1` or `1.0`, so that both give the same key.
fn as_number(number: &serde_json::Number) -> Value {
    number.as_f64().and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number)
}

fn check_value(
    kind: &ParameterKind,
    value: &Value,
    path: &mut Vec<Step>,
    problems: &mut Vec<ParameterProblem>,
) -> Value {
    match (kind, value) {
        (ParameterKind::Boolean, Value::Bool(_)) | (ParameterKind::Text, Value::String(_)) => value.clone(),
        (ParameterKind::Integer { minimum, maximum }, Value::Number(number))
            if number.as_i64().is_some_and(|n| (*minimum..=*maximum).contains(&n)) =>
        {
            value.clone()
        }
        (ParameterKind::Number { minimum, maximum }, Value::Number(number))
            if number.as_f64().is_some_and(|n| (*minimum..=*maximum).contains(&n)) =>
        {
            as_number(number)
        }
        (ParameterKind::Choice(words), Value::String(word)) if words.contains(&word.as_str()) => value.clone(),
        (ParameterKind::List(element), Value::Array(values)) => {
            let mut checked = Vec::with_capacity(values.len());
            for (index, value) in values.iter().enumerate() {
                path.push(Step::Index(index));
                checked.push(check_value(element, value, path, problems));
                path.pop();
            }
            Value::Array(checked)
        }
        (ParameterKind::Table(declared), Value::Object(given)) => {
            Value::Object(check_table(declared, given, path, problems))
        }
        (ParameterKind::Optional(_), Value::Null) => Value::Null,
        (ParameterKind::Optional(_), Value::String(word)) if word == "none" => Value::Null,
        (ParameterKind::Optional(inner), value) => check_value(inner, value, path, problems),
        (kind, value) => {
            problems.push(ParameterProblem::Invalid {
                path: path.clone(),
                expected: kind.describe(),
                found: value.to_string(),
            });
            Value::Null
        }
    }
}

impl ParameterKind {
    /// What is taken, in words: `a whole number of at least 1`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Integer { minimum, maximum } => {
                format!("a whole number{}", bounds(*minimum, i64::MIN, *maximum, i64::MAX))
            }
            Self::Number { minimum, maximum } => {
                format!("a number{}", bounds(*minimum, f64::NEG_INFINITY, *maximum, f64::INFINITY))
            }
            Self::Text => "a text".to_owned(),
            Self::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
            Self::List(element) => format!("a list, each element {}", element.describe()),
            Self::Table(declared) => {
                let names: Vec<_> = declared.iter().map(|parameter| format!("`{}`", parameter.name)).collect();
                format!("a table with {}", names.join(", "))
            }
            Self::Optional(inner) => format!("{} or \"none\"", inner.describe()),
        }
    }
}

fn bounds<T: PartialEq + std::fmt::Display>(minimum: T, lowest: T, maximum: T, highest: T) -> String {
    match (minimum != lowest, maximum != highest) {
        (true, true) => format!(" from {minimum} to {maximum}"),
        (true, false) => format!(" of at least {minimum}"),
        (false, true) => format!(" of at most {maximum}"),
        (false, false) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DECLARED: &[Parameter] = &[
        Parameter {
            name: "epochs",
            kind: ParameterKind::Integer { minimum: 1, maximum: 100 },
            default: "50",
            unit: "",
            doc: "",
        },
        Parameter {
            name: "rate",
            kind: ParameterKind::Number { minimum: 0.0, maximum: f64::INFINITY },
            default: "1",
            unit: "",
            doc: "",
        },
        Parameter {
            name: "optimizer",
            kind: ParameterKind::Table(&[
                Parameter {
                    name: "name",
                    kind: ParameterKind::Choice(&["sgd", "adam"]),
                    default: "\"sgd\"",
                    unit: "",
                    doc: "",
                },
                Parameter {
                    name: "momentum",
                    kind: ParameterKind::Optional(&ParameterKind::Number { minimum: 0.0, maximum: 1.0 }),
                    default: "null",
                    unit: "",
                    doc: "",
                },
            ]),
            default: "{}",
            unit: "",
            doc: "",
        },
    ];

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().expect("a table").clone()
    }

    #[test]
    fn defaults_are_filled_in_also_inside_tables() {
        let parameters =
            effective_parameters(DECLARED, &given(json!({"optimizer": {"momentum": 0.9}}))).expect("valid");
        assert_eq!(
            Value::Object(parameters.0),
            json!({"epochs": 50, "rate": 1.0, "optimizer": {"name": "sgd", "momentum": 0.9}})
        );
    }

    #[test]
    fn whole_and_floating_numbers_give_the_same_value() {
        let whole = effective_parameters(DECLARED, &given(json!({"rate": 2}))).expect("valid");
        let floating = effective_parameters(DECLARED, &given(json!({"rate": 2.0}))).expect("valid");
        assert_eq!(whole, floating);
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let problems =
            effective_parameters(DECLARED, &given(json!({"epoch": 3, "epochs": 0, "optimizer": {"name": "sdg"}})))
                .expect_err("three problems");
        assert_eq!(problems.len(), 3);
    }

    #[test]
    fn none_stands_for_null() {
        let parameters =
            effective_parameters(DECLARED, &given(json!({"optimizer": {"momentum": "none"}}))).expect("valid");
        assert_eq!(parameters.0["optimizer"]["momentum"], Value::Null);
    }
}
