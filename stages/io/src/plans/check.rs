//! What a configuration must hold before anyone relies on it.

use super::{Configuration, NetworkKind, PlansError, UNetArguments};

/// More than any patch or kernel can have on an axis; keeps the products of a few extents within 64 bits.
const LARGEST_EXTENT: usize = 1 << 16;
/// Twice the stages of the deepest network that nnU-Net plans.
const LARGEST_DEPTH: usize = 28;

/// Checks what the values of a configuration say about each other.
pub(super) fn check(name: &str, configuration: &Configuration) -> Result<(), PlansError> {
    let checker = Checker { name };
    checker.grid(configuration)?;
    checker.channels(configuration)?;
    match configuration.architecture.network() {
        Ok(kind) => checker.network(configuration, kind, &configuration.architecture.unet(name)?),
        // The rest of the plan is of use also to someone with a network of their own.
        Err(_) => Ok(()),
    }
}

struct Checker<'a> {
    name: &'a str,
}

impl Checker<'_> {
    fn require(
        &self,
        fulfilled: bool,
        key: &'static str,
        expected: impl Into<String>,
        found: impl std::fmt::Debug,
    ) -> Result<(), PlansError> {
        if fulfilled {
            return Ok(());
        }
        let found = format!("`{found:?}`");
        Err(PlansError::Inconsistent { name: self.name.to_owned(), key, expected: expected.into(), found })
    }

    fn grid(&self, configuration: &Configuration) -> Result<(), PlansError> {
        let Configuration { patch_size, spacing, median_image_size_in_voxels: median, .. } = configuration;
        let rank = patch_size.len();
        self.require(matches!(rank, 2 | 3), "patch_size", "two or three axes", patch_size)?;
        self.require(patch_size.iter().all(|extent| extent_is_usable(*extent)), "patch_size", extents(), patch_size)?;
        self.require(spacing.len() == rank, "spacing", format!("{rank} axes, as `patch_size` has"), spacing)?;
        let positive = spacing.iter().all(|distance| distance.is_finite() && *distance > 0.0);
        self.require(positive, "spacing", "finite numbers above 0", spacing)?;
        let axes = format!("{rank} axes, as `patch_size` has");
        self.require(median.len() == rank, "median_image_size_in_voxels", axes, median)?;
        self.require(configuration.batch_size > 0, "batch_size", "at least 1", configuration.batch_size)
    }

    fn channels(&self, configuration: &Configuration) -> Result<(), PlansError> {
        let n_channels = configuration.normalization_schemes.len();
        self.require(n_channels > 0, "normalization_schemes", "at least one channel", n_channels)?;
        let masks = &configuration.use_mask_for_norm;
        let expected = format!("{n_channels} values, as `normalization_schemes` has");
        self.require(masks.len() == n_channels, "use_mask_for_norm", expected, masks)
    }

    fn network(
        &self,
        configuration: &Configuration,
        kind: NetworkKind,
        arguments: &UNetArguments,
    ) -> Result<(), PlansError> {
        let n_stages = arguments.n_stages;
        let depth = format!("1 to {LARGEST_DEPTH}");
        self.require((1..=LARGEST_DEPTH).contains(&n_stages), "n_stages", depth, n_stages)?;
        self.stages("features_per_stage", n_stages, &arguments.features_per_stage)?;
        self.stages("n_conv_per_stage_decoder", n_stages - 1, &arguments.n_conv_per_stage_decoder)?;
        let depths = match kind {
            NetworkKind::ResidualEncoder => ("n_blocks_per_stage", &arguments.n_blocks_per_stage),
            NetworkKind::Plain | NetworkKind::Unet2018 => ("n_conv_per_stage", &arguments.n_conv_per_stage),
        };
        self.stages(depths.0, n_stages, depths.1.as_deref().unwrap_or_default())?;
        self.axes("kernel_sizes", n_stages, &arguments.kernel_sizes, configuration.rank())?;
        self.axes("strides", n_stages, &arguments.strides, configuration.rank())?;
        let odd = arguments.kernel_sizes.iter().flatten().all(|extent| extent % 2 == 1);
        self.require(odd, "kernel_sizes", "odd numbers, which keep the size of an image", &arguments.kernel_sizes)?;
        self.divisible(configuration, arguments)
    }

    fn stages(&self, key: &'static str, n_stages: usize, values: &[usize]) -> Result<(), PlansError> {
        let usable = values.len() == n_stages && values.iter().all(|value| extent_is_usable(*value));
        self.require(usable, key, format!("{n_stages} numbers of at least 1, for `n_stages`"), values)
    }

    fn axes(&self, key: &'static str, n_stages: usize, values: &[Vec<usize>], rank: usize) -> Result<(), PlansError> {
        let usable = values.len() == n_stages
            && values.iter().all(|axes| axes.len() == rank && axes.iter().all(|value| extent_is_usable(*value)));
        self.require(usable, key, format!("{n_stages} lists of {rank} numbers of at least 1"), values)
    }

    /// Skip connections need maps of the same size on the way down and on the way up.
    fn divisible(&self, configuration: &Configuration, arguments: &UNetArguments) -> Result<(), PlansError> {
        for (axis, &extent) in configuration.patch_size.iter().enumerate() {
            let factor = arguments.strides.iter().try_fold(1_usize, |product, axes| product.checked_mul(axes[axis]));
            let divisible = factor.is_some_and(|factor| extent % factor == 0);
            let factor = factor.map_or("a number beyond 64 bits".to_owned(), |factor| factor.to_string());
            let expected = format!("axis {axis} divisible by {factor}, the product of its strides");
            self.require(divisible, "patch_size", expected, &configuration.patch_size)?;
        }
        Ok(())
    }
}

fn extent_is_usable(extent: usize) -> bool {
    (1..=LARGEST_EXTENT).contains(&extent)
}

fn extents() -> String {
    format!("extents from 1 to {LARGEST_EXTENT}")
}
