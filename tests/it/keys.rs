//! Keys that change by accident make everybody's results run again: those of all stages are written down.

use std::collections::BTreeMap;

use nnflow::engine::record::{ContentRecord, InputRecord, KEY_SCHEMA, KeyRecord};
use nnflow_cache::Key;
use nnflow_nnunet::registry::STAGES;
use nnflow_stage::{Axes, Phase, Read, StageSpec, effective_parameters};
use serde_json::{Map, json};

/// What is read at a port: the same for every stage, and of the form that the port has.
fn input(spec: &StageSpec, phase: &Phase, port: &str) -> InputRecord {
    let declared = spec.input(port);
    let is_case = declared.is_none_or(|port| port.per_case) && phase.kind == nnflow_stage::PhaseKind::Whole;
    let content = match declared.map(|port| port.read) {
        Some(Read::Document | Read::Names) => ContentRecord::Document(json!({ "of": port, "number": 1.5 })),
        _ if is_case => ContentRecord::Items(BTreeMap::from([("case".to_owned(), "00".repeat(32))])),
        _ => ContentRecord::Files(BTreeMap::from([("file".to_owned(), "11".repeat(32))])),
    };
    InputRecord { axes: Axes::new(), content }
}

fn key(spec: &'static StageSpec, phase: &Phase) -> Key {
    let all = effective_parameters(spec.parameters, &Map::new()).expect("every parameter has a default");
    let parameters = phase.parameters.map_or_else(|| all.clone(), |names| all.only(names));
    let inputs = phase.reads.iter().map(|port| ((*port).to_owned(), vec![input(spec, phase, port)]));
    let record = KeyRecord {
        schema: KEY_SCHEMA.to_owned(),
        stage: spec.name.to_owned(),
        version: spec.version,
        phase: phase.name.to_owned(),
        parameters: parameters.0,
        seed: spec.draws.then_some(1234),
        inputs: inputs.collect(),
    };
    Key::of(&record.to_value())
}

#[test]
fn the_keys_of_all_stages_stay_what_they_are() {
    let specs = STAGES.iter().map(|stage| stage.spec());
    let phases = specs.flat_map(|spec| spec.phases.iter().map(move |phase| (spec, phase)));
    let lines =
        phases.map(|(spec, phase)| format!("{} {} {} {}\n", spec.name, spec.version, phase.name, key(spec, phase)));
    let found: String = lines.collect();
    let expected = include_str!("../golden/stage-keys.txt");
    assert_eq!(
        found, expected,
        "a stage whose parameters or results change gets a new version; then these are the new lines of \
         tests/golden/stage-keys.txt:\n{found}"
    );
}
