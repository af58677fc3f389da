//! One of several processes that train together.

use std::io::Result;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use nnflow_net::collective::{CollectiveError, Exchange};
use nnflow_stage::{Context, Host, StageEvent, Task};

use super::frame::{self, FromRank, ToRank};
use crate::serve::guarded;

/// Trains as one of several processes, if the worker has started this one.
pub(crate) fn serve() -> ExitCode {
    let opened = Member::open();
    let (task, member) = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("`nnflow-torch rank` is started by the worker, with a socket as its standard input: {error}");
            return ExitCode::from(2);
        }
    };
    let trained = guarded(|| {
        let mut context = Context::new(&task, &*member);
        crate::train::train(&mut context, Some(member.clone())).map_err(|error| error.report())?;
        Ok(context.into_outcome())
    });
    let last_word = match trained {
        Ok(outcome) => FromRank::Done(outcome),
        Err(report) => FromRank::Failed(report),
    };
    match member.say(&last_word, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the worker is gone: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This process among the others.
#[derive(Debug)]
struct Member {
    rank: usize,
    ranks: usize,
    stream: Mutex<UnixStream>,
    given: Mutex<Receiver<Vec<Vec<u8>>>>,
    cancelled: Arc<AtomicBool>,
}

impl Member {
    /// Takes the task; none where the worker has ended before it gave one.
    fn open() -> Result<Option<(Box<Task>, Arc<Self>)>> {
        let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let Some((first, _)) = frame::read(&mut stream)? else { return Ok(None) };
        let ToRank::Start { rank, ranks, task } = first else {
            return Err(std::io::Error::other("the first message is not a task"));
        };
        let (sender, given) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let member = Self {
            rank,
            ranks,
            stream: Mutex::new(stream.try_clone()?),
            given: Mutex::new(given),
            cancelled: cancelled.clone(),
        };
        std::thread::spawn(move || listen(stream, &sender, &cancelled));
        Ok(Some((task, Arc::new(member))))
    }

    fn say(&self, head: &FromRank, body: &[u8]) -> Result<()> {
        frame::write(&mut *self.stream.lock().unwrap_or_else(PoisonError::into_inner), head, &[body])
    }
}

/// Takes what the others give, in a thread of its own, so that the end of the worker is heard whatever this process waits
/// for. It then ends at once, as a worker does whose engine is gone.
fn listen(mut stream: UnixStream, given: &Sender<Vec<Vec<u8>>>, cancelled: &AtomicBool) {
    loop {
        let parts = match frame::read(&mut stream) {
            Ok(Some((ToRank::Given { cancelled: now, lengths }, body))) => {
                cancelled.store(now, Ordering::Relaxed);
                frame::parts(&body, &lengths)
            }
            Ok(Some((ToRank::Start { .. }, _))) => Err(std::io::Error::other("a second task")),
            Ok(None) => std::process::exit(0),
            Err(error) => Err(error),
        };
        match parts {
            // Nobody takes it once the training has ended.
            Ok(parts) => given.send(parts).unwrap_or_default(),
            Err(error) => {
                eprintln!("the worker's message cannot be read: {error}");
                std::process::exit(1);
            }
        }
    }
}

impl Exchange for Member {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn exchange(&self, mine: &[u8]) -> std::result::Result<Vec<Vec<u8>>, CollectiveError> {
        let lost = |error: &dyn std::fmt::Display| CollectiveError::Lost { reason: error.to_string() };
        self.say(&FromRank::Give, mine).map_err(|error| lost(&error))?;
        self.given.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(|error| lost(&error))
    }
}

impl Host for Member {
    /// The first process speaks for all.
    fn event(&self, event: StageEvent) {
        if self.rank == 0
            && let Err(error) = self.say(&FromRank::Event(event), &[])
        {
            eprintln!("the worker is gone: {error}");
        }
    }

    /// What all processes heard when they gave each other something last.
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
