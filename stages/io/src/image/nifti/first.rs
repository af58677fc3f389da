//! The header of NIfTI-1: the `nifti` crate's, and the way back to its bytes.
//!
//! The crate tells the byte order by the number of axes alone, and takes extents for unsigned numbers; both are looked at
//! here before anyone trusts them. What it parses holds every byte of the file, but only its writer of whole files
//! could turn that into bytes again, so [`bytes`] does.

use std::io;

use ::nifti::header::MAGIC_CODE_NIP1;
use ::nifti::{Endianness, NiftiError, NiftiHeader};

use super::header::{Contents, Fields, NO_EXTENSION, no_nifti, wrong_rank};
use crate::image::error::ReadErrorKind;

/// Bytes of a header, which is also its first field.
pub(super) const LENGTH: usize = 348;
/// Where the magic stands.
const MAGIC: usize = 344;

/// Parses the header of a file whose first number is of this byte order.
pub(super) fn parse(bytes: &[u8; LENGTH], order: Endianness) -> Result<NiftiHeader, ReadErrorKind> {
    let header = NiftiHeader::from_reader(&bytes[..]).map_err(|error| match error {
        NiftiError::InvalidFormat => wrong_magic(&bytes[MAGIC..]),
        other => ReadErrorKind::Io(io::Error::other(other)),
    })?;
    if header.endianness != order {
        // A number of axes beyond 7, or 0, has led the crate to the other byte order.
        return Err(wrong_rank(header.dim[0].swap_bytes().cast_signed().into()));
    }
    Ok(header)
}

fn wrong_magic(found: &[u8]) -> ReadErrorKind {
    match found {
        [0, ..] => ReadErrorKind::Unsupported {
            what: "Analyze 7.5".to_owned(),
            hint: "it cannot tell left from right: convert it to NIfTI with the program that wrote it",
        },
        other => no_nifti("the magic `n+1` or `ni1`", format!("bytes {other:02x?}")),
    }
}

/// What a header says.
pub(super) fn fields(header: &NiftiHeader) -> Fields {
    let rows = [header.srow_x, header.srow_y, header.srow_z];
    Fields {
        dim: header.dim.map(|extent| extent.cast_signed().into()),
        datatype: header.datatype,
        data_type: header.data_type().ok(),
        pixdim: header.pixdim.map(f64::from),
        vox_offset: header.vox_offset as i64,
        scl_slope: header.scl_slope.into(),
        scl_inter: header.scl_inter.into(),
        unit: header.xyzt_to_space().ok(),
        qform_code: header.qform_code.into(),
        sform_code: header.sform_code.into(),
        quatern: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
        qoffset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
        srow: rows.map(|row| row.map(f64::from)),
    }
}

/// Makes it the header of a single file of these voxels.
pub(super) fn describe(header: &mut NiftiHeader, contents: &Contents) {
    header.dim = contents.dim.map(|extent| extent as u16);
    header.datatype = contents.data_type as i16;
    header.bitpix = contents.bits();
    header.vox_offset = (LENGTH + NO_EXTENSION.len()) as f32;
    (header.scl_slope, header.scl_inter) = (1.0, 0.0);
    (header.cal_max, header.cal_min) = (0.0, 0.0);
    header.intent_code = 0;
    header.magic = *MAGIC_CODE_NIP1;
}

/// The bytes that the header was parsed from.
pub(super) fn bytes(header: &NiftiHeader) -> Vec<u8> {
    let mut bytes = Bytes { written: Vec::with_capacity(LENGTH), order: header.endianness };
    bytes.integers(&[header.sizeof_hdr]);
    bytes.raw(&[&header.data_type[..], &header.db_name].concat());
    bytes.integers(&[header.extents]);
    bytes.shorts(&[header.session_error]);
    bytes.raw(&[header.regular, header.dim_info]);
    bytes.shorts(&header.dim.map(u16::cast_signed));
    bytes.reals(&[header.intent_p1, header.intent_p2, header.intent_p3]);
    bytes.shorts(&[header.intent_code, header.datatype, header.bitpix, header.slice_start]);
    bytes.reals(&header.pixdim);
    bytes.reals(&[header.vox_offset, header.scl_slope, header.scl_inter]);
    bytes.shorts(&[header.slice_end]);
    bytes.raw(&[header.slice_code, header.xyzt_units]);
    bytes.reals(&[header.cal_max, header.cal_min, header.slice_duration, header.toffset]);
    bytes.integers(&[header.glmax, header.glmin]);
    bytes.raw(&[&header.descrip[..], &header.aux_file].concat());
    bytes.shorts(&[header.qform_code, header.sform_code]);
    bytes.reals(&[header.quatern_b, header.quatern_c, header.quatern_d]);
    bytes.reals(&[header.quatern_x, header.quatern_y, header.quatern_z]);
    bytes.reals(&[header.srow_x, header.srow_y, header.srow_z].concat());
    bytes.raw(&[&header.intent_name[..], &header.magic].concat());
    bytes.written
}

/// Numbers one after the other, in one byte order.
struct Bytes {
    written: Vec<u8>,
    order: Endianness,
}

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
    }

    fn shorts(&mut self, numbers: &[i16]) {
        numbers.iter().for_each(|number| self.put(number.to_le_bytes()));
    }

    fn integers(&mut self, numbers: &[i32]) {
        numbers.iter().for_each(|number| self.put(number.to_le_bytes()));
    }

    fn reals(&mut self, numbers: &[f32]) {
        numbers.iter().for_each(|number| self.put(number.to_le_bytes()));
    }

    /// Appends a number that is given in little-endian order.
    fn put<const WIDTH: usize>(&mut self, mut number: [u8; WIDTH]) {
        if self.order == Endianness::Big {
            number.reverse();
        }
        self.raw(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes 348 bytes a header, in both byte orders.
    const SEALS: [(Endianness, [u8; 4], [u8; 2]); 2] =
        [(Endianness::Little, [0x5c, 1, 0, 0], [3, 0]), (Endianness::Big, [0, 0, 1, 0x5c], [0, 3])];

    fn header(content: [u8; LENGTH], length: [u8; 4], rank: [u8; 2]) -> [u8; LENGTH] {
        let mut bytes = content;
        bytes[..4].copy_from_slice(&length);
        bytes[40..42].copy_from_slice(&rank);
        bytes[MAGIC..].copy_from_slice(b"n+1\0");
        bytes
    }

    #[test]
    fn any_header_goes_back_to_its_bytes() {
        arbtest::arbtest(|source| {
            let content: [u8; LENGTH] = source.arbitrary()?;
            for (order, length, rank) in SEALS {
                let expected = header(content, length, rank);
                let parsed = parse(&expected, order).expect("a header");
                assert_eq!(bytes(&parsed), expected, "{order:?}");
            }
            Ok(())
        });
    }

    #[test]
    fn signalling_nans_go_back_to_their_bytes() {
        let (order, length, rank) = SEALS[0];
        let mut expected = header([0; LENGTH], length, rank);
        expected[76..80].copy_from_slice(&[1, 0, 0xa0, 0x7f]);
        assert_eq!(bytes(&parse(&expected, order).expect("a header")), expected);
    }
}
