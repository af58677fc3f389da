//! Shrinking a patch until it fits.

use super::topology::Topology;

/// Why a patch does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It is too large as a whole.
    Volume,
    /// It is too long on one axis.
    Axis(usize),
}

/// A patch that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fit {
    /// The patch and what goes with it.
    pub(super) topology: Topology,
    /// The padded patch before the first step.
    pub(super) first: Vec<usize>,
    /// Number of steps that shrank it.
    pub(super) steps: usize,
}

/// Shrinks a patch from `start` voxels until `excess` finds none, one step on one axis at a time.
///
/// A patch that is too large as a whole loses on the axis on which it is longest relative to `median`, the later axis
/// where two are equally long. A step is as small as the poolings allow: what the axis has to be divisible by is
/// computed for the patch that one step of the present divisor would leave, because 256 is a multiple of 64 only as
/// long as 224, a multiple of 32, is not tried.
///
/// Equal to the loop of `get_plans_for_configuration` of nnU-Net 2.8.1 wherever that ends. It does not where padding
/// undoes a step, or an axis has no step left; then the next shorter patch is taken that was not tried before.
///
/// # Errors
/// The last patch, if there is no such patch.
pub(super) fn shrink(
    start: &[f64],
    median: &[f64],
    topology_of: impl Fn(&[f64]) -> Topology,
    excess: impl Fn(&Topology) -> Option<Excess>,
) -> Result<Fit, Vec<usize>> {
    let mut topology = topology_of(start);
    let first = topology.patch.clone();
    let mut tried = Vec::new();
    loop {
        let axes = match excess(&topology) {
            None => return Ok(Fit { topology, first, steps: tried.len() }),
            Some(Excess::Axis(axis)) => vec![axis],
            Some(Excess::Volume) => longest_first(&topology.patch, median),
        };
        tried.push(topology.patch.clone());
        let is_new = |next: &Topology| !tried.contains(&next.patch);
        let next = step(&topology, axes[0], &topology_of).filter(is_new);
        let next = next.or_else(|| next_shorter(&topology, &axes, &topology_of, is_new));
        topology = next.ok_or(topology.patch)?;
    }
}

/// nnU-Net's step on one axis, if something is left of the axis then.
fn step(topology: &Topology, axis: usize, topology_of: &impl Fn(&[f64]) -> Topology) -> Option<Topology> {
    let mut trial = whole(&topology.patch);
    let extent = trial[axis];
    trial[axis] = extent - topology.divisors()[axis] as f64;
    trial[axis] = extent - topology_of(&trial).divisors()[axis] as f64;
    (trial[axis] >= 1.0).then(|| topology_of(&trial))
}

/// The next patch that is shorter on one of the axes; padding may lengthen the others.
fn next_shorter(
    topology: &Topology,
    axes: &[usize],
    topology_of: &impl Fn(&[f64]) -> Topology,
    is_new: impl Fn(&Topology) -> bool,
) -> Option<Topology> {
    axes.iter().find_map(|&axis| {
        let mut trial = whole(&topology.patch);
        let shorter = (1..topology.patch[axis]).rev().map(|extent| {
            trial[axis] = extent as f64;
            topology_of(&trial)
        });
        shorter.into_iter().find(|next| next.patch[axis] < topology.patch[axis] && is_new(next))
    })
}

fn whole(patch: &[usize]) -> Vec<f64> {
    patch.iter().map(|&extent| extent as f64).collect()
}

/// The axes in the order of how much of the median shape the patch covers on them; the later axis of two first.
fn longest_first(patch: &[usize], median: &[f64]) -> Vec<usize> {
    let ratio = |axis: &usize| patch[*axis] as f64 / median[*axis];
    let mut axes: Vec<usize> = (0..patch.len()).collect();
    axes.sort_by(|left, right| ratio(right).total_cmp(&ratio(left)).then(right.cmp(left)));
    axes
}

#[cfg(test)]
mod tests {
    use super::super::topology::PoolingLimits;
    use super::*;

    const LIMITS: PoolingLimits = PoolingLimits { min_edge: 4, max_poolings: 5, max_stages: usize::MAX };

    fn within(voxels: f64) -> impl Fn(&Topology) -> Option<Excess> {
        move |topology| (topology.voxels() > voxels).then_some(Excess::Volume)
    }

    fn late(size: &[f64]) -> Topology {
        Topology::pool_late(size, &LIMITS)
    }

    #[test]
    fn a_patch_that_fits_is_only_padded() {
        let fit = shrink(&[36.0, 50.0, 35.0], &[36.0, 50.0, 35.0], late, within(128.0_f64.powi(3))).expect("fits");
        assert_eq!((fit.topology.patch, fit.steps), (vec![40, 56, 40], 0));
    }

    #[test]
    fn the_relatively_longest_axis_shrinks_first() {
        // 160x192x160 relative to 138x169x138: 1.16, 1.14, 1.16, so the last axis, then the first, then the middle one
        // twice (160 / 169 = 0.947 against 128 / 138 = 0.928) until 128x128x128 holds exactly the limit.
        let median = [138.0, 169.0, 138.0];
        let fit = shrink(&median, &median, late, within(128.0_f64.powi(3))).expect("fits");
        assert_eq!((fit.first, fit.topology.patch, fit.steps), (vec![160, 192, 160], vec![128; 3], 4));
    }

    #[test]
    fn an_axis_can_be_limited_by_itself() {
        let too_long = |topology: &Topology| (topology.patch[0] > 22).then_some(Excess::Axis(0));
        // 22 is padded to 24; one step of 4, the divisor of 20, makes it 20.
        let fit = shrink(&[22.0, 64.0], &[64.0, 64.0], late, too_long).expect("fits");
        assert_eq!(fit.topology.patch, [20, 64]);
    }

    #[test]
    fn an_axis_that_is_pooled_down_to_one_voxel_can_shrink() {
        let limits = PoolingLimits { min_edge: 1, ..LIMITS };
        let fit =
            shrink(&[8.0, 8.0], &[8.0, 8.0], |size| Topology::pool_late(size, &limits), within(16.0)).expect("fits");
        assert_eq!(fit.topology.patch, [4, 4]);
    }

    #[test]
    fn where_nothing_fits_the_search_ends() {
        let error = shrink(&[40.0, 40.0], &[40.0, 40.0], late, within(0.5)).expect_err("one voxel is too many");
        assert_eq!(error, [1, 1]);
    }
}
