//! The run loop: starts what is ready, takes what has ended, until nothing is left to do.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use nnflow_cache::{Digest, Key};
use nnflow_stage::{ErrorKind, ErrorReport, Runner, StageEvent};
use petgraph::graph::NodeIndex;

use super::elsewhere::{Elsewhere, Order, Returned, Told};
use super::events::{Listener, NodeEnd, RunEvent, Tally};
use super::fit;
use super::job::Job;
use super::perform::{Made, Performed, Performer, Transient, storage};
use super::schedule::{Demand, Grant, Scheduler};
use super::shared;
use super::state::{ReadyUnit, State, Status, UnitId, UnitState};
use super::usage::Usage;

/// How often the loop looks whether the run is to stop while nothing ends.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often the store is told that the run still uses what it has found.
const RENEW_CLAIMS: Duration = Duration::from_secs(60);

/// How often a unit is tried again that failed for lack of a resource.
const RETRIES: u32 = 2;

/// How many results are published together at most, so that those that wait for the first of them do not wait for long.
const MOST_TOGETHER: usize = 256;

/// How a run goes on after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The other cases of the same node are still run, so that all problems are told at once; nothing else is started.
    FinishNode,
    /// All that does not depend on the failure is run.
    KeepGoing,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunEnd {
    /// Whether it was asked to stop.
    pub interrupted: bool,
    /// The failures.
    pub failures: Vec<Failure>,
    /// From start to end.
    pub wall_seconds: f64,
    /// For each node that ran, what it took. Of the clock's time, that in which at least one of its units was running.
    pub nodes: BTreeMap<String, Usage>,
}

/// A unit that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The node.
    pub node: String,
    /// The case, in a per-case phase.
    pub case: Option<String>,
    /// Why.
    pub report: ErrorReport,
}

/// A job that has ended, with what came of it.
struct Ended<'r> {
    job: Job,
    result: Result<Performed<'r>, ErrorReport>,
}

/// How long at least one unit of a node was running, and what those that ended took.
#[derive(Debug, Default)]
struct Activity {
    running: usize,
    since: Option<Instant>,
    seconds: f64,
    taken: Usage,
}

impl Activity {
    fn begin(&mut self) {
        self.running += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.seconds += self.since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
        }
    }

    fn usage(&self) -> Usage {
        Usage { wall_seconds: self.seconds, ..self.taken }
    }
}

enum Message<'r> {
    Warning(String),
    Event(UnitId, StageEvent),
    /// A job has run, so that others can have what it was granted.
    Ran(Grant),
    Ended(Box<Ended<'r>>),
}

/// The other ends of what the threads of a run send to.
struct Channels<'r> {
    run: Sender<Message<'r>>,
    publisher: Sender<Made<'r>>,
    orders: Sender<Vec<Order>>,
}

/// A job under way.
struct Running {
    /// The units that its result is for.
    units: Vec<UnitId>,
    /// What it reads.
    reads: HashSet<Digest>,
    /// Whether it runs elsewhere.
    is_far: bool,
}

/// Bytes that are kept only until their consumers have read them.
struct Kept<'r> {
    key: Key,
    transient: Transient<'r>,
    consumers: BTreeSet<NodeIndex>,
}

/// Runs everything in a state that must run.
pub struct Drive<'r, 'g> {
    state: &'r mut State<'g>,
    performer: &'r Performer<'r>,
    scheduler: Scheduler<ReadyUnit>,
    elsewhere: Option<&'r dyn Elsewhere>,
    /// Units that are to run elsewhere, until those that go with them are ready too.
    departing: Vec<ReadyUnit>,
    listener: &'r mut dyn Listener,
    on_failure: OnFailure,
    running: HashMap<Key, Running>,
    /// Units with the key of one that waits for its turn: the same work under other names.
    twins: HashMap<Key, Vec<ReadyUnit>>,
    tries: HashMap<UnitId, u32>,
    activity: HashMap<NodeIndex, Activity>,
    /// Nodes whose end nobody has heard of yet.
    untold: Vec<NodeIndex>,
    /// Nodes of whose size was warned.
    warned: BTreeSet<NodeIndex>,
    kept: HashMap<UnitId, Kept<'r>>,
    log_ends: HashMap<NodeIndex, Vec<String>>,
    /// Where the keys go whose results shall be pushed.
    sharing: Option<Sender<Key>>,
    claims_renewed: Instant,
    end: RunEnd,
}

impl<'r, 'g> Drive<'r, 'g> {
    /// A run of `state`.
    pub fn new(
        state: &'r mut State<'g>,
        performer: &'r Performer<'r>,
        scheduler: Scheduler<ReadyUnit>,
        listener: &'r mut dyn Listener,
        on_failure: OnFailure,
    ) -> Self {
        let untold = state.graph.order().to_vec();
        Self {
            state,
            performer,
            scheduler,
            elsewhere: None,
            departing: Vec::new(),
            listener,
            on_failure,
            running: HashMap::new(),
            twins: HashMap::new(),
            tries: HashMap::new(),
            activity: HashMap::new(),
            untold,
            warned: BTreeSet::new(),
            kept: HashMap::new(),
            log_ends: HashMap::new(),
            sharing: None,
            claims_renewed: Instant::now(),
            end: RunEnd::default(),
        }
    }

    /// Has the units that `elsewhere` takes run there.
    #[must_use]
    pub fn with_elsewhere(mut self, elsewhere: Option<&'r dyn Elsewhere>) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// Runs until nothing is left to do, or the run is asked to stop.
    /// `ready` is what the first settling found.
    pub fn run(mut self, ready: Vec<ReadyUnit>) -> RunEnd {
        let start = Instant::now();
        let performer = self.performer;
        std::thread::scope(|scope| {
            let (sender, receiver) = unbounded();
            let (publisher, made) = unbounded();
            let ended = sender.clone();
            let pusher = performer.shared.map(|shared| {
                let (sharing, published) = unbounded();
                self.sharing = Some(sharing);
                let push = move || shared::push(shared, performer.store, &published, performer.cancel);
                (shared, scope.spawn(push))
            });
            let sharing = self.sharing.clone();
            scope.spawn(move || publish(performer, &made, &ended, sharing.as_ref()));
            let (orders, ordered) = unbounded();
            if let Some(elsewhere) = self.elsewhere {
                let (run, sharing) = (sender.clone(), self.sharing.clone());
                let tell = move |told: Told| {
                    if let (Some(sharing), Some(key)) = (&sharing, told.published()) {
                        send(sharing, key);
                    }
                    send(&run, message(told));
                };
                scope.spawn(move || elsewhere.serve(&ordered, &tell));
            }
            let channels = Channels { run: sender, publisher, orders };
            self.enqueue(ready);
            loop {
                if !self.performer.cancel.load(Ordering::Relaxed) {
                    self.start_what_fits(scope, &channels);
                    while self.hand_over(&channels.orders) {
                        self.start_what_fits(scope, &channels);
                    }
                }
                if self.running.is_empty() {
                    break;
                }
                self.take_messages(&receiver);
                self.renew_claims();
            }
            drop(channels);
            self.sharing = None;
            if let Some((shared, pusher)) = pusher {
                if performer.cancel.load(Ordering::Relaxed) {
                    shared.stop();
                }
                let unshared = pusher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                let warnings = shared.take_warnings().into_iter().chain(unshared.warning(shared));
                warnings.for_each(|message| self.listener.hear(&RunEvent::Warning { message }));
            }
        });
        self.end.interrupted = self.performer.cancel.load(Ordering::Relaxed);
        self.end.wall_seconds = start.elapsed().as_secs_f64();
        for unit in self.kept.keys().cloned().collect::<Vec<_>>() {
            self.drop_kept(&unit);
        }
        self.end
    }

    fn take_messages(&mut self, receiver: &Receiver<Message<'r>>) {
        let mut message = receiver.recv_timeout(LOOK_AGAIN).ok();
        let mut ended = false;
        while let Some(next) = message {
            ended |= matches!(next, Message::Ended(_));
            match next {
                Message::Warning(message) => self.listener.hear(&RunEvent::Warning { message }),
                Message::Event(unit, event) => self.hear(&unit, event),
                Message::Ran(grant) => self.scheduler.release(&grant),
                Message::Ended(ended) => self.ended(*ended),
            }
            message = receiver.try_recv().ok();
        }
        if ended {
            self.settle();
        }
    }

    fn renew_claims(&mut self) {
        if self.claims_renewed.elapsed() < RENEW_CLAIMS {
            return;
        }
        self.claims_renewed = Instant::now();
        if let Err(error) = self.state.store.renew_claims() {
            self.listener.hear(&RunEvent::Warning { message: storage(&error).message });
        }
    }

    /// Lets results flow and puts what must run in line.
    fn settle(&mut self) {
        let ready = self.state.settle();
        self.enqueue(ready);
    }

    fn enqueue(&mut self, ready: Vec<ReadyUnit>) {
        for message in std::mem::take(&mut self.state.warnings) {
            self.listener.hear(&RunEvent::Warning { message });
        }
        for (unit, report) in std::mem::take(&mut self.state.refused) {
            self.tell_failure(&unit, report);
        }
        for key in std::mem::take(&mut self.state.unshared) {
            self.share(key);
        }
        for unit in ready {
            if let Some(running) = self.running.get_mut(&unit.key) {
                // The same work under another name: its result will do for both.
                running.units.push(unit.id);
                continue;
            }
            match self.twins.entry(unit.key) {
                Entry::Occupied(mut twins) => {
                    twins.get_mut().push(unit);
                    continue;
                }
                Entry::Vacant(twins) => twins.insert(Vec::new()),
            };
            let node = self.state.graph.node(unit.id.node);
            if self.elsewhere.is_some_and(|elsewhere| elsewhere.takes(node)) {
                self.departing.push(unit);
                continue;
            }
            let priority = self.state.rank(unit.id.node);
            let demand = self.demand(&unit, node);
            let too_large = fit::too_large(&node.name, unit.id.item.as_deref(), &demand, &self.scheduler.capacity());
            if let Some(message) = too_large
                && self.warned.insert(unit.id.node)
            {
                self.listener.hear(&RunEvent::Warning { message });
            }
            self.scheduler.submit(unit, priority, demand);
        }
        self.tell_nodes();
    }

    fn share(&self, key: Key) {
        if let Some(sharing) = &self.sharing {
            send(sharing, key);
        }
    }

    fn demand(&self, unit: &ReadyUnit, node: &crate::workflow::Node) -> Demand {
        let capacity = self.scheduler.capacity();
        let (resources, most_gpus) = self.state.resources(unit);
        let device = node.resources.device.map(|device| device.to_string());
        let on_cpu = device.as_ref().unwrap_or(&self.performer.device) == "cpu" || capacity.gpus == 0;
        let gpus = match (node.spec.runner, node.resources.gpu) {
            (Runner::Native, _) => 0,
            (Runner::Torch, _) if on_cpu => 0,
            (Runner::Torch, asked) => asked.map_or(1, |count| count as usize).min(capacity.gpus).min(most_gpus),
        };
        let threads = match (node.resources.threads, node.spec.runner) {
            (Some(threads), _) => threads as usize,
            (None, Runner::Torch) if gpus > 0 => (capacity.threads * gpus / capacity.gpus).max(1),
            (None, _) => resources.threads,
        };
        Demand { threads, memory_bytes: node.resources.memory_bytes.unwrap_or(resources.memory_bytes), gpus }
    }

    fn start_what_fits<'scope>(&mut self, scope: &'scope std::thread::Scope<'scope, '_>, channels: &Channels<'r>)
    where
        'r: 'scope,
    {
        while let Some((first, grant)) = self.scheduler.start_next() {
            let Some(job) = self.begin(first, false) else {
                self.scheduler.release(&grant);
                self.settle();
                continue;
            };
            let id = job.id.clone();
            let (performer, run, publisher) = (self.performer, channels.run.clone(), channels.publisher.clone());
            scope.spawn(move || {
                let events = run.clone();
                let mut event = move |event| send(&events, Message::Event(id.clone(), event));
                match performer.perform(job, grant, &mut event, |grant| send(&run, Message::Ran(grant))) {
                    Ok(made) => send(&publisher, made),
                    Err(failed) => {
                        let (job, report) = *failed;
                        send(&run, Message::Ended(Box::new(Ended { job, result: Err(report) })));
                    }
                }
            });
        }
    }

    /// Makes the job of a unit and counts it as running; nothing if it need not run any more, or cannot.
    fn begin(&mut self, first: ReadyUnit, is_far: bool) -> Option<Job> {
        let twins = self.twins.remove(&first.key).unwrap_or_default();
        let mut units = std::iter::once(first).chain(twins).collect::<Vec<_>>();
        units.retain(|unit| !self.is_stopped(unit.id.node));
        units.retain(|unit| !self.state.find_again(unit));
        let twins = units.split_off(units.len().min(1));
        let unit = units.pop()?;
        self.announce(&unit);
        let id = unit.id.clone();
        match if is_far { self.state.far_job(unit) } else { self.state.job(unit) } {
            Ok(job) => {
                let units = std::iter::once(id).chain(twins.into_iter().map(|twin| twin.id)).collect();
                self.running.insert(job.key, Running { units, reads: job.reads(), is_far });
                Some(job)
            }
            Err(report) => {
                self.activity.entry(id.node).or_default().end();
                self.failed(&id, report.clone());
                twins.iter().for_each(|twin| self.failed(&twin.id, report.clone()));
                None
            }
        }
    }

    /// Orders what runs elsewhere and is ready together; tells whether that has settled something.
    ///
    /// Cases of one phase go together, and so do nodes that become ready at the same time. Nobody waits for what only
    /// other jobs elsewhere could make ready.
    fn hand_over(&mut self, orders: &Sender<Vec<Order>>) -> bool {
        let is_busy = self.scheduler.waiting() > 0 || self.running.values().any(|running| !running.is_far);
        let departing = std::mem::take(&mut self.departing);
        let (now, later): (Vec<_>, Vec<_>) =
            departing.into_iter().partition(|unit| !is_busy || !self.state.has_waiting(&unit.id));
        self.departing = later;
        let mut group = Vec::new();
        let mut settled = false;
        for unit in now {
            let (estimate, most_gpus) = self.state.resources(&unit);
            let node = self.state.graph.node(unit.id.node);
            let (stage, mut asked) = (node.stage.clone(), node.resources.clone());
            asked.gpu = asked.gpu.map(|count| count.min(u32::try_from(most_gpus).unwrap_or(u32::MAX)));
            match self.begin(unit, true) {
                Some(job) => group.push(Order { job, stage, estimate, asked }),
                None => settled = true,
            }
        }
        if !group.is_empty() {
            send(orders, group);
        }
        if settled {
            self.settle();
        }
        settled
    }

    /// Whether nothing of a node is started any more because something failed elsewhere.
    fn is_stopped(&self, node: NodeIndex) -> bool {
        let name = &self.state.graph.node(node).name;
        self.on_failure == OnFailure::FinishNode
            && !self.end.failures.is_empty()
            && !self.end.failures.iter().any(|failure| failure.node == *name)
    }

    fn announce(&mut self, unit: &ReadyUnit) {
        self.activity.entry(unit.id.node).or_default().begin();
        let event = RunEvent::UnitStarted {
            node: self.state.graph.node(unit.id.node).name.clone(),
            case: unit.id.item.as_deref().map(str::to_owned),
            reason: unit.reason.clone(),
        };
        self.listener.hear(&event);
    }

    fn hear(&mut self, unit: &UnitId, event: StageEvent) {
        let node = self.state.graph.node(unit.node).name.clone();
        let case = unit.item.as_deref().map(str::to_owned);
        match event {
            StageEvent::Progress(progress) => self.listener.hear(&RunEvent::UnitProgress { node, case, progress }),
            StageEvent::Log { line } => {
                self.listener.hear(&RunEvent::Log { node, case, line: line.clone() });
                let lines = self.log_ends.entry(unit.node).or_default();
                lines.push(line);
                if lines.len() > 10 {
                    lines.remove(0);
                }
            }
        }
    }

    fn ended(&mut self, ended: Ended<'r>) {
        let Ended { job, result } = ended;
        let units = self.running.remove(&job.key).map(|running| running.units).unwrap_or_default();
        self.activity.entry(job.id.node).or_default().end();
        match result {
            Ok(performed) => {
                self.activity.entry(job.id.node).or_default().taken.add(&performed.usage);
                self.done(&units, performed);
            }
            Err(report) if report.kind == ErrorKind::Interrupted && self.performer.cancel.load(Ordering::Relaxed) => {}
            Err(report) if report.kind == ErrorKind::Resource && self.may_retry(&job.id) => {
                self.retry(&job, &units, &report);
            }
            Err(report) => units.iter().for_each(|unit| self.failed(unit, report.clone())),
        }
    }

    fn done(&mut self, units: &[UnitId], performed: Performed<'r>) {
        if let (Some(transient), Some(first)) = (performed.transient, units.first()) {
            let consumers = units.iter().flat_map(|unit| self.state.consumers_of(unit.node)).collect();
            self.state.locations.extend(transient.paths.clone());
            self.kept.insert(first.clone(), Kept { key: performed.manifest.key(), transient, consumers });
        }
        for unit in units {
            self.state.complete(unit, &performed.manifest, false);
            let event = RunEvent::UnitDone {
                node: self.state.graph.node(unit.node).name.clone(),
                case: unit.item.as_deref().map(str::to_owned),
                usage: performed.usage,
                tally: self.state.tally(unit.node),
            };
            self.listener.hear(&event);
        }
    }

    fn failed(&mut self, unit: &UnitId, report: ErrorReport) {
        self.state.fail(unit, report.clone());
        self.tell_failure(unit, report);
    }

    fn tell_failure(&mut self, unit: &UnitId, report: ErrorReport) {
        let node = self.state.graph.node(unit.node).name.clone();
        let case = unit.item.as_deref().map(str::to_owned);
        let log_end = match report.kind {
            ErrorKind::Internal | ErrorKind::Resource | ErrorKind::Executor => {
                self.log_ends.get(&unit.node).cloned().unwrap_or_default()
            }
            _ => Vec::new(),
        };
        self.listener.hear(&RunEvent::UnitFailed {
            node: node.clone(),
            case: case.clone(),
            report: report.clone(),
            log_end,
        });
        self.end.failures.push(Failure { node, case, report });
    }

    fn may_retry(&self, unit: &UnitId) -> bool {
        self.tries.get(unit).copied().unwrap_or(0) < RETRIES
    }

    fn retry(&mut self, job: &Job, units: &[UnitId], report: &ErrorReport) {
        *self.tries.entry(job.id.clone()).or_insert(0) += 1;
        let message = format!("`{}` is tried again: {}", job.task.node, report.message);
        self.listener.hear(&RunEvent::Warning { message });
        units.iter().for_each(|unit| self.state.wait_again(unit));
    }

    /// Tells which nodes have ended, and lets go of bytes that nobody waits for.
    fn tell_nodes(&mut self) {
        let is_final = |node: &NodeIndex| self.state.nodes[node.index()].status.is_final();
        let (ended, untold) = std::mem::take(&mut self.untold).into_iter().partition::<Vec<_>, _>(is_final);
        self.untold = untold;
        for node in ended {
            let name = self.state.graph.node(node).name.clone();
            let tally = self.state.tally(node);
            let usage = self.activity.get(&node).map(Activity::usage);
            let end = match &self.state.nodes[node.index()].status {
                Status::Skipped(reason) => NodeEnd::Skipped { reason: reason.clone() },
                Status::Failed => NodeEnd::Failed,
                Status::Blocked(reason) => NodeEnd::Blocked { reason: reason.clone() },
                Status::Done | Status::Waiting | Status::Active => match usage {
                    None => NodeEnd::Fresh,
                    Some(usage) => NodeEnd::Done { usage },
                },
            };
            if let Some(usage) = usage {
                self.end.nodes.insert(name.clone(), usage);
            }
            self.listener.hear(&RunEvent::NodeEnded { node: name, end, tally });
        }
        for unit in self.kept.keys().cloned().collect::<Vec<_>>() {
            if self.is_read_by_all(&unit) {
                self.drop_kept(&unit);
            }
        }
    }

    /// Whether every consumer of a unit's bytes has ended, for the unit's case, and nobody else reads them either.
    fn is_read_by_all(&self, unit: &UnitId) -> bool {
        let Some(kept) = self.kept.get(unit) else { return false };
        // A node whose result was found to be the same reads these bytes too, and is not among the consumers.
        let is_read = |running: &Running| kept.transient.paths.keys().any(|digest| running.reads.contains(digest));
        kept.consumers.iter().all(|consumer| self.state.has_read(*consumer, unit.item.as_ref()))
            && !self.running.values().any(is_read)
    }

    fn drop_kept(&mut self, unit: &UnitId) {
        let Some(kept) = self.kept.remove(unit) else { return };
        for digest in kept.transient.paths.keys() {
            self.state.locations.remove(digest);
        }
        if let Err(report) = self.performer.remove(kept.transient.workplace, &kept.key) {
            self.listener.hear(&RunEvent::Warning { message: report.message });
        }
    }
}

/// Publishes what jobs have made, until no job can make anything any more.
///
/// What is made while the disk is being waited for is published together the next time: the slower the disk, the fewer
/// the waits.
fn publish<'r>(
    performer: &Performer<'r>,
    made: &Receiver<Made<'r>>,
    run: &Sender<Message<'r>>,
    sharing: Option<&Sender<Key>>,
) {
    while let Ok(first) = made.recv() {
        let group = std::iter::once(first).chain(made.try_iter().take(MOST_TOGETHER - 1)).collect();
        for (job, result) in performer.publish(group) {
            if let (Some(sharing), Ok(_)) = (sharing, &result) {
                send(sharing, job.key);
            }
            send(run, Message::Ended(Box::new(Ended { job, result })));
        }
    }
}

/// What an executor tells, as the loop hears it.
fn message<'r>(told: Told) -> Message<'r> {
    match told {
        Told::Warning(message) => Message::Warning(message),
        Told::Event(unit, event) => Message::Event(unit, event),
        Told::Ended(returned) => {
            let Returned { job, result } = *returned;
            let performed = |(manifest, usage)| Performed { manifest, transient: None, usage };
            Message::Ended(Box::new(Ended { job, result: result.map(performed) }))
        }
    }
}

/// The loop, the publisher and an executor outlive the threads that send to them, so that somebody always listens.
fn send<T>(sender: &Sender<T>, message: T) {
    sender.send(message).expect("invariant: the receiver lives until all of its senders have ended");
}

impl State<'_> {
    /// How the units of a node stand.
    #[must_use]
    pub fn tally(&self, node: NodeIndex) -> Tally {
        let mut tally = Tally::default();
        let phases = &self.nodes[node.index()].phases;
        for unit in phases.iter().filter_map(|phase| phase.units.as_ref()).flat_map(BTreeMap::values) {
            tally.total += 1;
            match unit {
                UnitState::Done { hit: true, .. } => tally.found += 1,
                UnitState::Done { hit: false, .. } => tally.made += 1,
                UnitState::Failed(_) | UnitState::Blocked => tally.lost += 1,
                UnitState::Waiting | UnitState::Ready(_) => {}
            }
        }
        tally
    }

    /// Whether a unit of the same phase of the same node still waits for something.
    fn has_waiting(&self, unit: &UnitId) -> bool {
        let units = &self.nodes[unit.node.index()].phases[unit.phase].units;
        units.iter().flat_map(BTreeMap::values).any(|unit| matches!(unit, UnitState::Waiting))
    }

    /// Whether a node no longer needs the bytes that belong to a case, or any bytes at all where none is named.
    #[must_use]
    pub fn has_read(&self, node: NodeIndex, item: Option<&std::sync::Arc<str>>) -> bool {
        let state = &self.nodes[node.index()];
        if state.status.is_final() || !self.wanted.contains(&node) {
            return true;
        }
        let open = |unit: &UnitState| matches!(unit, UnitState::Waiting | UnitState::Ready(_));
        state.phases.iter().all(|phase| match (&phase.units, item) {
            (None, _) => false,
            (Some(units), Some(item)) if !units.contains_key(&None) => {
                units.get(&Some(item.clone())).is_none_or(|unit| !open(unit))
            }
            (Some(units), _) => !units.values().any(open),
        })
    }
}
