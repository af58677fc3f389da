//! Work on the CPU, spread over threads so that the number of threads changes no bit of a result.
//!
//! libtorch splits one operation over its threads, and sums of floats then come out in another order for another number
//! of them (measured: the output of a first convolution already differs). Here every operation runs on one thread, and
//! independent pieces of work, samples of a batch or windows of an image, run beside each other; what the pieces are does
//! not depend on the machine. It is faster, too: the threads of one operation wait for each other after every operation.

use std::sync::{Mutex, PoisonError};

/// Applies `work` to each item on up to `threads` threads and returns the results in the order of the items.
pub(crate) fn map_in_order<T, R>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R>
where
    T: Send,
    R: Send,
{
    let threads = threads.min(items.len());
    if threads <= 1 {
        tch::set_num_threads(1);
        return items.into_iter().map(work).collect();
    }
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        // libtorch keeps this number for each thread apart.
        tch::set_num_threads(1);
        let mut results = Vec::new();
        while let Some((index, item)) = next() {
            results.push((index, work(item)));
        }
        results
    };
    let mut results = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 3, 50] {
            let squares = map_in_order(threads, (0..20).collect(), |number: usize| number * number);
            assert_eq!(squares, (0..20).map(|number| number * number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_items_are_no_results() {
        assert!(map_in_order(4, Vec::<u8>::new(), |item| item).is_empty());
    }
}
