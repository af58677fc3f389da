//! Whether a run can give its nodes what they need, told before they start.

use nnflow_stage::{ErrorKind, ErrorReport, Runner};

use super::schedule::{Capacity, Demand};
use super::state::State;
use crate::report::size;
use crate::workflow::{Device, Node};

/// How a node's wishes go together with what there is.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// They do.
    Well,
    /// It can run, but other than asked for.
    Badly(String),
    /// It cannot.
    Never(String),
}

/// Checks what the workflow asks for on behalf of its nodes that have not ended yet, except those that run `elsewhere`.
///
/// `most_memory` is what the run could have if nothing else used the machine. The warnings are about what may go well.
///
/// # Errors
/// All nodes that ask for more than the run can ever give.
pub fn check(
    state: &State<'_>,
    capacity: Capacity,
    most_memory: u64,
    elsewhere: impl Fn(&Node) -> bool,
) -> Result<Vec<String>, ErrorReport> {
    let open = state
        .graph
        .order()
        .iter()
        .filter(|index| state.wanted.contains(index) && !state.nodes[index.index()].status.is_final());
    let nodes = open.map(|index| state.graph.node(*index)).filter(|node| !elsewhere(node));
    let (mut warnings, mut details) = (Vec::new(), Vec::new());
    for node in nodes {
        for fit in [memory(node, capacity, most_memory), gpus(node, capacity)] {
            match fit {
                Fit::Well => {}
                Fit::Badly(warning) => warnings.push(warning),
                Fit::Never(problem) => details.push(problem),
            }
        }
    }
    if details.is_empty() {
        return Ok(warnings);
    }
    Err(ErrorReport {
        details,
        hint: Some(
            "ask for less, as with `--set stages.STAGE.resources.memory=8GiB`, give the run more with `--memory` or \
             `--gpus`, or run it on another machine, as with `--executor slurm`"
                .to_owned(),
        ),
        ..ErrorReport::new(ErrorKind::Input, "the workflow asks for more than this run has")
    })
}

fn memory(node: &Node, capacity: Capacity, most_memory: u64) -> Fit {
    let Some(asked) = node.resources.memory_bytes.filter(|asked| *asked > capacity.memory_bytes) else {
        return Fit::Well;
    };
    let (name, asked_text) = (&node.name, size(asked));
    if asked > most_memory {
        return Fit::Never(format!("`{name}` asks for {asked_text} of memory, and there are {}", size(most_memory)));
    }
    let free = size(capacity.memory_bytes);
    Fit::Badly(format!("`{name}` asks for {asked_text} of memory, and {free} are free: it will run alone"))
}

fn gpus(node: &Node, capacity: Capacity) -> Fit {
    let asked = match (node.spec.runner, node.resources.device, node.resources.gpu) {
        (Runner::Native, ..) | (_, Some(Device::Cpu), _) => 0,
        (Runner::Torch, Some(Device::Cuda(_)), asked) => asked.unwrap_or(1).max(1) as usize,
        (Runner::Torch, _, asked) if capacity.gpus > 0 => asked.unwrap_or(1) as usize,
        (Runner::Torch, ..) => 0,
    };
    let name = &node.name;
    match capacity.gpus {
        0 if asked > 0 => Fit::Never(format!("`{name}` asks for a GPU, and there is none")),
        there if asked > there => {
            Fit::Badly(format!("`{name}` asks for {asked} GPUs and gets the {there} that there are"))
        }
        _ => Fit::Well,
    }
}

/// What is said of a unit that is thought to need more memory than the run has.
#[must_use]
pub fn too_large(node: &str, case: Option<&str>, demand: &Demand, capacity: &Capacity) -> Option<String> {
    let (needs, has) = (size(demand.memory_bytes), size(capacity.memory_bytes));
    let of = case.map_or_else(String::new, |case| format!(" for `{case}`"));
    let warning = || {
        format!(
            "`{node}` is thought to need {needs} of memory{of}, and this run has {has}: it will run alone, and may fail"
        )
    };
    (demand.memory_bytes > capacity.memory_bytes).then(warning)
}
