//! Counting the agreement of label maps.

use arbtest::arbtest;
use nnflow_kernels::metrics::Confusion;

use crate::arbitrary::{labels, shape};

#[test]
fn every_voxel_is_counted_once_for_every_label() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let (reference, prediction) = (labels(input, shape)?, labels(input, shape)?);
        let confusion = Confusion::between(reference.view(), prediction.view(), Some(3)).expect("same shape");
        let counted = reference.iter().filter(|&&label| label != 3).count() as u64;
        for region in [&[1][..], &[1, 2]] {
            let counts = confusion.counts(region);
            assert_eq!(counts.tp + counts.fp + counts.fn_ + counts.tn, counted);
        }
        Ok(())
    });
}
