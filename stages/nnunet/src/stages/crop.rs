//! `crop`: the part of an image that holds something.
//!
//! The result is a box and a mask, no copy of the voxels: stages that need the region read it out of the case.

use ndarray::{Array3, ArrayView4, Axis};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_kernels::crop::{bounding_box, nonzero_mask};
use nnflow_kernels::geometry::BoundingBox;
use nnflow_stage::{
    Context, InputPort, OutputPort, Phase, PhaseKind, Read, ResourceQuery, Resources, Runner, Stage, StageError,
    StageSpec,
};

use crate::case::{CROP, CropRecord, IMAGE, MASK, open, size_of_case, unreadable};

/// The stage.
pub(crate) struct Crop;

/// Memory that any task needs.
const MEMORY_FLOOR: u64 = 64 << 20;
/// Bytes for each voxel besides those of the image: two masks, and what the filling of holes marks.
const BYTES_OF_MASKS: u64 = 4;

static SPEC: StageSpec = StageSpec {
    name: "crop",
    version: 1,
    summary: "finds the box around the nonzero region of each case",
    docs: "Finds the region of a case that is not zero.\n\n\
        1. A voxel belongs to the region if any channel is not exactly zero there.\n\
        2. Holes are filled: zero voxels from which no way over shared faces leads out of the volume.\n\
        3. The box is the smallest one around the region. An image that is zero everywhere keeps its whole volume, with an empty region, as in nnU-Net.\n\n\
        No voxel is copied; later stages read the box out of the case.\n\n\
        Source: nnU-Net 2.8.1, `crop_to_nonzero`.",
    runner: Runner::Native,
    inputs: &[InputPort {
        name: "cases",
        kinds: &["cases"],
        read: Read::Whole,
        per_case: true,
        many: false,
        optional: false,
        doc: "the cases; labels are not looked at",
    }],
    outputs: &[OutputPort {
        name: "crop",
        kind: "crop",
        per_case: true,
        optional: false,
        document: None,
        doc: "`crop.json` (box and shapes in voxels, [z, y, x] of the file) and `mask.nna` (u8, [1, z, y, x], the region within the box)",
    }],
    parameters: &[],
    axes: &[],
    draws: false,
    resumes: false,
    phases: &[Phase { name: "case", kind: PhaseKind::PerCase, reads: &["cases"], makes: &["crop"], parameters: None }],
};

impl Stage for Crop {
    fn spec(&self) -> &'static StageSpec {
        &SPEC
    }

    fn resources(&self, query: &ResourceQuery<'_>) -> Resources {
        let bytes = size_of_case(query).map_or(query.input_bytes.saturating_mul(8), |(values, record)| {
            let voxels = values / record.channels.max(1) as u64;
            values.saturating_mul(4).saturating_add(voxels.saturating_mul(BYTES_OF_MASKS))
        });
        Resources { threads: 1, memory_bytes: bytes.saturating_add(MEMORY_FLOOR) }
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), StageError> {
        let image = open(context.artifact("cases")?, IMAGE)?.read_all::<f32>().map_err(unreadable)?;
        let (record, mask) = find_region(image.view());
        let mut writer = context.output("crop");
        writer.json(CROP, &record)?;
        write_array(&writer.file(MASK)?, mask.view().insert_axis(Axis(0)), &ArrayOptions::default()).map_err(unreadable)
    }
}

/// The box around the nonzero region of `image` (`[c, z, y, x]`) and the region within it.
fn find_region(image: ArrayView4<'_, f32>) -> (CropRecord, Array3<u8>) {
    let mask = nonzero_mask(image);
    let shape_before: [usize; 3] = mask.dim().into();
    let region = bounding_box(mask.view()).unwrap_or_else(|| BoundingBox::whole(shape_before));
    let inside = region.crop(mask.view()).expect("invariant: the box was found in this mask").mapv(u8::from);
    (CropRecord { region, shape_before, shape_after: region.shape() }, inside)
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    #[test]
    fn an_image_of_zeros_keeps_its_volume_with_an_empty_region() {
        let (record, mask) = find_region(Array4::zeros((2, 3, 4, 5)).view());
        assert_eq!((record.region, record.shape_after), (BoundingBox::whole([3, 4, 5]), [3, 4, 5]));
        assert!(mask.iter().all(|&inside| inside == 0));
    }

    #[test]
    fn the_mask_is_that_of_the_box() {
        let mut image = Array4::zeros((1, 4, 4, 4));
        image[[0, 1, 1, 1]] = 1.0;
        image[[0, 2, 3, 1]] = -1.0;
        let (record, mask) = find_region(image.view());
        assert_eq!((record.region.start(), record.region.stop()), ([1, 1, 1], [3, 4, 2]));
        assert_eq!(mask.into_raw_vec_and_offset().0, [1, 0, 0, 0, 0, 1]);
    }
}
