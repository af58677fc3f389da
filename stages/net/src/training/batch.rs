//! A batch, checked and cut into pieces.

use std::ops::Range;

use nnflow_kernels::augment::{OUTSIDE, PendingSample};

use crate::architecture::Architecture;
use crate::augment::{Augmented, Augmenter};
use crate::device::Device;
use crate::error::TorchError;
use crate::loss::Target;
use crate::shim::upload;

/// What a network learns from in one step; all in C order.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// Extents of the image: `[sample, channel, (z,) y, x]`.
    pub shape: Vec<usize>,
    /// The voxels of the image.
    pub image: &'a [f32],
    /// The labels for each supervised output, `[sample, (z,) y, x]`, from the full resolution down; their extents are
    /// those of [`crate::architecture::Description::supervised_shapes`].
    pub labels: Vec<&'a [i16]>,
}

/// Why a batch does not fit the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The image has other axes, channels or extents than the network takes.
    #[error("batch of shape `{found:?}` does not fit the network, expected `{expected}`")]
    Shape {
        /// What the network takes.
        expected: String,
        /// Extents of the batch.
        found: Vec<usize>,
    },
    /// Other numbers of values than the shape says.
    #[error("{what} of the batch has {found} values, expected {expected}")]
    Length {
        /// The image, or the labels of an output.
        what: String,
        /// Values of this shape.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// Another number of samples than this process has of each batch.
    #[error("the batch has {found} samples, expected {expected}, which are the share of this process")]
    Share {
        /// The share.
        expected: usize,
        /// Samples of the batch.
        found: usize,
    },
    /// A label that the network has no output for.
    #[error("the labels of output {output} contain `{found}`, expected 0 to {largest} or the label to ignore")]
    Label {
        /// Index of the output.
        output: usize,
        /// The label.
        found: i16,
        /// The largest label of the network.
        largest: usize,
    },
}

/// Some samples of a batch.
pub(super) enum Piece<'a> {
    /// As they are to be seen.
    Made {
        shape: Vec<i64>,
        image: &'a [f32],
        /// For each supervised output, with their extents.
        labels: Vec<(&'a [i16], Vec<i64>)>,
    },
    /// To be augmented first.
    Pending { samples: &'a [PendingSample], augmenter: &'a Augmenter },
}

impl<'a> Batch<'a> {
    pub(super) fn check(&self, architecture: &Architecture, target: &Target) -> Result<(), BatchError> {
        check_shape(&self.shape, architecture)?;
        check_length("the image", self.shape.iter().product(), self.image.len())?;
        check_length("the list of labels", architecture.n_supervised(), self.labels.len())?;
        let shapes = architecture.supervised_shapes(&self.shape[2..]);
        for (output, (labels, shape)) in self.labels.iter().zip(shapes).enumerate() {
            let expected = self.shape[0] * shape.iter().product::<usize>();
            check_length(&format!("the labels of output {output}"), expected, labels.len())?;
            if let Target::Labels { ignore } = target {
                check_labels(output, labels, architecture.outputs, *ignore)?;
            }
        }
        Ok(())
    }

    /// The pieces that are worked on beside each other, each with its samples.
    pub(super) fn cut(&self, architecture: &Architecture, pieces: &[Range<usize>]) -> Vec<Piece<'a>> {
        let supervised = architecture.supervised_shapes(&self.shape[2..]);
        pieces.iter().map(|samples| self.piece(&supervised, samples)).collect()
    }

    /// Voxels of a sample.
    pub(super) fn voxels(&self) -> usize {
        self.shape[2..].iter().product()
    }

    fn piece(&self, supervised: &[Vec<usize>], samples: &Range<usize>) -> Piece<'a> {
        let of_samples = |rest: &[usize]| rest.iter().map(|&extent| extent as i64).collect::<Vec<_>>();
        let shape = [vec![samples.len() as i64], of_samples(&self.shape[1..])].concat();
        let labels = self.labels.iter().zip(supervised).map(|(labels, extents)| {
            (part(labels, self.shape[0], samples), [vec![samples.len() as i64, 1], of_samples(extents)].concat())
        });
        Piece::Made { shape, image: part(self.image, self.shape[0], samples), labels: labels.collect() }
    }
}

/// Checks samples that are still to be augmented.
pub(super) fn check_pending(
    samples: &[PendingSample],
    augmenter: &Augmenter,
    architecture: &Architecture,
    target: &Target,
) -> Result<(), BatchError> {
    let channels = samples.first().map_or(0, PendingSample::channels);
    let shape = [&[samples.len(), channels], augmenter.extents()].concat();
    check_shape(&shape, architecture)?;
    check_length("the list of labels", architecture.n_supervised(), augmenter.n_targets())?;
    for sample in samples {
        check_length("the list of channels of a sample", channels, sample.channels())?;
        if let Target::Labels { ignore } = target {
            // A voxel outside of the source becomes background.
            let known = |label: i16| label == OUTSIDE || is_known(label, architecture.outputs, *ignore);
            // Without a branch for each voxel, since there are millions.
            let is_strange = sample.labels.iter().fold(false, |found, &label| found | !known(label));
            if let Some(&found) = sample.labels.iter().find(|&&label| is_strange && !known(label)) {
                return Err(BatchError::Label { output: 0, found, largest: architecture.outputs - 1 });
            }
        }
    }
    Ok(())
}

/// The pieces of samples that are still to be augmented.
pub(super) fn cut_pending<'a>(
    samples: &'a [PendingSample],
    augmenter: &'a Augmenter,
    pieces: &[Range<usize>],
) -> Vec<Piece<'a>> {
    pieces.iter().map(|part| Piece::Pending { samples: &samples[part.clone()], augmenter }).collect()
}

impl Piece<'_> {
    /// Image and labels on the device, as [`Augmented`] has them.
    pub(super) fn load(&self, device: Device) -> Result<Augmented, TorchError> {
        match self {
            Self::Made { shape, image, labels } => Ok(Augmented {
                image: upload(image, shape, device)?,
                labels: labels.iter().map(|(labels, shape)| upload(labels, shape, device)).collect::<Result<_, _>>()?,
            }),
            Self::Pending { samples, augmenter } => augmenter.apply(samples, device),
        }
    }
}

fn check_shape(shape: &[usize], architecture: &Architecture) -> Result<(), BatchError> {
    let divisors = architecture.divisors();
    let fits = shape.len() == divisors.len() + 2
        && shape[0] > 0
        && shape[1] == architecture.input_channels
        && shape[2..].iter().zip(&divisors).all(|(extent, divisor)| *extent > 0 && extent % divisor == 0);
    if fits {
        return Ok(());
    }
    let axes: Vec<String> = divisors.iter().map(|divisor| format!("n·{divisor}")).collect();
    let expected = format!("[samples, {}, {}]", architecture.input_channels, axes.join(", "));
    Err(BatchError::Shape { expected, found: shape.to_vec() })
}

fn part<'a, T>(values: &'a [T], samples: usize, range: &Range<usize>) -> &'a [T] {
    let size = values.len() / samples;
    &values[range.start * size..range.end * size]
}

fn check_length(what: &str, expected: usize, found: usize) -> Result<(), BatchError> {
    if expected == found { Ok(()) } else { Err(BatchError::Length { what: what.to_owned(), expected, found }) }
}

fn check_labels(output: usize, labels: &[i16], classes: usize, ignore: Option<i16>) -> Result<(), BatchError> {
    match labels.iter().find(|label| !is_known(**label, classes, ignore)) {
        Some(&found) => Err(BatchError::Label { output, found, largest: classes - 1 }),
        None => Ok(()),
    }
}

fn is_known(label: i16, classes: usize, ignore: Option<i16>) -> bool {
    usize::try_from(label).is_ok_and(|label| label < classes) || Some(label) == ignore
}
