//! A batch, checked and cut into pieces.

use std::ops::Range;

use tch::{Kind, Tensor};

use crate::architecture::Architecture;
use crate::device::Device;
use crate::error::TorchError;
use crate::loss::Target;

/// On the CPU a batch is cut into pieces of whole samples, of at least this many voxels and at most this many pieces:
/// smaller ones cost more than they gain. The cut decides the order of sums, so it depends on the batch alone.
const SMALLEST_PIECE: usize = 8192;
const MOST_PIECES: usize = 16;

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
pub(super) struct Piece<'a> {
    shape: Vec<i64>,
    image: &'a [f32],
    labels: Vec<&'a [i16]>,
}

impl<'a> Batch<'a> {
    pub(super) fn check(&self, architecture: &Architecture, target: &Target) -> Result<(), BatchError> {
        self.check_shape(architecture)?;
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

    fn check_shape(&self, architecture: &Architecture) -> Result<(), BatchError> {
        let divisors = architecture.divisors();
        let fits = self.shape.len() == divisors.len() + 2
            && self.shape[0] > 0
            && self.shape[1] == architecture.input_channels
            && self.shape[2..].iter().zip(&divisors).all(|(extent, divisor)| *extent > 0 && extent % divisor == 0);
        if fits {
            return Ok(());
        }
        let axes: Vec<String> = divisors.iter().map(|divisor| format!("n·{divisor}")).collect();
        let expected = format!("[samples, {}, {}]", architecture.input_channels, axes.join(", "));
        Err(BatchError::Shape { expected, found: self.shape.clone() })
    }

    /// Cuts the batch into the pieces that are worked on beside each other.
    pub(super) fn split(&self, device: Device) -> Vec<Piece<'a>> {
        let samples = self.shape[0];
        let voxels: usize = self.shape[2..].iter().product();
        let pieces = match device {
            Device::Cpu { .. } => (samples * voxels / SMALLEST_PIECE).clamp(1, samples.min(MOST_PIECES)),
            Device::Cuda(_) => 1,
        };
        let bound = |piece: usize| piece * samples / pieces;
        (0..pieces).map(|piece| self.piece(bound(piece)..bound(piece + 1))).collect()
    }

    fn piece(&self, samples: Range<usize>) -> Piece<'a> {
        let mut shape: Vec<i64> = self.shape.iter().map(|&extent| extent as i64).collect();
        shape[0] = samples.len() as i64;
        let labels = self.labels.iter().map(|labels| part(labels, self.shape[0], &samples)).collect();
        Piece { shape, image: part(self.image, self.shape[0], &samples), labels }
    }
}

impl Piece<'_> {
    /// The image on the device.
    pub(super) fn image(&self, device: Device) -> Result<Tensor, TorchError> {
        Ok(Tensor::f_from_slice(self.image)?.f_view(&*self.shape)?.f_to_device(device.torch())?)
    }

    /// The labels that `output` is compared with: 64-bit, `[sample, 1, (z,) y, x]`.
    pub(super) fn labels(&self, index: usize, output: &Tensor, device: Device) -> Result<Tensor, TorchError> {
        let mut shape = output.size();
        shape[1] = 1;
        let labels = Tensor::f_from_slice(self.labels[index])?.f_view(&*shape)?;
        Ok(labels.f_to_device(device.torch())?.f_to_kind(Kind::Int64)?)
    }
}

fn part<'a, T>(values: &'a [T], samples: usize, range: &Range<usize>) -> &'a [T] {
    let size = values.len() / samples;
    &values[range.start * size..range.end * size]
}

fn check_length(what: &str, expected: usize, found: usize) -> Result<(), BatchError> {
    if expected == found { Ok(()) } else { Err(BatchError::Length { what: what.to_owned(), expected, found }) }
}

fn check_labels(output: usize, labels: &[i16], classes: usize, ignore: Option<i16>) -> Result<(), BatchError> {
    let known = |&label: &i16| usize::try_from(label).is_ok_and(|label| label < classes) || Some(label) == ignore;
    match labels.iter().find(|label| !known(label)) {
        Some(&found) => Err(BatchError::Label { output, found, largest: classes - 1 }),
        None => Ok(()),
    }
}
