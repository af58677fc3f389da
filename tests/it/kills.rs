//! `kill -9`, hundreds of times: of the driver, of the worker, of both; before every step of a publication and at random
//! moments. Whatever was told as done stays, the store is sound, and whoever runs again ends with the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use nnflow_cache::{PublishStep, Store};
use nnflow_kernels::random::CounterRandom;

use crate::roles;
use crate::support::{Project, Run, Running, exit};

/// What decides where and when the kills happen.
const SEED: u64 = 20_260_101;

/// How many kills each of the two tests makes at least.
const KILLS: u32 = 108;

/// Every step of a publication that the program takes.
const STEPS: [PublishStep; 9] = [
    PublishStep::StageObject,
    PublishStep::SyncObjects,
    PublishStep::PlaceObject,
    PublishStep::SyncObjectFolders,
    PublishStep::StageManifest,
    PublishStep::SyncManifests,
    PublishStep::PlaceManifest,
    PublishStep::SyncManifestFolders,
    PublishStep::RemoveAdopted,
];

/// Random numbers below a limit.
struct Dice(CounterRandom);

impl Dice {
    fn of(test: u32) -> Self {
        Self(CounterRandom::new(SEED, [test, 0, 0]))
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.0.next_u32() % limit
    }
}

/// The results of a run that nobody has disturbed.
fn expected() -> &'static BTreeMap<String, String> {
    static EXPECTED: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let project = Project::preparing_and_training();
        run_to_the_end(&project);
        project.results(&[])
    })
}

fn run_to_the_end(project: &Project) -> Run {
    project.run_with_worker(&roles::worker_script(), &[]).expect(exit::DONE)
}

/// A store that is killed at, and what must stay in it.
struct Trial {
    project: Project,
    manifests: BTreeMap<PathBuf, Vec<u8>>,
    done: BTreeSet<String>,
}

impl Trial {
    fn new() -> Self {
        Self { project: Project::preparing_and_training(), manifests: BTreeMap::new(), done: BTreeSet::new() }
    }

    /// That a killed run has lost nothing, and has not done again what was done.
    fn check(&mut self, run: &Run, kill: &str) {
        let again: Vec<_> = run.started().intersection(&self.done).cloned().collect();
        assert_eq!(again, [""; 0], "{kill}: done before and run again");
        self.done.extend(run.units());
        let root = self.project.path(".nnflow");
        let report = Store::open(&root).and_then(|store| store.verify(false)).expect("the store can be read");
        assert!(report.is_clean() && report.strays.is_empty(), "{kill}: {report:?}");
        let now = manifests(&root);
        for (path, bytes) in &self.manifests {
            assert_eq!(now.get(path), Some(bytes), "{kill}: {}", path.display());
        }
        self.manifests = now;
    }

    /// That a run which nobody disturbs does the rest and no more, and ends with the same bytes.
    fn finish(mut self, kill: &str) {
        let run = run_to_the_end(&self.project);
        self.check(&run, kill);
        assert_eq!(&self.project.results(&[]), expected(), "{kill}");
        self.project.output(&["cache", "gc"]);
        // A folder of whose owner nothing is known, since it was killed in between, goes some time later.
        let rests = fs_err::read_dir(self.project.path(".nnflow/tmp")).expect("the store has the folder").flatten();
        let owned: Vec<_> = rests.map(|rest| rest.path()).filter(|rest| rest.join("owner.json").exists()).collect();
        assert!(owned.is_empty(), "{kill}: something of a killed process is left: {owned:?}");
    }
}

fn manifests(root: &std::path::Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folders = fs_err::read_dir(root.join("manifests")).expect("the store has the folder").flatten();
    let files = folders.flat_map(|folder| fs_err::read_dir(folder.path()).expect("it is a folder").flatten());
    files.map(|file| (file.path(), fs_err::read(file.path()).expect("the manifest can be read"))).collect()
}

/// Kills processes at once; those that have ended by themselves are no concern.
fn kill(processes: &[u32]) {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -KILL \"$@\" 2>/dev/null; true", "sh"]).args(processes.iter().map(u32::to_string));
    assert!(command.status().expect("a shell can be started").success());
}

#[test]
fn before_every_step_of_a_publication() {
    let mut dice = Dice::of(0);
    let (mut kills, mut reached) = (0, BTreeSet::new());
    while kills < KILLS {
        let mut trial = Trial::new();
        loop {
            let step = STEPS[kills as usize % STEPS.len()];
            let occurrence = 1 + dice.below(7) as usize;
            let name = format!("kill {kills} before {step:?} {occurrence}");
            let mut running = Running::reading(&mut roles::driver(&trial.project, step, occurrence));
            if !running.wait_for_line(roles::WAITING) {
                trial.check(&running.wait().expect(exit::DONE), &name);
                break trial.finish(&name);
            }
            let workers = if dice.below(2) == 0 { Vec::new() } else { running.workers() };
            kill(&[&[running.driver()], &*workers].concat());
            trial.check(&running.wait(), &name);
            kills += 1;
            reached.insert(step);
        }
    }
    assert_eq!(reached, BTreeSet::from(STEPS), "after {kills} kills");
}

#[test]
fn at_random_moments() {
    let mut dice = Dice::of(1);
    let mut kills = [0; 3];
    while kills.iter().sum::<u32>() < KILLS || kills.iter().any(|count| *count < KILLS / 9) {
        let mut trial = Trial::new();
        loop {
            let name = format!("after {kills:?} kills");
            let running = trial.project.start_with_worker(&roles::worker_script(), &[]);
            let (run, killed) = disturb(running, &mut dice, &mut kills);
            trial.check(&run, &name);
            match run.code {
                None => {}
                Some(exit::DONE) => break trial.finish(&name),
                // A worker that is killed three times at one unit is not tried again.
                code => assert!(code == Some(exit::STAGE_FAILED) && killed > 2, "{name}: {code:?} {}", run.err),
            }
        }
    }
}

/// Kills the driver, a worker or both after a random number of events and a random time more, until the driver is dead or the
/// run has ended; counts each, and tells how many workers were killed.
fn disturb(mut running: Running, dice: &mut Dice, kills: &mut [u32; 3]) -> (Run, u32) {
    let mut killed = 0;
    loop {
        let events = 1 + dice.below(40);
        if (0..events).any(|_| !running.has_next()) {
            return (running.wait(), killed);
        }
        (0..dice.below(1 << 18)).for_each(|_| std::hint::spin_loop());
        let workers = running.workers();
        match dice.below(3) {
            0 => {
                kill(&[running.driver()]);
                kills[0] += 1;
                return (running.wait(), killed);
            }
            // Before and after the training there is no worker.
            _ if workers.is_empty() => {}
            1 => {
                kill(&workers);
                kills[1] += 1;
                killed += 1;
            }
            _ => {
                kill(&[&[running.driver()], &*workers].concat());
                kills[2] += 1;
                return (running.wait(), killed);
            }
        }
    }
}
