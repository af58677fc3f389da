//! What a run knows of its jobs: submits, adopts, looks, decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use nnflow_cache::Key;
use nnflow_stage::{ErrorKind, ErrorReport, StageEvent};

use super::error::SlurmError;
use super::folder::{Folder, JobFile, ReportedEnd, Work};
use super::group::{self, Array, Priced};
use super::queue::{self, Ending, JobId, Sighting, Sightings, Standing};
use super::settings::Request;
use super::verdict::{Facts, Verdict};
use super::{Slurm, submit};
use crate::engine::elsewhere::{Order, Returned, Told};
use crate::engine::perform::storage;
use crate::engine::usage::Usage;

/// How many looks in a row a job may be out of sight, or have ended without a report, before that is believed: files on
/// a network may be late, and so may the controller.
const PATIENCE: u32 = 3;

/// The same for a job that has put itself in the queue again.
const PATIENCE_BETWEEN_TURNS: u32 = 20;

/// How much more memory is asked for after a job has run out of it.
const MEMORY_GROWTH: u64 = 2;

/// A job that units of this run are in.
struct Watched {
    folder: Folder,
    file: JobFile,
    /// Not known while it is unclear whether `sbatch` was heard.
    array: Option<u64>,
    elements: Vec<WatchedElement>,
}

/// An element of such a job.
#[derive(Default)]
struct WatchedElement {
    /// The units that this run waits for, by their place.
    open: BTreeMap<usize, Order>,
    /// How much of what it tells has been read.
    offset: u64,
    /// How far each unit has come.
    reached: BTreeMap<usize, u64>,
    /// The last that was said about how it stands.
    said: String,
    /// For how many looks it has been gone.
    gone: u32,
    /// How often each of its units had been cut short before.
    cut_short: u32,
    /// Whether anything of it failed, so that its log may be of use.
    failed: bool,
}

/// Where a unit is that a job of an earlier run is at.
struct Adoptable {
    folder: PathBuf,
    array: u64,
    element: usize,
    unit: usize,
}

/// All jobs that units of this run are in.
pub(super) struct Watch<'w> {
    slurm: &'w Slurm<'w>,
    tell: &'w dyn Fn(Told),
    jobs: Vec<Watched>,
    /// Jobs of earlier runs that still wait or run, and where each unit is in them.
    adoptable: HashMap<Key, Adoptable>,
    /// How often a unit ran out of memory.
    memory_tries: HashMap<Key, u32>,
    /// How often a unit was cut short.
    cut_short: HashMap<Key, u32>,
    /// Nodes of the cluster that failed.
    excluded: BTreeSet<String>,
    longest_array: Option<usize>,
    is_blind: bool,
    has_accounting: bool,
    stopped: bool,
}

impl<'w> Watch<'w> {
    /// Finds the jobs that earlier runs have left in the queue.
    pub(super) fn new(slurm: &'w Slurm<'w>, tell: &'w dyn Fn(Told)) -> Self {
        let mut watch = Self {
            slurm,
            tell,
            jobs: Vec::new(),
            adoptable: HashMap::new(),
            memory_tries: HashMap::new(),
            cut_short: HashMap::new(),
            excluded: BTreeSet::new(),
            longest_array: None,
            is_blind: false,
            has_accounting: true,
            stopped: false,
        };
        if let Err(error) = watch.find_adoptable() {
            watch.warn(format!("jobs of an earlier run, if there are any, are not waited for: {error}"));
        }
        watch
    }

    fn warn(&self, message: String) {
        (self.tell)(Told::Warning(message));
    }

    fn find_adoptable(&mut self) -> Result<(), SlurmError> {
        let folders = Folder::all(&self.slurm.store.jobs_folder())?;
        if folders.is_empty() {
            return Ok(());
        }
        let sightings = queue::look()?;
        for folder in folders {
            let comment = folder.comment();
            let active = |element: usize| {
                let seen =
                    u32::try_from(element).ok().and_then(|element| sightings.get(&(comment.clone(), element)))?;
                matches!(seen.standing, Standing::Pending | Standing::Running).then_some(seen.id.array)
            };
            let known = sightings.keys().any(|(other, _)| *other == comment);
            if !known {
                folder.remove_if_old()?;
                continue;
            }
            let Some(job) = folder.job()? else { continue };
            for (number, element) in job.elements.iter().enumerate() {
                let (Some(array), Work::Units(units)) = (active(number), &element.work) else { continue };
                let place = |unit| Adoptable { folder: folder.path().to_owned(), array, element: number, unit };
                self.adoptable.extend(units.iter().enumerate().map(|(unit, file)| (file.key, place(unit))));
            }
        }
        Ok(())
    }

    /// Waits for those units that jobs are doing already, and submits the others.
    pub(super) fn take(&mut self, orders: Vec<Order>) {
        if self.stopped {
            orders.into_iter().for_each(|order| self.end(order, Err(interrupted())));
            return;
        }
        let mut fresh = Vec::new();
        for order in orders {
            match self.adoptable.remove(&order.job.key) {
                Some(place) => {
                    if let Err(order) = self.adopt(place, order) {
                        fresh.push(*order);
                    }
                }
                None => fresh.push(order),
            }
        }
        self.submit(fresh);
    }

    fn adopt(&mut self, place: Adoptable, order: Order) -> Result<(), Box<Order>> {
        let Adoptable { folder, array, element, unit } = place;
        let folder = Folder::at(folder);
        let index = match self.jobs.iter().position(|job| job.folder == folder) {
            Some(index) => index,
            None => match folder.job() {
                Ok(Some(file)) => {
                    let elements = file.elements.iter().map(|_| WatchedElement::default()).collect();
                    self.jobs.push(Watched { folder, file, array: Some(array), elements });
                    self.jobs.len() - 1
                }
                // Removed by another run that waited for it: what it made is in the store, or is to be made anew.
                Ok(None) | Err(_) => return Err(Box::new(order)),
            },
        };
        let line = format!("job {} of an earlier run is at it already", self.jobs[index].file.name);
        self.say(&order, line);
        match self.jobs[index].elements.get_mut(element) {
            Some(element) => drop(element.open.insert(unit, order)),
            None => return Err(Box::new(order)),
        }
        Ok(())
    }

    fn submit(&mut self, orders: Vec<Order>) {
        if orders.is_empty() {
            return;
        }
        let longest = match self.longest_array.map_or_else(submit::longest_array, Ok) {
            Ok(longest) => *self.longest_array.insert(longest),
            // An array of one is never too long, and whether the controller comes back is seen when it is submitted.
            Err(error) if error.is_passing() => 1,
            Err(error) => {
                orders.into_iter().for_each(|order| self.end(order, Err(error.report())));
                return;
            }
        };
        let priced = orders.into_iter().map(|order| Priced { request: self.request(&order), order }).collect();
        for array in group::arrays(priced, longest) {
            self.submit_array(array);
        }
    }

    fn request(&self, order: &Order) -> Request {
        let spec = order.job.stage.spec();
        let request = self.slurm.settings.request(spec, &order.asked, Some(order.estimate));
        let tries = self.memory_tries.get(&order.job.key).copied().unwrap_or(0);
        let memory_bytes = request.memory_bytes.map(|bytes| bytes.saturating_mul(MEMORY_GROWTH.saturating_pow(tries)));
        Request { memory_bytes, ..request }
    }

    fn submit_array(&mut self, array: Array) {
        let file = group::job_file(self.slurm, &array);
        let folder = match Folder::create(&self.slurm.store.jobs_folder(), &file) {
            Ok(folder) => folder,
            Err(error) => {
                array.elements.into_iter().flatten().for_each(|order| self.end(order, Err(error.report())));
                return;
            }
        };
        let watched = |orders: Vec<Order>| {
            let cut_short = orders.iter().filter_map(|order| self.cut_short.get(&order.job.key)).max();
            let cut_short = cut_short.copied().unwrap_or(0);
            WatchedElement { open: orders.into_iter().enumerate().collect(), cut_short, ..WatchedElement::default() }
        };
        let elements = array.elements.into_iter().map(watched).collect();
        let mut job = Watched { folder, file, array: None, elements };
        self.send(&mut job);
        self.jobs.push(job);
        self.forget_ended();
    }

    /// Calls `sbatch`. Where it is unclear whether the controller has heard it, the next look decides.
    fn send(&self, job: &mut Watched) {
        let mut settings = self.slurm.settings.clone();
        if !self.excluded.is_empty() {
            let nodes: Vec<&str> = self.excluded.iter().map(String::as_str).collect();
            settings.options.insert(0, format!("--exclude={}", nodes.join(",")));
        }
        match submit::submit(&job.folder, &job.file, &settings, None) {
            Ok(array) => {
                job.array = Some(array);
                for (number, element) in job.elements.iter().enumerate() {
                    let line = format!("submitted as job {array}_{number}");
                    element.open.values().take(1).for_each(|order| self.say(order, line.clone()));
                }
            }
            Err(error) if error.is_passing() => self.warn(format!("{error}; it is tried again")),
            Err(error) => {
                let open = job.elements.iter_mut().flat_map(|element| std::mem::take(&mut element.open));
                open.for_each(|(_, order)| self.end(order, Err(error.report())));
            }
        }
    }

    /// Looks how all jobs stand, and hears what they tell.
    pub(super) fn look(&mut self) {
        if self.jobs.is_empty() {
            return;
        }
        let mut sightings = match queue::look() {
            Ok(sightings) => {
                self.is_blind = false;
                Some(sightings)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    self.warn(format!("how the jobs stand is not known now: {error}; they go on without that"));
                }
                None
            }
        };
        if let Some(sightings) = &mut sightings {
            self.look_back(sightings);
        }
        let mut again = Vec::new();
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in &mut jobs {
            (0..job.elements.len()).for_each(|element| self.hear(job, element));
            let Some(sightings) = &sightings else { continue };
            if job.array.is_none() && !self.find(job, sightings) {
                self.send(job);
                continue;
            }
            for number in 0..job.elements.len() {
                again.extend(self.judge(job, number, sightings));
            }
        }
        self.jobs = jobs;
        self.forget_ended();
        self.submit(again);
    }

    /// Whether a job whose number is not known is in the queue after all.
    fn find(&self, job: &mut Watched, sightings: &Sightings) -> bool {
        let comment = job.folder.comment();
        let found = sightings.iter().find(|((other, _), _)| *other == comment);
        job.array = found.map(|(_, sighting)| sighting.id.array);
        job.array.is_some()
    }

    /// Adds what accounting knows of those that the controller has forgotten.
    fn look_back(&mut self, sightings: &mut Sightings) {
        let mut missing = BTreeMap::new();
        for job in &self.jobs {
            let Some(array) = job.array else { continue };
            for (number, element) in job.elements.iter().enumerate().filter(|(_, element)| !element.open.is_empty()) {
                let Ok(number) = u32::try_from(number) else { continue };
                let place = (job.folder.comment(), number);
                // A job of a moment ago may not have reached either of them.
                if !sightings.contains_key(&place) && element.gone > 0 {
                    missing.insert(JobId { array, element: number }, place);
                }
            }
        }
        if missing.is_empty() || !self.has_accounting {
            return;
        }
        match queue::look_back(&missing.keys().map(|id| id.array).collect()) {
            Ok(remembered) => {
                let found = remembered.into_iter().filter_map(|(id, seen)| Some((missing.remove(&id)?, seen)));
                sightings.extend(found);
            }
            Err(error) => self.has_accounting = error.is_passing(),
        }
    }

    /// Passes on what an element has told, and takes the reports of units that have ended.
    fn hear(&mut self, job: &mut Watched, number: usize) {
        let Some(element) = job.elements.get_mut(number).filter(|element| !element.open.is_empty()) else { return };
        match job.folder.told(number, &mut element.offset) {
            Ok(told) => {
                for told in told {
                    if let StageEvent::Progress(progress) = &told.event {
                        let best = element.reached.entry(told.unit).or_default();
                        *best = progress.done.max(*best);
                    }
                    if let Some(order) = element.open.get(&told.unit) {
                        (self.tell)(Told::Event(order.job.id.clone(), told.event));
                    }
                }
            }
            Err(error) => self.warn(error.to_string()),
        }
        let places: Vec<usize> = element.open.keys().copied().collect();
        for place in places {
            match job.folder.report(number, place) {
                Ok(Some(report)) => match report.end {
                    ReportedEnd::Done => self.take_done(element, place),
                    ReportedEnd::Failed(report) => {
                        element.failed = true;
                        let order = element.open.remove(&place);
                        order.into_iter().for_each(|order| self.fail(order, report.clone()));
                    }
                },
                Ok(None) => {}
                Err(error) => self.warn(error.to_string()),
            }
        }
    }

    /// Takes a unit's result from the store; one that is not there yet is waited for.
    fn take_done(&self, element: &mut WatchedElement, place: usize) {
        let Some(order) = element.open.remove(&place) else { return };
        match self.slurm.store.lookup(&order.job.key) {
            Ok(lookup) => match lookup.hit() {
                Some(manifest) => {
                    let usage = Usage::from_stats(&manifest.stats);
                    self.end(order, Ok((manifest, usage)));
                }
                None => drop(element.open.insert(place, order)),
            },
            Err(error) => self.end(order, Err(storage(&error))),
        }
    }

    /// Decides about the units of an element that is not there any more; gives those that are to be submitted again.
    fn judge(&mut self, job: &mut Watched, number: usize, sightings: &Sightings) -> Vec<Order> {
        let place = u32::try_from(number).map(|element| (job.folder.comment(), element));
        let sighting = place.ok().and_then(|place| sightings.get(&place));
        let Some(element) = job.elements.get_mut(number).filter(|element| !element.open.is_empty()) else {
            return Vec::new();
        };
        if let Some(there) = sighting.filter(|seen| !matches!(seen.standing, Standing::Ended(_))) {
            element.gone = 0;
            self.say_standing(element, there);
            return Vec::new();
        }
        element.gone += 1;
        // Between two turns a job may look as if it had failed, for as long as Slurm takes to clean up behind it.
        let patience = if job.folder.was_requeued(number) { PATIENCE_BETWEEN_TURNS } else { PATIENCE };
        if element.gone < patience {
            return Vec::new();
        }
        let places: Vec<usize> = element.open.keys().copied().collect();
        places.into_iter().for_each(|place| self.take_done(element, place));
        if element.open.is_empty() {
            return Vec::new();
        }
        element.failed = true;
        let facts = facts(job, number, sighting);
        let (name, verdict) = (facts.name.clone(), facts.verdict());
        if let (Some(Ending::NodeFailed), Some(seen)) = (facts.ending, sighting) {
            self.excluded.extend(Some(seen.nodes.clone()).filter(|nodes| !nodes.is_empty()));
        }
        let open = std::mem::take(&mut job.elements[number].open).into_values().collect();
        match verdict {
            Verdict::Submit => self.cut_short(open, &job.file.elements[number].node, &name),
            Verdict::Fail(report) => {
                self.fail_all(open, job.folder.log_end(number), &report);
                Vec::new()
            }
        }
    }

    /// Counts that units were cut short; gives them back to be submitted again.
    fn cut_short(&mut self, open: Vec<Order>, node: &str, job: &str) -> Vec<Order> {
        self.warn(format!("`{node}` is submitted again: job {job} was lost or cut short"));
        for order in &open {
            *self.cut_short.entry(order.job.key).or_default() += 1;
        }
        open
    }

    /// Says the end of the log, and that the units have failed.
    fn fail_all(&mut self, open: Vec<Order>, log_end: Vec<String>, report: &ErrorReport) {
        if let Some(order) = open.first() {
            log_end.into_iter().for_each(|line| self.say(order, line));
        }
        open.into_iter().for_each(|order| self.fail(order, report.clone()));
    }

    fn say(&self, order: &Order, line: String) {
        (self.tell)(Told::Event(order.job.id.clone(), StageEvent::Log { line }));
    }

    fn say_standing(&self, element: &mut WatchedElement, sighting: &Sighting) {
        let Sighting { id, standing, nodes, .. } = sighting;
        let now = match standing {
            Standing::Pending => format!("job {id} waits in the queue{}", sighting.because()),
            Standing::Running if !nodes.is_empty() => format!("job {id} runs on {nodes}"),
            _ => return,
        };
        if element.said != now {
            element.open.values().take(1).for_each(|order| self.say(order, now.clone()));
            element.said = now;
        }
    }

    /// A unit that has failed for lack of memory asks for more when it is ordered again.
    fn fail(&mut self, order: Order, report: ErrorReport) {
        if report.kind == ErrorKind::Resource {
            *self.memory_tries.entry(order.job.key).or_default() += 1;
        }
        self.end(order, Err(report));
    }

    fn end(&self, order: Order, result: Result<(nnflow_cache::Manifest, Usage), ErrorReport>) {
        (self.tell)(Told::Ended(Box::new(Returned { job: order.job, result })));
    }

    /// Lets go of jobs that nothing is waited for; the folders of those that went well hold nothing of interest.
    fn forget_ended(&mut self) {
        let (open, ended): (Vec<Watched>, Vec<Watched>) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition(|job| job.elements.iter().any(|element| !element.open.is_empty()));
        self.jobs = open;
        for job in ended.into_iter().filter(|job| !job.elements.iter().any(|element| element.failed)) {
            if let Err(error) = job.folder.remove() {
                self.warn(error.to_string());
            }
        }
    }

    /// Cancels the jobs, unless they are to go on, and waits for none of them.
    pub(super) fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let mut jobs = std::mem::take(&mut self.jobs);
        if jobs.iter().any(|job| job.array.is_none())
            && let Ok(sightings) = queue::look()
        {
            for job in jobs.iter_mut().filter(|job| job.array.is_none()) {
                self.find(job, &sightings);
            }
        }
        let ids: Vec<JobId> = jobs.iter().flat_map(Watched::open_ids).collect();
        if self.slurm.settings.detach {
            if !ids.is_empty() {
                self.warn(format!(
                    "{} jobs go on; the next run waits for those that have not ended by then",
                    ids.len()
                ));
            }
        } else if let Err(error) = submit::cancel(&ids) {
            let ids: Vec<String> = ids.iter().map(JobId::to_string).collect();
            self.warn(format!("the jobs could not be cancelled, `scancel {}` does it: {error}", ids.join(" ")));
        }
        for order in jobs.into_iter().flat_map(|job| job.elements).flat_map(|element| element.open.into_values()) {
            self.end(order, Err(interrupted()));
        }
    }
}

impl Watched {
    fn open_ids(&self) -> Vec<JobId> {
        let open = self.elements.iter().enumerate().filter(|(_, element)| !element.open.is_empty());
        let id = |(number, _)| Some(JobId { array: self.array?, element: u32::try_from(number).ok()? });
        open.filter_map(id).collect()
    }
}

fn interrupted() -> ErrorReport {
    ErrorReport::new(ErrorKind::Interrupted, "the run was asked to stop")
}

/// What is known of an element that has ended without a word about its units.
fn facts<'j>(job: &'j Watched, number: usize, sighting: Option<&Sighting>) -> Facts<'j> {
    let element = &job.elements[number];
    let ending = sighting.and_then(|seen| match seen.standing {
        Standing::Ended(ending) => Some(ending),
        _ => None,
    });
    let failed = sighting.filter(|_| ending == Some(Ending::Failed));
    Facts {
        job: &job.file,
        name: sighting.map_or_else(|| job.file.name.clone(), |seen| seen.id.to_string()),
        ending,
        signal: failed.and_then(|seen| queue::ending_signal(seen.id)),
        was_stopped: job.folder.was_stopped(number) || job.folder.was_requeued(number),
        has_advanced: element.reached.values().any(|done| *done > 0),
        cut_short: element.cut_short,
        log: job.folder.log(number),
    }
}
