//! What a result depends on, in readable form, and why two such records differ.
//!
//! A record is the pre-image of a key: it is stored beside the result, so that a miss can be told as a difference to the
//! record of the last time instead of as a different number. All that enters it is content: no path, no node name, no
//! time, no thread count.

use std::collections::BTreeMap;

use nnflow_stage::Axes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the record's form; another form gives other keys.
pub const KEY_SCHEMA: &str = "nnflow-key-v1";

/// The pre-image of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// [`KEY_SCHEMA`].
    pub schema: String,
    /// The stage's name in the registry.
    pub stage: String,
    /// The stage's version.
    pub version: u32,
    /// The phase.
    pub phase: String,
    /// The parameters that the phase reads.
    pub parameters: Map<String, Value>,
    /// The workflow's seed, for stages that draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What was read at each input port.
    pub inputs: BTreeMap<String, Vec<InputRecord>>,
}

/// What was read of one producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    /// The producer's values on gathered axes, where the stage is told them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub axes: Axes,
    /// The content.
    #[serde(flatten)]
    pub content: ContentRecord,
}

/// The content that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContentRecord {
    /// Digests of an artifact's files, by name.
    Files(BTreeMap<String, String>),
    /// Digests of artifacts, by case.
    Items(BTreeMap<String, String>),
    /// The slice of a document.
    Document(Value),
}

impl KeyRecord {
    /// The record as the plain value whose canonical form is hashed.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).expect("invariant: a record has only string keys")
    }

    /// The first difference to an older record of the same work, as a phrase: `parameter `epochs` changed (250 → 300)`.
    #[must_use]
    pub fn difference(&self, old: &KeyRecord) -> Option<String> {
        if self.stage != old.stage {
            return Some(format!("another stage is used (`{}` → `{}`)", old.stage, self.stage));
        }
        if self.version != old.version {
            return Some(format!("stage `{}` has a new version ({} → {})", self.stage, old.version, self.version));
        }
        if self.schema != old.schema || self.phase != old.phase {
            return Some("the form of keys has changed".to_owned());
        }
        self.parameter_difference(old).or_else(|| self.seed_difference(old)).or_else(|| self.input_difference(old))
    }

    fn parameter_difference(&self, old: &KeyRecord) -> Option<String> {
        let found =
            value_difference("", &Value::Object(old.parameters.clone()), &Value::Object(self.parameters.clone()))?;
        Some(format!("parameter {found}"))
    }

    fn seed_difference(&self, old: &KeyRecord) -> Option<String> {
        (self.seed != old.seed).then(|| format!("the seed changed ({} → {})", shown(old.seed), shown(self.seed)))
    }

    fn input_difference(&self, old: &KeyRecord) -> Option<String> {
        let ports = self.inputs.keys().chain(old.inputs.keys().filter(|port| !self.inputs.contains_key(*port)));
        for port in ports {
            let (new, old) = (self.inputs.get(port), old.inputs.get(port));
            match (old, new) {
                (None, Some(_)) => return Some(format!("input `{port}` is new")),
                (Some(_), None) => return Some(format!("input `{port}` is gone")),
                (Some(old), Some(new)) if old != new => return Some(members_difference(port, old, new)),
                _ => {}
            }
        }
        None
    }
}

fn shown(seed: Option<u64>) -> String {
    seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string())
}

fn members_difference(port: &str, old: &[InputRecord], new: &[InputRecord]) -> String {
    let named = |record: &InputRecord| record.axes.values().cloned().collect::<Vec<_>>().join(",");
    if old.len() != new.len() {
        return format!("input `{port}` comes from {} producers instead of {}", new.len(), old.len());
    }
    for (old, new) in old.iter().zip(new) {
        if old.axes != new.axes {
            return format!("input `{port}` comes from [{}] instead of [{}]", named(new), named(old));
        }
        if old.content != new.content {
            return content_difference(port, &old.content, &new.content);
        }
    }
    format!("input `{port}` changed")
}

fn content_difference(port: &str, old: &ContentRecord, new: &ContentRecord) -> String {
    match (old, new) {
        (ContentRecord::Files(old), ContentRecord::Files(new)) => match entry_difference(old, new) {
            Some((name, change)) => format!("file `{name}` of input `{port}` {change}"),
            None => format!("input `{port}` changed"),
        },
        (ContentRecord::Items(old), ContentRecord::Items(new)) => match entry_difference(old, new) {
            Some((case, change)) => format!("case `{case}` of input `{port}` {change}"),
            None => format!("input `{port}` changed"),
        },
        (ContentRecord::Document(old), ContentRecord::Document(new)) => match value_difference("", old, new) {
            Some(found) => format!("what is read of input `{port}` changed: {found}"),
            None => format!("input `{port}` changed"),
        },
        _ => format!("input `{port}` is of another form"),
    }
}

/// The first entry that differs, and how: `was added`, `was removed`, `changed`. Additions and removals are told first,
/// with their number, since they are what a person most likely did.
fn entry_difference(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Option<(String, String)> {
    let added: Vec<_> = new.keys().filter(|name| !old.contains_key(*name)).collect();
    let removed: Vec<_> = old.keys().filter(|name| !new.contains_key(*name)).collect();
    let changed: Vec<_> =
        new.iter().filter(|(name, digest)| old.get(*name).is_some_and(|was| was != *digest)).collect();
    let others = |count: usize| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    if let Some(name) = added.first() {
        return Some(((*name).clone(), format!("was added{}", others(added.len()))));
    }
    if let Some(name) = removed.first() {
        return Some(((*name).clone(), format!("was removed{}", others(removed.len()))));
    }
    changed.first().map(|(name, digest)| {
        let was = old.get(*name).map_or("", String::as_str);
        ((*name).clone(), format!("changed ({} → {}){}", short(was), short(digest), others(changed.len())))
    })
}

fn short(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

/// The first place at which two documents differ, with both values: `` `a.b` changed (1 → 2) ``.
#[must_use]
pub fn value_difference(path: &str, old: &Value, new: &Value) -> Option<String> {
    let place = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let removed = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(removed) {
                let found = match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => value_difference(&place(name), old, new),
                    (None, Some(new)) => Some(format!("`{}` is new ({})", place(name), brief(new))),
                    (Some(old), None) => Some(format!("`{}` is gone ({})", place(name), brief(old))),
                    (None, None) => None,
                };
                if found.is_some() {
                    return found;
                }
            }
            None
        }
        (old, new) if old == new => None,
        (Value::Array(old), Value::Array(new)) if brief(old) == brief(new) => Some(element_difference(path, old, new)),
        (old, new) => {
            let name = if path.is_empty() { "it" } else { path };
            Some(format!("`{name}` changed ({} → {})", brief(old), brief(new)))
        }
    }
}

/// The difference of two lists that are too long to be shown.
fn element_difference(path: &str, old: &[Value], new: &[Value]) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
    let others = |count: usize| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    for (one, other, verb) in [(new, old, "was added"), (old, new, "was removed")] {
        let extra: Vec<_> = one.iter().filter(|value| !other.contains(value)).collect();
        if let Some(first) = extra.first() {
            return format!("{} {verb}{place}{}", brief(*first), others(extra.len()));
        }
    }
    format!("the order{place} changed")
}

fn brief(value: &(impl Serialize + ?Sized)) -> String {
    const LONGEST: usize = 60;
    let text = serde_json::to_string(value).unwrap_or_default();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(value: Value) -> KeyRecord {
        serde_json::from_value(value).expect("a record")
    }

    fn base() -> Value {
        json!({
            "schema": KEY_SCHEMA, "stage": "train", "version": 1, "phase": "train",
            "parameters": {"epochs": 250, "optimizer": {"learning_rate": 0.01}}, "seed": 1,
            "inputs": {
                "cases": [{"items": {"a": "00112233445566", "b": "11"}}],
                "plan": [{"document": {"patch_size": [40, 56, 40]}}],
            }
        })
    }

    fn check(change: impl FnOnce(&mut Value), expected: &str) {
        let mut new = base();
        change(&mut new);
        assert_eq!(record(new).difference(&record(base())).as_deref(), Some(expected));
    }

    #[test]
    fn a_changed_parameter_is_told_with_both_values() {
        check(|new| new["parameters"]["epochs"] = json!(300), "parameter `epochs` changed (250 → 300)");
    }

    #[test]
    fn a_changed_parameter_inside_a_table_is_told_by_its_path() {
        check(
            |new| new["parameters"]["optimizer"]["learning_rate"] = json!(0.1),
            "parameter `optimizer.learning_rate` changed (0.01 → 0.1)",
        );
    }

    #[test]
    fn an_added_case_is_told_by_name() {
        check(|new| new["inputs"]["cases"][0]["items"]["c"] = json!("22"), "case `c` of input `cases` was added");
    }

    #[test]
    fn a_changed_case_is_told_with_short_digests() {
        check(
            |new| new["inputs"]["cases"][0]["items"]["a"] = json!("ffeeddccbbaa99"),
            "case `a` of input `cases` changed (00112233 → ffeeddcc)",
        );
    }

    #[test]
    fn a_changed_slice_of_a_document_is_told_by_its_place() {
        check(
            |new| new["inputs"]["plan"][0]["document"]["patch_size"] = json!([8, 8, 8]),
            "what is read of input `plan` changed: `patch_size` changed ([40,56,40] → [8,8,8])",
        );
    }

    #[test]
    fn a_long_list_is_told_by_what_was_added_to_it() {
        let names =
            |count: usize| Value::from((0..count).map(|number| format!("case_{number:03}")).collect::<Vec<_>>());
        let found = value_difference("cases", &names(20), &names(22));
        assert_eq!(found.as_deref(), Some("\"case_020\" was added in `cases` (and 1 more)"));
    }

    #[test]
    fn a_long_list_is_told_by_what_was_removed_from_it() {
        let names =
            |count: usize| Value::from((0..count).map(|number| format!("case_{number:03}")).collect::<Vec<_>>());
        assert_eq!(value_difference("", &names(20), &names(19)).as_deref(), Some("\"case_019\" was removed"));
    }

    #[test]
    fn equal_records_do_not_differ() {
        assert_eq!(record(base()).difference(&record(base())), None);
    }
}
