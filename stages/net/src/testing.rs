//! What several tests need: a look into a network, and processes that are threads.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tch::Tensor;

use crate::collective::{CollectiveError, Exchange};
use crate::network::{Network, leaves};

/// The parameters of a network, to take gradients with respect to.
pub(crate) fn parameters(network: &Network) -> Vec<Tensor> {
    leaves(network.topology(), network.buffer()).expect("on the CPU")
}

/// The output of a network at the full resolution.
pub(crate) fn logits(network: &Network, input: &Tensor) -> Tensor {
    let _guard = tch::no_grad_guard();
    network.topology().forward(&parameters(network), input, 1).expect("the shapes fit").swap_remove(0)
}

/// One of several threads that exchange bytes as processes do.
#[derive(Debug)]
struct Seat {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Exchange for Seat {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let lost = || CollectiveError::Lost { reason: "a thread has ended".to_owned() };
        for to in &self.to {
            to.send(mine.to_vec()).map_err(|_| lost())?;
        }
        let take = |from: &Mutex<Receiver<Vec<u8>>>| from.lock().expect("no thread panicked").recv();
        self.from.iter().map(|from| take(from).map_err(|_| lost())).collect()
    }
}

/// Does `work` on so many threads that exchange bytes, and returns what each made, in their order.
pub(crate) fn on_ranks<R: Send>(ranks: usize, work: impl Fn(Arc<dyn Exchange>) -> R + Sync) -> Vec<R> {
    let mut seats: Vec<Seat> = (0..ranks).map(|rank| Seat { rank, to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..ranks {
        for to in 0..ranks {
            let (sender, receiver) = channel();
            seats[from].to.push(sender);
            seats[to].from.push(Mutex::new(receiver));
        }
    }
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = seats.into_iter().map(|seat| scope.spawn(move || work(Arc::new(seat)))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}
