//! The sample of one case.

use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use nnflow_io::array::{ArrayOptions, write_array};
use nnflow_kernels::geometry::Spacing;
use nnflow_kernels::intensity::ValueCounts;
use nnflow_kernels::random::MersenneTwister;
use nnflow_stage::{Artifact, OutputWriter, StageError};
use serde::{Deserialize, Serialize};

use crate::case::{CaseRecord, RawRegion, open, read_json, unreadable};

/// Shapes and spacing of the case.
const RECORD: &str = "sample.json";
/// `u32` `[2 · channels, 1, 1, n]`: for each channel the bits of its distinct values in ascending order, then how often
/// each was drawn. Channels with fewer values end in values that were drawn 0 times.
const VALUES: &str = "samples.nna";

/// How much is drawn, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleSettings {
    /// Voxels of all cases together.
    pub(super) samples: u64,
    /// Seed for each case.
    pub(super) seed: u32,
}

impl SampleSettings {
    /// Voxels of each of so many cases.
    pub(super) fn of_each(&self, n_cases: usize) -> Result<usize, StageError> {
        match self.samples / n_cases.max(1) as u64 {
            0 => Err(StageError::input(format!(
                "{} samples are less than one for each of {n_cases} cases",
                self.samples
            ))
            .with_hint("set `samples` of the stage `fingerprint`")),
            count => usize::try_from(count).map_err(|error| StageError::internal(error.to_string())),
        }
    }
}

/// What is known of the grid of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SampleRecord {
    /// Distance between voxels in millimetres, `[z, y, x]`.
    pub(super) spacing: Spacing,
    /// Voxels before cropping, `[z, y, x]`.
    pub(super) shape_before: [usize; 3],
    /// Voxels after cropping, `[z, y, x]`.
    pub(super) shape_after: [usize; 3],
}

/// What one case adds to the fingerprint.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CaseSample {
    record: SampleRecord,
    channels: Vec<ValueCounts>,
}

impl CaseSample {
    /// Draws `count` voxels from every channel of a case.
    pub(super) fn draw(record: &CaseRecord, region: &RawRegion, count: usize, seed: u32) -> Self {
        let mut random = MersenneTwister::new(seed);
        let foreground = region.label.mapv(|label| label > 0);
        let channels = region.image.axis_iter(Axis(0));
        Self {
            record: SampleRecord {
                spacing: record.geometry.spacing,
                shape_before: region.crop.shape_before,
                shape_after: region.crop.shape_after,
            },
            channels: channels.map(|channel| draw_channel(channel, &foreground, count, &mut random)).collect(),
        }
    }

    /// Writes both files.
    pub(super) fn write(&self, writer: &mut OutputWriter<'_>) -> Result<(), StageError> {
        writer.json(RECORD, &self.record)?;
        let longest = self.channels.iter().map(|channel| channel.iter().count()).max().unwrap_or(0);
        let mut table = Array4::zeros((2 * self.channels.len(), 1, 1, longest));
        for (number, channel) in self.channels.iter().enumerate() {
            for (place, (value, count)) in channel.iter().enumerate() {
                table[[2 * number, 0, 0, place]] = value.to_bits();
                table[[2 * number + 1, 0, 0, place]] =
                    u32::try_from(count).map_err(|_| StageError::internal("a value was drawn more than 2^32 times"))?;
            }
        }
        write_array(&writer.file(VALUES)?, table.view(), &ArrayOptions::default()).map_err(unreadable)
    }
}

/// Draws with replacement from the foreground voxels of a channel; nothing where there are none.
fn draw_channel(
    channel: ArrayView3<'_, f32>,
    foreground: &Array3<bool>,
    count: usize,
    random: &mut MersenneTwister,
) -> ValueCounts {
    let inside = channel.iter().zip(foreground).filter(|(_, inside)| **inside);
    let values: Vec<f32> = inside.map(|(&value, _)| value).collect();
    if values.is_empty() {
        return ValueCounts::default();
    }
    let tally = random.tally_with_replacement(values.len(), count);
    let drawn = values.into_iter().zip(tally).filter(|&(_, times)| times > 0);
    ValueCounts::from_counts(drawn.map(|(value, times)| (value, u64::from(times))).collect())
}

/// The record of a sample.
pub(super) fn read_record(artifact: &Artifact) -> Result<SampleRecord, StageError> {
    read_json(artifact, RECORD)
}

/// Number of channels of a sample.
pub(super) fn channels_of(artifact: &Artifact) -> Result<usize, StageError> {
    Ok(open(artifact, VALUES)?.shape()[0] / 2)
}

/// What was drawn from one channel.
pub(super) fn read_channel(artifact: &Artifact, channel: usize) -> Result<ValueCounts, StageError> {
    let file = open(artifact, VALUES)?;
    let [_, _, _, length] = file.shape();
    let table = file.read_box::<u32>(2 * channel..2 * channel + 2, [0; 3], [1, 1, length], 0).map_err(unreadable)?;
    let (values, counts) = (table.slice(s![0, 0, 0, ..]), table.slice(s![1, 0, 0, ..]));
    let drawn = values.iter().zip(counts).filter(|(_, count)| **count > 0);
    Ok(ValueCounts::from_counts(drawn.map(|(&bits, &count)| (f32::from_bits(bits), u64::from(count))).collect()))
}
