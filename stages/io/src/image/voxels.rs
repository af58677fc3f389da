//! Voxels as files store them, and as numbers.

use std::io::{self, Read, Write};

use ndarray::{Array4, ArrayView4};
use serde::{Deserialize, Serialize};

use super::error::ReadErrorKind;
use super::source::Source;

/// Bytes of voxels that are converted at once; a multiple of every voxel's width, small enough for the cache.
const BLOCK_BYTES: usize = 64 * 1024;

/// How a file stores a voxel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredKind {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
}

impl StoredKind {
    /// Bytes of a voxel.
    #[must_use]
    pub fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// Runs a piece of code with `$number` as the Rust type of a kind.
macro_rules! for_kind {
    ($kind:expr, $number:ident => $code:expr) => {
        match $kind {
            StoredKind::U8 => {
                type $number = u8;
                $code
            }
            StoredKind::I8 => {
                type $number = i8;
                $code
            }
            StoredKind::U16 => {
                type $number = u16;
                $code
            }
            StoredKind::I16 => {
                type $number = i16;
                $code
            }
            StoredKind::U32 => {
                type $number = u32;
                $code
            }
            StoredKind::I32 => {
                type $number = i32;
                $code
            }
            StoredKind::U64 => {
                type $number = u64;
                $code
            }
            StoredKind::I64 => {
                type $number = i64;
                $code
            }
            StoredKind::F32 => {
                type $number = f32;
                $code
            }
            StoredKind::F64 => {
                type $number = f64;
                $code
            }
        }
    };
}

impl StoredKind {
    /// The bytes of a number that is written as text, lowest first; none if it is no number of this kind.
    pub(super) fn parse(self, text: &str) -> Option<Vec<u8>> {
        for_kind!(self, Number => text.parse::<Number>().ok().map(|number| number.write_le().to_vec()))
    }
}

/// How the voxels of a file follow its header.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Extents `[c, z, y, x]`; the last varies fastest.
    pub(super) shape: [usize; 4],
    pub(super) kind: StoredKind,
    pub(super) big_endian: bool,
    /// True if the channels of a voxel stand side by side instead of one volume after the other.
    pub(super) interleaved: bool,
    /// Factor and summand that make intensities of stored numbers.
    pub(super) scaling: Option<Scaling>,
}

/// `slope * stored + intercept`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scaling {
    pub(super) slope: f64,
    pub(super) intercept: f64,
}

impl Layout {
    /// Number of voxels, checked against what `available` bytes can hold.
    fn voxels(&self, available: u64) -> Result<usize, ReadErrorKind> {
        let expected = self.bytes();
        if expected > available || expected > isize::MAX as u64 {
            return Err(ReadErrorKind::Truncated { expected, found: available });
        }
        Ok(self.shape.iter().product())
    }

    /// Bytes of all voxels; `u64::MAX` where they are more.
    pub(super) fn bytes(&self) -> u64 {
        let factors = self.shape.into_iter().chain([self.kind.width()]);
        factors.fold(1_u64, |product, extent| product.saturating_mul(extent as u64))
    }

    /// Reads the voxels from where `source` stands.
    pub(super) fn read(&self, source: &mut Source) -> Result<Array4<f32>, ReadErrorKind> {
        let count = self.voxels(source.remaining())?;
        let mut voxels: Vec<f32> = Vec::new();
        voxels.try_reserve_exact(count).map_err(|_| ReadErrorKind::Memory { voxels: count })?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut left = count * self.kind.width();
        while left > 0 {
            let bytes = &mut block[..left.min(BLOCK_BYTES)];
            self.read_block(source, bytes, voxels.len())?;
            self.convert(bytes, &mut voxels);
            left -= bytes.len();
        }
        if self.interleaved && self.shape[0] > 1 {
            voxels = separate(&voxels, self.shape[0]);
        }
        Array4::from_shape_vec(self.shape, voxels).map_err(|_| ReadErrorKind::Memory { voxels: count })
    }

    /// Fills `bytes`; where the source ends before, says how far it got.
    fn read_block(&self, source: &mut Source, bytes: &mut [u8], done: usize) -> Result<(), ReadErrorKind> {
        let mut filled = 0;
        while filled < bytes.len() {
            match source.read(&mut bytes[filled..]) {
                Ok(0) => {
                    let found = (done * self.kind.width() + filled) as u64;
                    return Err(ReadErrorKind::Truncated { expected: self.bytes(), found });
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn convert(&self, bytes: &[u8], voxels: &mut Vec<f32>) {
        for_kind!(self.kind, Number => convert::<Number, { size_of::<Number>() }>(bytes, self, voxels));
    }
}

/// Conversion of one block; each arm is a loop of its own that the compiler vectorises.
fn convert<T: Stored<WIDTH>, const WIDTH: usize>(bytes: &[u8], layout: &Layout, voxels: &mut Vec<f32>) {
    let (numbers, _) = bytes.as_chunks::<WIDTH>();
    match (layout.big_endian, layout.scaling) {
        (false, None) => voxels.extend(numbers.iter().map(|&bytes| T::read_le(bytes).as_f32())),
        (true, None) => voxels.extend(numbers.iter().map(|&bytes| T::read_be(bytes).as_f32())),
        (false, Some(scaling)) => {
            voxels.extend(numbers.iter().map(|&bytes| scaling.apply(T::read_le(bytes).as_f64())));
        }
        (true, Some(scaling)) => {
            voxels.extend(numbers.iter().map(|&bytes| scaling.apply(T::read_be(bytes).as_f64())));
        }
    }
}

impl Scaling {
    /// In double precision, as ITK does it: a slope such as 0.1 must not be rounded before it is used.
    fn apply(self, stored: f64) -> f32 {
        (stored * self.slope + self.intercept) as f32
    }
}

/// Channels side by side, to one volume after the other.
fn separate(voxels: &[f32], channels: usize) -> Vec<f32> {
    (0..channels).flat_map(|channel| voxels.iter().skip(channel).step_by(channels)).copied().collect()
}

/// A number as a file stores it.
trait Stored<const WIDTH: usize>: Copy {
    fn read_le(bytes: [u8; WIDTH]) -> Self;
    fn read_be(bytes: [u8; WIDTH]) -> Self;
    fn write_le(self) -> [u8; WIDTH];
    fn write_be(self) -> [u8; WIDTH];
    fn as_f32(self) -> f32;
    fn as_f64(self) -> f64;
    /// The nearest number of this type, half to even.
    fn nearest(value: f64) -> Self;
}

macro_rules! stored {
    ($($number:ty, $rounded:expr);* $(;)?) => {
        $(
            impl Stored<{ size_of::<$number>() }> for $number {
                fn read_le(bytes: [u8; size_of::<$number>()]) -> Self { Self::from_le_bytes(bytes) }
                fn read_be(bytes: [u8; size_of::<$number>()]) -> Self { Self::from_be_bytes(bytes) }
                fn write_le(self) -> [u8; size_of::<$number>()] { self.to_le_bytes() }
                fn write_be(self) -> [u8; size_of::<$number>()] { self.to_be_bytes() }
                fn as_f32(self) -> f32 { self as f32 }
                fn as_f64(self) -> f64 { self as f64 }
                fn nearest(value: f64) -> Self { if $rounded { value.round_ties_even() as Self } else { value as Self } }
            }
        )*
    };
}

stored! {
    u8, true; i8, true; u16, true; i16, true; u32, true; i32, true; u64, true; i64, true; f32, false; f64, false;
}

/// A voxel of an array that is written to a file.
pub(super) trait Voxel: Copy {
    fn to_f64(self) -> f64;
}

impl Voxel for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Voxel for u16 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

/// Writes voxels in the order of the array, one volume after the other.
pub(super) fn write<T: Voxel>(
    file: &mut dyn Write,
    voxels: ArrayView4<'_, T>,
    kind: StoredKind,
    big_endian: bool,
) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for row in voxels.rows() {
        for_kind!(kind, Number => {
            for voxel in row {
                let number = <Number as Stored<{ size_of::<Number>() }>>::nearest(voxel.to_f64());
                block.extend_from_slice(&if big_endian { number.write_be() } else { number.write_le() });
            }
        });
        if block.len() >= BLOCK_BYTES {
            file.write_all(&block)?;
            block.clear();
        }
    }
    file.write_all(&block)
}
