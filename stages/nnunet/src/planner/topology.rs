//! Where a network pools, how its kernels extend, and which patches it can take.

/// When a network stops pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolingLimits {
    /// Edge that no feature map falls below.
    pub min_edge: usize,
    /// Largest number of poolings on one axis.
    pub max_poolings: usize,
    /// Largest number of resolutions, the full one included.
    pub max_stages: usize,
}

/// The shape of a U-Net: one entry a stage, from full resolution downwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The patch, padded to what the strides divide; voxels.
    pub patch: Vec<usize>,
    /// Number of poolings on each axis.
    pub poolings: Vec<u32>,
    /// Stride on each axis with which a stage begins.
    pub strides: Vec<Vec<usize>>,
    /// Extent of the kernels on each axis.
    pub kernels: Vec<Vec<usize>>,
}

impl Topology {
    /// Pools the axes whose spacing is close to the finest one, until no map can be halved any more.
    ///
    /// `spacing` in millimetres and `size` in voxels belong to the same axes. An axis takes part in a pooling while its
    /// map is at least twice `min_edge` and its spacing is less than twice that of the finest axis that can still be
    /// pooled; a last single axis only from three times `min_edge` on. Kernels are 1 along an axis until its spacing is
    /// less than twice the finest of all, then 3.
    ///
    /// Equal to `get_pool_and_conv_props` of nnU-Net 2.8.1.
    #[must_use]
    pub fn by_spacing(spacing: &[f64], size: &[f64], limits: &PoolingLimits) -> Self {
        let rank = spacing.len();
        let mut state = Pooling { spacing: spacing.to_vec(), size: size.to_vec(), poolings: vec![0; rank] };
        let (mut strides, mut kernels, mut kernel) = (vec![vec![1; rank]], Vec::new(), vec![1; rank]);
        while strides.len() < limits.max_stages {
            let axes = state.axes_to_pool(limits);
            if axes.is_empty() {
                break;
            }
            let finest = smallest(state.spacing.iter().copied());
            for (extent, spacing) in kernel.iter_mut().zip(&state.spacing) {
                if spacing / finest < 2.0 {
                    *extent = 3;
                }
            }
            strides.push((0..rank).map(|axis| if axes.contains(&axis) { 2 } else { 1 }).collect());
            kernels.push(kernel.clone());
            state.pool(&axes);
        }
        kernels.push(vec![3; rank]);
        Self { patch: pad(size, &state.poolings), poolings: state.poolings, strides, kernels }
    }

    /// Pools each axis for itself as often as its map allows; axes with fewer poolings take part in the last ones.
    ///
    /// An axis of `size` voxels is pooled while half of its map is at least `min_edge`. All kernels are 3. The order
    /// follows nnU-Net's first public code (commit `6150f1b0`), the paper of 2018 leaves it open.
    #[must_use]
    pub fn pool_late(size: &[f64], limits: &PoolingLimits) -> Self {
        let rank = size.len();
        let most = limits.max_poolings.min(limits.max_stages.saturating_sub(1));
        let poolings: Vec<u32> = size.iter().map(|&extent| halvings(extent, limits.min_edge, most)).collect();
        let depth = poolings.iter().copied().max().unwrap_or(0);
        let mut strides = vec![vec![1; rank]];
        for step in 0..depth {
            strides.push(poolings.iter().map(|&count| if count + step >= depth { 2 } else { 1 }).collect());
        }
        let kernels = vec![vec![3; rank]; strides.len()];
        Self { patch: pad(size, &poolings), poolings, strides, kernels }
    }

    /// What each axis of a patch has to be divisible by.
    #[must_use]
    pub fn divisors(&self) -> Vec<usize> {
        self.poolings.iter().map(|&count| divisor(count)).collect()
    }

    /// Number of resolutions.
    #[must_use]
    pub fn n_stages(&self) -> usize {
        self.strides.len()
    }

    /// Number of voxels in the patch.
    #[must_use]
    pub fn voxels(&self) -> f64 {
        self.patch.iter().map(|&extent| extent as f64).product()
    }
}

/// The deepest feature map on the way down.
struct Pooling {
    spacing: Vec<f64>,
    size: Vec<f64>,
    poolings: Vec<u32>,
}

impl Pooling {
    fn axes_to_pool(&self, limits: &PoolingLimits) -> Vec<usize> {
        let edge = limits.min_edge as f64;
        let large: Vec<usize> = (0..self.size.len()).filter(|&axis| self.size[axis] >= 2.0 * edge).collect();
        let finest = smallest(large.iter().map(|&axis| self.spacing[axis]));
        let axes: Vec<usize> = large
            .into_iter()
            .filter(|&axis| self.spacing[axis] / finest < 2.0)
            .filter(|&axis| (self.poolings[axis] as usize) < limits.max_poolings)
            .collect();
        match axes[..] {
            [axis] if self.size[axis] < 3.0 * edge => Vec::new(),
            _ => axes,
        }
    }

    fn pool(&mut self, axes: &[usize]) {
        for &axis in axes {
            self.poolings[axis] += 1;
            self.spacing[axis] *= 2.0;
            self.size[axis] = (self.size[axis] / 2.0).ceil();
        }
    }
}

fn smallest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

fn halvings(extent: f64, min_edge: usize, most: usize) -> u32 {
    let halves = std::iter::successors(Some(extent / 2.0), |half| Some(half / 2.0));
    halves.take(most).take_while(|&half| half >= min_edge as f64).count() as u32
}

/// Two to the power of `poolings`; more poolings than bits are none that a map in memory allows.
fn divisor(poolings: u32) -> usize {
    1_usize.checked_shl(poolings).unwrap_or(usize::MAX)
}

fn pad(size: &[f64], poolings: &[u32]) -> Vec<usize> {
    let pairs = size.iter().zip(poolings);
    pairs
        .map(|(&extent, &count)| {
            let divisor = divisor(count);
            ((extent / divisor as f64).ceil() as usize).saturating_mul(divisor)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: PoolingLimits = PoolingLimits { min_edge: 4, max_poolings: usize::MAX, max_stages: usize::MAX };

    fn edges(min_edge: usize, max_poolings: usize) -> PoolingLimits {
        PoolingLimits { min_edge, max_poolings, max_stages: usize::MAX }
    }

    #[test]
    fn isotropic_axes_are_pooled_together() {
        // 36 → 18 → 9 → 5 and 50 → 25 → 13 → 7: three poolings each, so multiples of 8.
        let topology = Topology::by_spacing(&[1.0; 3], &[36.0, 50.0, 35.0], &V2);
        assert_eq!((topology.patch, topology.poolings), (vec![40, 56, 40], vec![3, 3, 3]));
    }

    #[test]
    fn a_coarse_axis_waits_until_the_others_have_caught_up() {
        let topology = Topology::by_spacing(&[3.6, 0.6, 0.6], &[20.0, 320.0, 320.0], &V2);
        // 3.6 / 0.6 = 6, 3, 1.5: the coarse axis joins at the third pooling, its kernel too.
        assert_eq!(topology.strides[..4], [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]]);
        assert_eq!(topology.kernels[..3], [[1, 3, 3], [1, 3, 3], [3, 3, 3]]);
    }

    #[test]
    fn a_single_axis_is_pooled_only_from_three_edges_on() {
        let few = Topology::by_spacing(&[1.0; 2], &[11.0, 4.0], &V2);
        let enough = Topology::by_spacing(&[1.0; 2], &[12.0, 4.0], &V2);
        assert_eq!((few.poolings, enough.poolings), (vec![0, 0], vec![1, 0]));
    }

    #[test]
    fn the_number_of_stages_can_be_limited() {
        let limits = PoolingLimits { max_stages: 3, ..V2 };
        assert_eq!(Topology::by_spacing(&[1.0; 3], &[128.0; 3], &limits).n_stages(), 3);
        assert_eq!(Topology::pool_late(&[128.0; 3], &limits).n_stages(), 3);
    }

    #[test]
    fn a_map_stays_at_least_the_edge() {
        // 36 → 18 → 9, the next would be 4.5; 50 → 25 → 12.5, the next would be 6.25.
        let topology = Topology::pool_late(&[36.0, 50.0, 35.0], &edges(8, 5));
        assert_eq!((topology.poolings, topology.patch), (vec![2, 2, 2], vec![36, 52, 36]));
    }

    #[test]
    fn pooling_until_a_map_is_below_eight_is_an_edge_of_four() {
        // 512 / 64 = 8 is pooled no more than 6 times, 320 / 64 = 5, 160 / 32 = 5, 56 / 8 = 7.
        let poolings = |extent| Topology::pool_late(&[extent], &edges(4, 6)).poolings[0];
        assert_eq!([512.0, 320.0, 160.0, 56.0].map(poolings), [6, 6, 5, 3]);
    }

    #[test]
    fn axes_with_fewer_poolings_are_pooled_late() {
        let topology = Topology::pool_late(&[20.0, 320.0], &edges(4, 5));
        assert_eq!(topology.strides, [[1, 1], [1, 2], [1, 2], [1, 2], [2, 2], [2, 2]]);
    }

    #[test]
    fn a_size_between_whole_voxels_is_rounded_up() {
        assert_eq!(Topology::by_spacing(&[1.0; 2], &[36.5, 3.5], &V2).patch, [40, 4]);
    }
}
