//! `nnflow cache push` and `pull`, and the options that name a shared store.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nnflow_cache::Key;
use nnflow_shared::{Address, PushReport, SharedStore};
use nnflow_stage::{ErrorKind, ErrorReport};
use petgraph::graph::NodeIndex;

use super::outcome::{Exit, Failed, complain, print};
use super::{Opening, target};
use crate::engine::state::{Forced, State};
use crate::report::size;
use crate::session::{OpenOptions, Session};
use crate::workflow::parse_shared_use;

/// Which shared store is meant, and what for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SharedArguments {
    /// The store shared with others: a folder, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `https://HOST/PATH`; that of
    /// the workflow's `[settings]` by default.
    #[arg(long, value_name = "URL")]
    shared_store: Option<Address>,
    /// Whether results are also put into the shared store: `read-write`, `read-only`, `off`.
    #[arg(long, value_name = "MODE", value_parser = ["read-write", "read-only", "off"])]
    shared_store_mode: Option<String>,
}

impl SharedArguments {
    pub(crate) fn add_to(&self, options: OpenOptions) -> OpenOptions {
        let shared_use = self.shared_store_mode.as_deref().and_then(parse_shared_use);
        // A folder that cannot be made absolute is told of when it is opened.
        let shared_store = self.shared_store.clone().map(|address| from_here(address.clone()).unwrap_or(address));
        OpenOptions { shared_store, shared_use, ..options }
    }
}

/// Tells before so much is fetched that it may take a while.
pub(crate) fn tell_of_large_fetches(shared: &SharedStore) {
    const WORTH_TELLING: u64 = 64 << 20;
    let address = shared.address().to_string();
    shared.notify(move |objects, bytes| {
        if bytes >= WORTH_TELLING {
            complain(&format!("fetching {objects} objects ({}) from {address}", size(bytes)));
        }
    });
}

/// An address from the command line, where a relative folder is one of the current folder.
pub(crate) fn from_here(address: Address) -> Result<Address, Failed> {
    Ok(address.relative_to(&std::env::current_dir()?))
}

/// What `nnflow cache push` and `pull` take.
#[derive(Debug, clap::Args)]
pub(crate) struct ExchangeArguments {
    /// Only these nodes and what they need, such as `plan` or `train[3d_fullres,*]`; all by default.
    node: Vec<String>,
    /// The workflow's file; `workflow.toml`, or the only workflow in this folder, by default.
    #[arg(long, short, value_name = "FILE")]
    workflow: Option<PathBuf>,
    #[command(flatten)]
    shared: SharedArguments,
    #[command(flatten)]
    opening: Opening,
    /// Only tell what would go or come.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl ExchangeArguments {
    fn open(&self) -> Result<Session, Failed> {
        let path = target::workflow_path(self.workflow.as_deref())?;
        Ok(Session::open(&path, &self.shared.add_to(self.opening.options()))?)
    }
}

/// Puts what the local store has of a workflow into the shared store.
pub(crate) fn push(arguments: &ExchangeArguments) -> Result<Exit, Failed> {
    let session = arguments.open()?;
    let shared = shared_of(&session)?;
    let keys = keys_of(&session, &arguments.node)?;
    if arguments.dry_run {
        let absent = shared.has(&keys)?.into_iter().filter(|is_there| !is_there).count();
        print(&format!("would push {absent} of {} results to {}\n", keys.len(), shared.address()));
        return Ok(Exit::Done);
    }
    let PushReport { pushed, present, unpushed } = shared.push(&session.store, &keys)?;
    let bytes = size(shared.tally().pushed_bytes);
    print(&format!("pushed {pushed} results ({bytes}) to {}; {present} were there\n", shared.address()));
    if unpushed.is_empty() {
        return Ok(Exit::Done);
    }
    let reason = unpushed.iter().find_map(|one| one.error.as_ref());
    let report = ErrorReport {
        details: reason.map(ToString::to_string).into_iter().collect(),
        hint: reason.and_then(|error| error.hint()).map(|hint| hint.to_string()),
        ..ErrorReport::new(ErrorKind::Storage, format!("{} results could not be pushed", unpushed.len()))
    };
    Err(Failed::Report(report))
}

/// Fetches what a workflow needs from the shared store.
pub(crate) fn pull(arguments: &ExchangeArguments) -> Result<Exit, Failed> {
    let session = arguments.open()?;
    let shared = shared_of(&session)?;
    let mut state = state_of(&session, &arguments.node)?;
    state.shared = Some(shared).filter(|_| !arguments.dry_run);
    tell_of_large_fetches(shared);
    let ready = state.settle();
    state.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    if arguments.dry_run {
        let keys: Vec<Key> = ready.iter().map(|unit| unit.key).collect();
        let found = shared.has(&keys)?.into_iter().filter(|is_there| *is_there).count();
        print(&format!(
            "would pull {found} of {} results from {}; what follows from them is not known before they are here\n",
            keys.len(),
            shared.address()
        ));
        return Ok(Exit::Done);
    }
    let tally = shared.tally();
    let bytes = size(tally.fetched_bytes);
    print(&format!(
        "pulled {} results ({bytes}) from {}; {} of {} nodes are complete\n",
        tally.fetched,
        shared.address(),
        state.wanted.iter().filter(|node| state.nodes[node.index()].status.is_final()).count(),
        state.wanted.len(),
    ));
    Ok(if shared.has_failed() { Exit::Storage } else { Exit::Done })
}

fn shared_of(session: &Session) -> Result<&SharedStore, Failed> {
    session.shared.as_ref().ok_or_else(|| {
        Failed::input_with_hint(
            "no shared store is named",
            "name one with `--shared-store URL`, or in the workflow as `[settings] shared_store = \"URL\"`",
        )
    })
}

/// The state with these nodes and what they need, or with all nodes.
fn state_of<'s>(session: &'s Session, patterns: &[String]) -> Result<State<'s>, Failed> {
    let mut wanted: BTreeSet<NodeIndex> = session.graph.order().iter().copied().collect();
    if !patterns.is_empty() {
        let found = patterns.iter().map(|pattern| target::nodes(&session.graph, pattern));
        wanted = session.graph.ancestors(&found.collect::<Result<Vec<_>, _>>()?.concat());
    }
    Ok(session.state(session.sources()?, wanted, Forced::new()))
}

/// The keys of all that the local store has of these nodes and of what they need, or of all nodes.
pub(crate) fn keys_of(session: &Session, patterns: &[String]) -> Result<Vec<Key>, Failed> {
    let mut state = state_of(session, patterns)?;
    state.settle();
    state.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    Ok(state.keys())
}
