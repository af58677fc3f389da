//! How a batch is cut into pieces, and which process works on which of them.

use std::ops::Range;

use crate::device::Device;

/// On the CPU a batch is cut into pieces of whole samples, of at least this many voxels and at most this many pieces:
/// smaller ones cost more than they gain. The cut decides the order of sums, so it depends on the batch alone, and not on
/// how many threads or processes there are.
const SMALLEST_PIECE: usize = 8192;
const MOST_PIECES: usize = 16;

/// How a batch is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    device: Device,
    samples: usize,
    voxels: usize,
}

impl Division {
    /// The division of batches of so many samples of so many voxels.
    #[must_use]
    pub fn new(device: Device, samples: usize, voxels: usize) -> Self {
        Self { device, samples, voxels }
    }

    /// The largest number of processes that all have something to do.
    #[must_use]
    pub fn most_processes(&self) -> usize {
        match self.device {
            Device::Cpu { .. } => {
                (self.samples * self.voxels / SMALLEST_PIECE).clamp(1, self.samples.clamp(1, MOST_PIECES))
            }
            Device::Cuda(_) => self.samples.max(1),
        }
    }

    /// The samples of a batch that the process `rank` of `ranks` works on.
    #[must_use]
    pub fn share(&self, rank: usize, ranks: usize) -> Range<usize> {
        let (count, pieces) = self.pieces(rank, ranks);
        self.bound(pieces.start, count)..self.bound(pieces.end, count)
    }

    /// The samples of each piece of a process, counted from the first one of its share.
    pub(super) fn cut(&self, rank: usize, ranks: usize) -> Vec<Range<usize>> {
        let (count, pieces) = self.pieces(rank, ranks);
        let bound = |piece: usize| self.bound(piece, count) - self.bound(pieces.start, count);
        pieces.clone().map(|piece| bound(piece)..bound(piece + 1)).collect()
    }

    /// How many pieces the batch has, and which of them are the process'.
    fn pieces(&self, rank: usize, ranks: usize) -> (usize, Range<usize>) {
        let count = match self.device {
            Device::Cpu { .. } => self.most_processes(),
            // A GPU takes all it has at once.
            Device::Cuda(_) => ranks.min(self.most_processes()),
        };
        (count, rank * count / ranks..(rank + 1) * count / ranks)
    }

    fn bound(&self, piece: usize, pieces: usize) -> usize {
        piece * self.samples / pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Device = Device::Cpu { threads: 1 };
    const GPU: Device = Device::Cuda(0);

    fn shares(division: Division, ranks: usize) -> Vec<Range<usize>> {
        (0..ranks).map(|rank| division.share(rank, ranks)).collect()
    }

    #[test]
    fn shares_cover_a_batch_without_overlap() {
        arbtest::arbtest(|unstructured| {
            let device = *unstructured.choose(&[CPU, GPU])?;
            let samples = unstructured.int_in_range(1..=40)?;
            let division = Division::new(device, samples, unstructured.int_in_range(1..=20_000)?);
            let ranks = unstructured.int_in_range(1..=division.most_processes())?;
            let shares = shares(division, ranks);
            assert_eq!((shares[0].start, shares[ranks - 1].end), (0, samples), "{shares:?}");
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start), "{shares:?}");
            assert!(shares.iter().all(|share| !share.is_empty()), "{shares:?}");
            Ok(())
        });
    }

    #[test]
    fn processes_cut_a_batch_as_one_process_does() {
        for samples in 1..20 {
            let division = Division::new(CPU, samples, 9000);
            for ranks in 1..=division.most_processes() {
                let of_rank = |rank| {
                    let first = division.share(rank, ranks).start;
                    division.cut(rank, ranks).into_iter().map(move |piece| piece.start + first..piece.end + first)
                };
                let together: Vec<_> = (0..ranks).flat_map(of_rank).collect();
                assert_eq!(together, division.cut(0, 1), "{samples} samples, {ranks} processes");
            }
        }
    }

    /// By hand: 5 samples over 2 GPUs are 2 and 3.
    #[test]
    fn gpus_take_a_piece_each() {
        let division = Division::new(GPU, 5, 1);
        assert_eq!(shares(division, 2), [0..2, 2..5]);
        assert_eq!(division.cut(1, 2), std::iter::once(0..3).collect::<Vec<_>>());
    }

    /// By hand: 4 samples of 576 voxels are less than one piece.
    #[test]
    fn small_batches_are_for_one_process() {
        assert_eq!(Division::new(CPU, 4, 576).most_processes(), 1);
        assert_eq!(Division::new(GPU, 4, 576).most_processes(), 4);
    }
}
