//! The header of NIfTI-2, which the `nifti` crate does not know: the same fields at other places and in other widths.

use ::nifti::Endianness;

use super::header::{Contents, Fields, NO_EXTENSION, no_nifti};
use crate::image::error::ReadErrorKind;

/// Bytes of a header, which is also its first field.
pub(super) const LENGTH: usize = 540;

// Where the fields stand.
const MAGIC: usize = 4;
const DATATYPE: usize = 12;
const BITPIX: usize = 14;
const DIM: usize = 16;
const PIXDIM: usize = 104;
const VOX_OFFSET: usize = 168;
const SCL_SLOPE: usize = 176;
const SCL_INTER: usize = 184;
const CAL_MAX: usize = 192;
const CAL_MIN: usize = 200;
const QFORM_CODE: usize = 344;
const SFORM_CODE: usize = 348;
const QUATERN: usize = 352;
const QOFFSET: usize = 376;
const SROW: usize = 400;
const XYZT_UNITS: usize = 500;
const INTENT_CODE: usize = 504;

/// The header's bytes.
#[derive(Debug, Clone)]
pub(super) struct Second {
    bytes: [u8; LENGTH],
    order: Endianness,
}

impl Second {
    /// Takes the header of a file whose first number is of this byte order.
    pub(super) fn parse(bytes: [u8; LENGTH], order: Endianness) -> Result<Self, ReadErrorKind> {
        match &bytes[MAGIC..MAGIC + 4] {
            b"n+2\0" | b"ni2\0" => Ok(Self { bytes, order }),
            other => Err(no_nifti("the magic `n+2` or `ni2`", format!("bytes {other:02x?}"))),
        }
    }

    /// The bytes that a file begins with.
    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.bytes
    }

    /// Byte order of its numbers.
    pub(super) fn order(&self) -> Endianness {
        self.order
    }

    /// What it says.
    pub(super) fn fields(&self) -> Fields {
        let datatype = i16::from_le_bytes(self.number(DATATYPE));
        // Codes mean what they mean in version 1, which the crate knows.
        let codes = ::nifti::NiftiHeader {
            datatype,
            xyzt_units: i32::from_le_bytes(self.number(XYZT_UNITS)) as u8,
            ..::nifti::NiftiHeader::default()
        };
        Fields {
            dim: std::array::from_fn(|axis| i64::from_le_bytes(self.number(DIM + 8 * axis))),
            datatype,
            data_type: codes.data_type().ok(),
            pixdim: self.reals(PIXDIM),
            vox_offset: i64::from_le_bytes(self.number(VOX_OFFSET)),
            scl_slope: f64::from_le_bytes(self.number(SCL_SLOPE)),
            scl_inter: f64::from_le_bytes(self.number(SCL_INTER)),
            unit: codes.xyzt_to_space().ok(),
            qform_code: i32::from_le_bytes(self.number(QFORM_CODE)),
            sform_code: i32::from_le_bytes(self.number(SFORM_CODE)),
            quatern: self.reals(QUATERN),
            qoffset: self.reals(QOFFSET),
            srow: std::array::from_fn(|row| self.reals(SROW + 32 * row)),
        }
    }

    /// Makes it the header of a single file of these voxels.
    pub(super) fn describe(&mut self, contents: &Contents) {
        for (axis, &extent) in contents.dim.iter().enumerate() {
            self.put(DIM + 8 * axis, (extent as i64).to_le_bytes());
        }
        self.put(DATATYPE, (contents.data_type as i16).to_le_bytes());
        self.put(BITPIX, contents.bits().to_le_bytes());
        self.put(VOX_OFFSET, ((LENGTH + NO_EXTENSION.len()) as i64).to_le_bytes());
        for (field, value) in [(SCL_SLOPE, 1.0_f64), (SCL_INTER, 0.0), (CAL_MAX, 0.0), (CAL_MIN, 0.0)] {
            self.put(field, value.to_le_bytes());
        }
        self.put(INTENT_CODE, 0_i32.to_le_bytes());
        self.bytes[MAGIC + 1] = b'+';
    }

    fn reals<const COUNT: usize>(&self, place: usize) -> [f64; COUNT] {
        std::array::from_fn(|index| f64::from_le_bytes(self.number(place + 8 * index)))
    }

    /// The bytes of a number in little-endian order.
    fn number<const WIDTH: usize>(&self, place: usize) -> [u8; WIDTH] {
        let mut number: [u8; WIDTH] = std::array::from_fn(|index| self.bytes[place + index]);
        if self.order == Endianness::Big {
            number.reverse();
        }
        number
    }

    /// Stores a number that is given in little-endian order.
    fn put<const WIDTH: usize>(&mut self, place: usize, mut number: [u8; WIDTH]) {
        if self.order == Endianness::Big {
            number.reverse();
        }
        self.bytes[place..place + WIDTH].copy_from_slice(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use ::nifti::{NiftiType, Unit};

    /// An image of 40000 x 3 x 4 voxels of 16 bits, in micrometres, half a millionth off the single precision of version 1.
    fn header(order: Endianness) -> Second {
        let mut header = Second { bytes: [7; LENGTH], order };
        header.bytes[MAGIC..MAGIC + 8].copy_from_slice(b"ni2\0\r\n\x1a\n");
        for (axis, extent) in [3_i64, 40_000, 3, 4, 1, 1, 1, 1].into_iter().enumerate() {
            header.put(DIM + 8 * axis, extent.to_le_bytes());
        }
        header.put(DATATYPE, 512_i16.to_le_bytes());
        header.put(XYZT_UNITS, 3_i32.to_le_bytes());
        header.put(PIXDIM + 8, 0.700_000_05_f64.to_le_bytes());
        header.put(SROW + 32 + 24, (-12.5_f64).to_le_bytes());
        header
    }

    #[test]
    fn fields_are_read_in_both_byte_orders_and_in_their_full_width() {
        for order in [Endianness::Little, Endianness::Big] {
            let fields = header(order).fields();
            let found = (fields.dim[1], fields.data_type, fields.unit, fields.pixdim[1], fields.srow[1][3]);
            let expected = (40_000, Some(NiftiType::Uint16), Some(Unit::Micron), 0.700_000_05, -12.5);
            assert_eq!(found, expected, "{order:?}");
        }
    }

    #[test]
    fn describing_other_voxels_changes_nothing_else() {
        for order in [Endianness::Little, Endianness::Big] {
            let before = header(order);
            let mut after = before.clone();
            after.describe(&Contents { dim: [3, 40_000, 3, 4, 1, 1, 1, 1], data_type: NiftiType::Uint8 });
            let changed: Vec<usize> = (0..LENGTH).filter(|&byte| before.bytes[byte] != after.bytes[byte]).collect();
            let described =
                [MAGIC + 1..MAGIC + 2, DATATYPE..DIM, VOX_OFFSET..CAL_MIN + 8, INTENT_CODE..INTENT_CODE + 4];
            assert!(changed.iter().all(|byte| described.iter().any(|field| field.contains(byte))), "{changed:?}");
        }
    }

    #[test]
    fn a_described_header_is_that_of_a_single_file_of_unscaled_voxels() {
        for order in [Endianness::Little, Endianness::Big] {
            let mut header = header(order);
            header.describe(&Contents { dim: [3, 40_000, 3, 4, 1, 1, 1, 1], data_type: NiftiType::Uint8 });
            let fields = header.fields();
            let found = (fields.datatype, fields.vox_offset, fields.scl_slope, fields.scl_inter);
            assert_eq!(
                (found, &header.bytes[MAGIC..MAGIC + 8]),
                ((2, 544, 1.0, 0.0), &b"n+2\0\r\n\x1a\n"[..]),
                "{order:?}"
            );
        }
    }
}
