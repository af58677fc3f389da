//! Which unit of work starts next: a pure function of what is waiting and what is in use.

use std::collections::BTreeSet;

/// What the machine gives to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
}

/// What a unit of work occupies while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// CPU threads; 0 stands for all there are.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// GPUs.
    pub gpus: usize,
}

/// What a unit was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// The numbers of the GPUs.
    pub gpus: Vec<usize>,
}

/// A unit that waits; units of higher priority start first, and among equals those that came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    reversed_priority: std::cmp::Reverse<i64>,
    arrival: u64,
}

/// The scheduler of one machine.
///
/// A unit that does not fit now is passed over for those behind it, unless it needs the machine to itself: then nothing
/// of lower priority starts before it, so that it cannot starve.
#[derive(Debug)]
pub struct Scheduler<U> {
    capacity: Capacity,
    threads_in_use: usize,
    memory_in_use: u64,
    free_gpus: BTreeSet<usize>,
    waiting: Vec<(Place, U, Demand)>,
    arrivals: u64,
}

impl<U> Scheduler<U> {
    /// A scheduler with nothing in use.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let capacity = Capacity { threads: capacity.threads.max(1), ..capacity };
        Self {
            capacity,
            threads_in_use: 0,
            memory_in_use: 0,
            free_gpus: (0..capacity.gpus).collect(),
            waiting: Vec::new(),
            arrivals: 0,
        }
    }

    /// What the machine gives.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// How many units wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is in use.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.threads_in_use == 0
    }

    /// Puts a unit in line.
    pub fn submit(&mut self, unit: U, priority: i64, demand: Demand) {
        let place = Place { reversed_priority: std::cmp::Reverse(priority), arrival: self.arrivals };
        self.arrivals += 1;
        let position = self.waiting.partition_point(|(other, _, _)| *other < place);
        self.waiting.insert(position, (place, unit, demand));
    }

    /// Takes the next unit that fits, with what it is given.
    pub fn start_next(&mut self) -> Option<(U, Grant)> {
        let mut position = None;
        for (index, (_, _, demand)) in self.waiting.iter().enumerate() {
            if self.fits(demand) {
                position = Some(index);
                break;
            }
            if demand.threads == 0 && demand.gpus == 0 {
                break;
            }
        }
        let (_, unit, demand) = self.waiting.remove(position?);
        Some((unit, self.grant(&demand)))
    }

    /// Gives back what a unit was given.
    pub fn release(&mut self, grant: &Grant) {
        self.threads_in_use = self.threads_in_use.saturating_sub(grant.threads);
        self.memory_in_use = self.memory_in_use.saturating_sub(grant.memory_bytes);
        self.free_gpus.extend(grant.gpus.iter().copied());
    }

    /// Removes all units that wait.
    pub fn drain(&mut self) -> Vec<U> {
        self.waiting.drain(..).map(|(_, unit, _)| unit).collect()
    }

    fn threads_of(&self, demand: &Demand) -> usize {
        if demand.threads == 0 { self.capacity.threads } else { demand.threads.min(self.capacity.threads) }
    }

    /// A unit that is larger than the machine runs alone rather than never.
    fn fits(&self, demand: &Demand) -> bool {
        let threads = self.threads_in_use + self.threads_of(demand) <= self.capacity.threads;
        let memory = self.memory_in_use.saturating_add(demand.memory_bytes) <= self.capacity.memory_bytes;
        let gpus = demand.gpus <= self.free_gpus.len();
        gpus && threads && (memory || self.is_idle())
    }

    fn grant(&mut self, demand: &Demand) -> Grant {
        let threads = self.threads_of(demand);
        let gpus: Vec<_> = self.free_gpus.iter().copied().take(demand.gpus).collect();
        for gpu in &gpus {
            self.free_gpus.remove(gpu);
        }
        self.threads_in_use += threads;
        self.memory_in_use = self.memory_in_use.saturating_add(demand.memory_bytes);
        Grant { threads, memory_bytes: demand.memory_bytes, gpus }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Capacity = Capacity { threads: 2, memory_bytes: 1000, gpus: 1 };
    const SMALL: Demand = Demand { threads: 1, memory_bytes: 100, gpus: 0 };

    #[test]
    fn higher_priority_starts_first() {
        let mut scheduler = Scheduler::new(MACHINE);
        scheduler.submit("low", 0, SMALL);
        scheduler.submit("high", 5, SMALL);
        assert_eq!(scheduler.start_next().map(|(unit, _)| unit), Some("high"));
    }

    #[test]
    fn first_come_first_served_among_equals() {
        let mut scheduler = Scheduler::new(MACHINE);
        scheduler.submit("first", 0, SMALL);
        scheduler.submit("second", 0, SMALL);
        assert_eq!(scheduler.start_next().map(|(unit, _)| unit), Some("first"));
    }

    #[test]
    fn memory_is_never_promised_twice() {
        let mut scheduler = Scheduler::new(MACHINE);
        let large = Demand { memory_bytes: 600, ..SMALL };
        scheduler.submit("one", 0, large);
        scheduler.submit("two", 0, large);
        assert!(scheduler.start_next().is_some());
        assert!(scheduler.start_next().is_none());
    }

    #[test]
    fn what_is_larger_than_the_machine_runs_alone() {
        let mut scheduler = Scheduler::new(MACHINE);
        scheduler.submit("huge", 0, Demand { memory_bytes: 5000, ..SMALL });
        assert_eq!(scheduler.start_next().map(|(unit, _)| unit), Some("huge"));
    }

    #[test]
    fn a_unit_that_wants_all_threads_is_not_starved_by_small_ones() {
        let mut scheduler = Scheduler::new(MACHINE);
        scheduler.submit("running", 9, SMALL);
        let (_, grant) = scheduler.start_next().expect("fits");
        scheduler.submit("whole machine", 1, Demand { threads: 0, memory_bytes: 0, gpus: 0 });
        scheduler.submit("small", 0, SMALL);
        assert!(scheduler.start_next().is_none());
        scheduler.release(&grant);
        assert_eq!(scheduler.start_next().map(|(unit, _)| unit), Some("whole machine"));
    }

    #[test]
    fn a_gpu_is_given_to_one_unit_at_a_time() {
        let mut scheduler = Scheduler::new(MACHINE);
        let training = Demand { threads: 1, memory_bytes: 0, gpus: 1 };
        scheduler.submit("fold 0", 0, training);
        scheduler.submit("fold 1", 0, training);
        let (_, grant) = scheduler.start_next().expect("fits");
        assert_eq!(grant.gpus, [0]);
        assert!(scheduler.start_next().is_none());
        scheduler.release(&grant);
        assert_eq!(scheduler.start_next().map(|(unit, grant)| (unit, grant.gpus)), Some(("fold 1", vec![0])));
    }

    #[test]
    fn a_unit_that_asks_for_several_gpus_is_given_them_together() {
        let mut scheduler = Scheduler::new(Capacity { threads: 8, gpus: 3, ..MACHINE });
        let demand = |gpus| Demand { threads: 1, memory_bytes: 0, gpus };
        scheduler.submit("one", 1, demand(1));
        scheduler.submit("three", 0, demand(3));
        let (_, grant) = scheduler.start_next().expect("fits");
        assert!(scheduler.start_next().is_none());
        scheduler.release(&grant);
        assert_eq!(scheduler.start_next().map(|(unit, grant)| (unit, grant.gpus)), Some(("three", vec![0, 1, 2])));
    }
}
