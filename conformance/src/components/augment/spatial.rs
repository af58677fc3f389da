//! Rotation, scaling and cropping.

use nnflow_kernels::augment::Drawn;
use nnflow_kernels::spatial::{Interpolation, SpatialMap, centre_crop, sample_image, sample_labels};

use super::{Case, EXACT};
use crate::{Check, Problem, Tolerance};

/// Of intensities; nnU-Net's coordinates are of 32 bits, which tells near strong edges.
pub(super) const IMAGE: Tolerance = Tolerance::Absolute(1e-3);
/// Share of labels that may differ; nnU-Net's scores are of 16 bits, in which they tie.
pub(super) const LABELS: f64 = 0.005;
const AFFINE: Tolerance = Tolerance::Absolute(1e-12);
/// The label outside of the image.
const OUTSIDE: i16 = -1;

pub(super) fn compare(case: &Case<'_>, check: &mut Check) -> Result<(), Problem> {
    let (image, labels) = (case.image()?, case.labels()?);
    let patch = patch(case)?;
    let Some(map) = drawn(case)?.spatial_map(patch) else {
        case.compare_image(check, &centre_crop(image.view(), patch, 0.0), EXACT)?;
        return case.compare_labels(check, "segmentation", &centre_crop(labels.view(), patch, OUTSIDE), 0.0);
    };
    compare_affine(case, check, &map)?;
    case.compare_image(check, &sample_image(image.view(), &map, patch, Interpolation::Linear), IMAGE)?;
    case.compare_labels(check, "segmentation", &sample_labels(labels.view(), &map, patch, OUTSIDE), LABELS)
}

pub(super) fn patch(case: &Case<'_>) -> Result<[usize; 3], Problem> {
    match case.parameter::<Vec<usize>>("patch_size")?[..] {
        [z, y, x] => Ok([z, y, x]),
        [y, x] => Ok([1, y, x]),
        _ => Err(case.not_understood("a patch that has neither two nor three axes".to_owned())),
    }
}

/// The vector's parameters as if they had been drawn.
pub(super) fn drawn(case: &Case<'_>) -> Result<Drawn, Problem> {
    let angles: Vec<f64> = case.parameter("angles_rad")?;
    let rotation = std::array::from_fn(|axis| angles.get(axis).copied().unwrap_or(0.0));
    Ok(Drawn {
        in_plane: angles.len() == 1,
        rotation: case.parameter::<bool>("rotation_applied")?.then_some(rotation),
        scale: if case.parameter("scaling_applied")? { Some(case.parameter("scale")?) } else { None },
        ..Drawn::default()
    })
}

fn compare_affine(case: &Case<'_>, check: &mut Check, map: &SpatialMap) -> Result<(), Problem> {
    let expected: Vec<Vec<f64>> = case.parameter("affine")?;
    // In slices the matrix has no row and column for the first axis.
    let skipped = 3_usize.saturating_sub(expected.len());
    for (row, (found, expected)) in map.affine.rows()[skipped..].iter().zip(&expected).enumerate() {
        check.numbers(format!("row {row} of the affine map"), expected, &found[skipped..], AFFINE);
    }
    Ok(())
}
