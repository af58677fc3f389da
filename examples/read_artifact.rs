//! What a node has made, read from the store.
//!
//! ```console
//! $ cargo run --release --example read_artifact workflows/quickstart.toml plan
//! $ cargo run --release --example read_artifact workflows/quickstart.toml 'resample[3d_fullres]' phantom_001
//! ```
//!
//! `nnflow show NODE --output DIR` copies the same files out. Reading them where they lie costs no copy, and an array is
//! memory-mapped: only the chunks that a box touches are decoded.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use nnflow::engine::state::{Port, Slot, State};
use nnflow::report::{render_report, size};
use nnflow::session::{OpenOptions, Session};
use nnflow_cache::Artifact;
use nnflow_io::array::{ArrayFile, ElementKind};
use petgraph::graph::NodeIndex;

/// Edge of the box that is read of an array, in voxels.
const EDGE: usize = 16;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (workflow, node, case) = match arguments.as_slice() {
        [workflow, node] => (workflow, node, None),
        [workflow, node, case] => (workflow, node, Some(case.as_str())),
        _ => bail!("usage: read_artifact WORKFLOW NODE [CASE]"),
    };
    // Nothing runs: the state is settled with what the store holds.
    let session = Session::open(Path::new(workflow), &OpenOptions::default())?;
    let state = session.settled().map_err(|report| anyhow!(render_report(&report)))?;
    for node in session.graph.find(node)? {
        println!("{}", session.graph.node(node).name);
        show(&session, &state, node, case)?;
    }
    Ok(())
}

/// Shows what a node has made: files, and of per-case ports which cases there are.
fn show(session: &Session, state: &State<'_>, node: NodeIndex, case: Option<&str>) -> anyhow::Result<()> {
    for (port, made) in &state.nodes[node.index()].ports {
        match made {
            Port::One(Slot::Made(held)) => files(session, port, &held.artifact)?,
            Port::Items(Some(slots)) => match case.map(|case| slots.get(case)) {
                Some(Some(Slot::Made(held))) => files(session, port, &held.artifact)?,
                Some(_) => println!("  {port}: nothing for this case"),
                None => println!("  {port}: {} cases; name one to see its files", slots.len()),
            },
            _ => println!("  {port}: nothing yet"),
        }
    }
    Ok(())
}

fn files(session: &Session, port: &str, artifact: &Artifact) -> anyhow::Result<()> {
    for file in artifact.files() {
        println!("  {port}: {}, {}", file.name, size(file.bytes));
        if !session.store.has(&file.digest) {
            println!("    not kept (`store = false`): it is made again when something needs it");
        } else if file.name.ends_with(".nna") {
            array(&session.store.object_path(&file.digest)).with_context(|| format!("`{}`", file.name))?;
        }
    }
    Ok(())
}

/// Tells what an array is like, and the range of the values in its middle.
fn array(path: &Path) -> anyhow::Result<()> {
    let file = ArrayFile::open(path)?;
    let shape = file.shape();
    println!("    {:?} {shape:?} [c, z, y, x], in chunks of {:?}", file.kind(), file.chunk());
    if file.kind() == ElementKind::F32 && shape[0] > 0 {
        // A box may run past the borders; voxels there get the last argument.
        let start = [1, 2, 3].map(|axis: usize| (shape[axis] as isize - EDGE as isize) / 2);
        let middle = file.read_box::<f32>(0..1, start, [EDGE; 3], 0.0)?;
        let (low, high) =
            middle.iter().fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        println!("    {low:.3} to {high:.3} in the middle {EDGE} voxels of channel 0");
    }
    Ok(())
}
