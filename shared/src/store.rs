//! A shared store as its user sees it, and what it remembers of how it went.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nnflow_cache::{Digest, Key};

use crate::address::Address;
use crate::connection::{Connection, Variables};
use crate::error::SharedError;
use crate::flaw::Flaw;

/// How long a store that failed is left alone. Long, since each try may cost as long as its client's patience.
const REST: Duration = Duration::from_secs(300);

/// How many flawed results are told of one by one; the rest is counted.
const MOST_TOLD: usize = 5;

/// What a shared store is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Results are taken from it and put into it.
    #[default]
    ReadWrite,
    /// Results are only taken from it.
    ReadOnly,
}

/// A store that several machines share. Threads may use it together.
pub struct SharedStore {
    address: Address,
    mode: Mode,
    variables: Variables,
    connection: Mutex<Option<Arc<Connection>>>,
    memory: Mutex<Memory>,
    counters: Counters,
    stopped: AtomicBool,
    notice: OnceLock<Notice>,
}

/// Called before objects are fetched, with their number and their bytes.
type Notice = Box<dyn Fn(usize, u64) + Send + Sync>;

/// What came and went so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Results that were taken from the store.
    pub fetched: u64,
    /// Bytes that came with them.
    pub fetched_bytes: u64,
    /// Results that were put into the store.
    pub pushed: u64,
    /// Bytes that went with them.
    pub pushed_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fetched: AtomicU64,
    pub(crate) fetched_bytes: AtomicU64,
    pub(crate) pushed: AtomicU64,
    pub(crate) pushed_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Memory {
    /// Until when the store is left alone.
    rests_until: Option<Instant>,
    /// That it failed was told.
    failure_told: bool,
    /// What nobody has been told yet.
    warnings: Vec<String>,
    /// Keys whose results were told to be flawed.
    flawed: HashSet<Key>,
    /// Flawed results that were counted instead.
    flawed_untold: usize,
    /// Objects that were wrong when they were fetched: the next push writes them again.
    suspects: HashSet<Digest>,
}

impl SharedStore {
    /// A shared store, with the access that the environment gives. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`SharedError::ReadOnly`] if results shall be put where none can be.
    pub fn new(address: Address, mode: Mode) -> Result<Self, SharedError> {
        // A variable that is not Unicode is none of those that clients know.
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::with_variables(address, mode, std::env::vars_os().filter_map(unicode))
    }

    /// As [`SharedStore::new`], with other variables than those of the environment.
    ///
    /// # Errors
    /// As [`SharedStore::new`].
    pub fn with_variables(
        address: Address,
        mode: Mode,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, SharedError> {
        if mode == Mode::ReadWrite && !address.takes_results() {
            return Err(SharedError::ReadOnly { address: address.to_string() });
        }
        Ok(Self {
            address,
            mode,
            variables: variables.into_iter().collect(),
            connection: Mutex::default(),
            memory: Mutex::default(),
            counters: Counters::default(),
            stopped: AtomicBool::new(false),
            notice: OnceLock::new(),
        })
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it is used for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What came and went so far.
    pub fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            fetched: read(&self.counters.fetched),
            fetched_bytes: read(&self.counters.fetched_bytes),
            pushed: read(&self.counters.pushed),
            pushed_bytes: read(&self.counters.pushed_bytes),
        }
    }

    /// What went wrong without making anything else wrong, and was not told yet.
    pub fn take_warnings(&self) -> Vec<String> {
        let mut memory = self.memory();
        let mut warnings = std::mem::take(&mut memory.warnings);
        match std::mem::take(&mut memory.flawed_untold) {
            0 => {}
            count => warnings.push(format!("{count} more results of the shared store `{}` are flawed", self.address)),
        }
        warnings
    }

    /// Calls `notice` before objects are fetched, with their number and their bytes. Only the first call sets one.
    pub fn notify(&self, notice: impl Fn(usize, u64) + Send + Sync + 'static) {
        self.notice.get_or_init(|| Box::new(notice));
    }

    /// Ends what is under way as soon as the files that are being moved have arrived; nothing is asked any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether it has failed since the program began.
    pub fn has_failed(&self) -> bool {
        self.memory().failure_told
    }

    /// The client, which is set up when it is needed for the first time.
    pub(crate) fn connection(&self) -> Result<Arc<Connection>, SharedError> {
        if self.rests() {
            return Err(SharedError::Resting { address: self.address.to_string() });
        }
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.address, self.mode, &self.variables)?;
        connection.wait(connection.check_version())?;
        Ok(slot.insert(Arc::new(connection)).clone())
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn announce(&self, objects: usize, bytes: u64) {
        if let Some(notice) = self.notice.get() {
            notice(objects, bytes);
        }
    }

    /// Whether it failed a short while ago, or was told to stop.
    pub(crate) fn rests(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.memory().rests_until.is_some_and(|until| Instant::now() < until)
    }

    /// Lets the store be asked again at once although it has failed.
    pub fn wake(&self) {
        self.memory().rests_until = None;
    }

    /// Remembers a failure; the first one of the store is told, and it is left alone for a while.
    pub(crate) fn note(&self, error: &SharedError) {
        let mut memory = self.memory();
        if !error.concerns_everything() {
            memory.warnings.push(error.to_string());
            return;
        }
        memory.rests_until = Some(Instant::now() + REST);
        if !std::mem::replace(&mut memory.failure_told, true) {
            let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
            memory.warnings.push(format!("{error}{hint}; the run goes on without it"));
        }
    }

    /// Remembers that a result is flawed.
    pub(crate) fn note_flaw(&self, key: &Key, flaw: &Flaw) {
        let mut memory = self.memory();
        memory.suspects.extend(flaw.object());
        if !memory.flawed.insert(*key) {
            return;
        }
        if memory.flawed.len() > MOST_TOLD {
            memory.flawed_untold += 1;
            return;
        }
        let warning = format!("the shared store `{}` has a flawed result, which is not used: {flaw}", self.address);
        memory.warnings.push(warning);
    }

    /// Whether an object was wrong when it was fetched.
    pub(crate) fn is_suspect(&self, digest: &Digest) -> bool {
        self.memory().suspects.contains(digest)
    }

    /// An object was written anew.
    pub(crate) fn clear_suspect(&self, digest: &Digest) {
        self.memory().suspects.remove(digest);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each use is one step; a thread that panicked has done it or has not.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedStore {
    /// Without the variables, which hold passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SharedStore").field("address", &self.address).field("mode", &self.mode).finish()
    }
}
