use std::path::PathBuf;

use ndarray::{Array4, ArrayView4, s};
use tempfile::TempDir;

use super::*;

/// A folder and the path of an array in it.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("array.nna");
    (folder, path)
}

/// An array whose elements all differ, with the index as value.
fn ramp(shape: [usize; 4]) -> Array4<f32> {
    let count: usize = shape.iter().product();
    Array4::from_shape_vec(shape, (0..count).map(|index| index as f32).collect()).expect("shape fits")
}

fn written<T: Element>(array: ArrayView4<'_, T>, chunk: [usize; 4]) -> (TempDir, ArrayFile) {
    let (folder, path) = place();
    write_array(&path, array, &ArrayOptions { chunk: Some(chunk) }).expect("writes");
    let file = ArrayFile::open(&path).expect("opens");
    (folder, file)
}

fn kind_of(error: ArrayError) -> ArrayErrorKind {
    error.kind
}

#[test]
fn a_whole_array_comes_back() {
    let array = ramp([2, 5, 7, 11]);
    let (_folder, file) = written(array.view(), [1, 2, 3, 4]);
    assert_eq!(file.read_all::<f32>().expect("reads"), array);
}

#[test]
fn signs_and_nans_come_back_bit_by_bit() {
    let values = [0.0_f32, -0.0, f32::NAN, f32::NEG_INFINITY, f32::MIN_POSITIVE / 2.0, -1.5];
    let array = Array4::from_shape_vec((1, 1, 2, 3), values.to_vec()).expect("shape fits");
    let (_folder, file) = written(array.view(), [1, 1, 1, 2]);
    let found: Vec<u32> = file.read_all::<f32>().expect("reads").iter().map(|value| value.to_bits()).collect();
    assert_eq!(found, values.map(f32::to_bits));
}

#[test]
fn every_kind_comes_back() {
    fn round_trip<T: Element + PartialEq + std::fmt::Debug>(values: [T; 3]) {
        let array = Array4::from_shape_vec((1, 1, 1, 3), values.to_vec()).expect("shape fits");
        let (_folder, file) = written(array.view(), [1, 1, 1, 2]);
        assert_eq!((file.kind(), file.read_all::<T>().expect("reads")), (T::KIND, array));
    }
    round_trip([0_u8, 1, u8::MAX]);
    round_trip([i8::MIN, -1, i8::MAX]);
    round_trip([0_u16, 256, u16::MAX]);
    round_trip([i16::MIN, -1, i16::MAX]);
    round_trip([0_u32, 1 << 20, u32::MAX]);
    round_trip([i32::MIN, -1, i32::MAX]);
    round_trip([-1.5_f32, 0.0, f32::MAX]);
    round_trip([half::f16::MIN, half::f16::ZERO, half::f16::EPSILON]);
}

#[test]
fn a_view_that_is_not_contiguous_is_written_as_it_reads() {
    let array = ramp([1, 4, 5, 6]);
    let view = array.view().permuted_axes([0, 3, 1, 2]);
    let (_folder, file) = written(view, [1, 4, 4, 4]);
    assert_eq!(file.read_all::<f32>().expect("reads"), view);
}

#[test]
fn an_empty_array_comes_back() {
    let array = Array4::<u32>::zeros((1, 1, 0, 4));
    let (_folder, file) = written(array.view(), [1, 1, 8, 4]);
    assert_eq!(file.read_all::<u32>().expect("reads").dim(), (1, 1, 0, 4));
}

#[test]
fn a_box_past_the_border_is_filled() {
    let array = ramp([1, 2, 2, 2]);
    let (_folder, file) = written(array.view(), [1, 1, 1, 1]);
    let found = file.read_box(0..1, [-1, 1, 1], [2, 2, 2], -7.0_f32).expect("reads");
    let expected = [-7.0, -7.0, -7.0, -7.0, 3.0, -7.0, -7.0, -7.0];
    assert_eq!(found.into_raw_vec_and_offset().0, expected);
}

#[test]
fn a_box_outside_the_array_is_all_fill() {
    let array = ramp([1, 2, 2, 2]);
    let (_folder, file) = written(array.view(), [1, 2, 2, 2]);
    let found = file.read_box(0..1, [isize::MAX, isize::MIN, 5], [1, 2, 3], 9.0_f32).expect("reads");
    assert!(found.iter().all(|&value| value == 9.0));
}

#[test]
fn any_box_equals_the_same_part_of_the_array() {
    arbtest::arbtest(|source| {
        let mut extent = |most: usize| source.int_in_range(1..=most);
        let shape = [extent(3)?, extent(9)?, extent(9)?, extent(9)?];
        let chunk = [extent(2)?, extent(4)?, extent(4)?, extent(4)?];
        let array = ramp(shape);
        let (_folder, file) = written(array.view(), chunk);
        let first = source.int_in_range(0..=shape[0])?;
        let channels = first..source.int_in_range(first..=shape[0])?;
        let mut start = [0; 3];
        let mut size = [0; 3];
        for axis in 0..3 {
            start[axis] = source.int_in_range(-6..=12)?;
            size[axis] = source.int_in_range(0..=12)?;
        }
        let found = file.read_box(channels.clone(), start, size, -1.0_f32).expect("reads");
        for ((c, z, y, x), &value) in found.indexed_iter() {
            let place: Option<Vec<usize>> = [z, y, x]
                .into_iter()
                .zip(start)
                .map(|(offset, start)| usize::try_from(start + offset as isize).ok())
                .collect();
            let expected = place.and_then(|p| array.get((channels.start + c, p[0], p[1], p[2])).copied());
            assert_eq!(value, expected.unwrap_or(-1.0));
        }
        Ok(())
    });
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let array = ramp([2, 20, 20, 20]);
    let bytes = |threads: usize| {
        let (_folder, path) = place();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
        let options = ArrayOptions { chunk: Some([1, 4, 8, 16]) };
        pool.install(|| write_array(&path, array.view(), &options)).expect("writes");
        fs_err::read(&path).expect("reads")
    };
    assert_eq!(bytes(1), bytes(3));
}

#[test]
fn the_header_is_laid_out_as_documented() {
    let array = Array4::from_elem((1, 1, 1, 3), 0x0102_i16);
    let (_folder, path) = place();
    write_array(&path, array.view(), &ArrayOptions::default()).expect("writes");
    let bytes = fs_err::read(&path).expect("reads");
    let word = |offset: usize| u64::from_le_bytes(bytes[offset..][..8].try_into().expect("eight bytes"));
    assert_eq!(&bytes[..16], b"nnf-nna\n\x01\0\0\0\x03\0\0\0");
    assert_eq!([16, 24, 32, 40, 72, 80, 96].map(word), [1, 1, 1, 3, 3, 1, 112]);
    assert_eq!(&bytes[112..], [2, 2, 2, 1, 1, 1]);
}

#[test]
fn another_kind_is_refused() {
    let (_folder, file) = written(ramp([1, 1, 1, 2]).view(), [1; 4]);
    let error = file.read_all::<i16>().expect_err("these are floats");
    assert!(matches!(kind_of(error), ArrayErrorKind::Kind { expected: ElementKind::I16, found: ElementKind::F32 }));
}

#[test]
fn a_channel_that_is_not_there_is_refused() {
    let (_folder, file) = written(ramp([2, 1, 1, 2]).view(), [1; 4]);
    let error = file.read_box(1..3, [0; 3], [1; 3], 0.0_f32).expect_err("two channels");
    assert!(matches!(kind_of(error), ArrayErrorKind::Channels { channels: 2, start: 1, stop: 3 }));
}

#[test]
fn a_box_larger_than_memory_is_refused() {
    let (_folder, file) = written(ramp([1, 1, 1, 2]).view(), [1; 4]);
    let error = file.read_box(0..1, [0; 3], [usize::MAX, 2, 2], 0.0_f32).expect_err("too large");
    assert!(matches!(kind_of(error), ArrayErrorKind::TooLarge { .. }));
}

#[test]
fn a_missing_file_is_an_error_with_its_name() {
    let error = ArrayFile::open("/nonexistent.nna".as_ref()).expect_err("missing");
    assert_eq!(error.to_string(), "cannot use array `/nonexistent.nna`: the file cannot be read");
}

/// Opens and reads whatever the bytes are; true if both succeed.
fn reads(bytes: &[u8]) -> bool {
    let (_folder, path) = place();
    fs_err::write(&path, bytes).expect("writes");
    ArrayFile::open(&path).and_then(|file| file.read_all::<f32>()).is_ok()
}

/// A small file with compressed and raw chunks.
fn sound_file() -> Vec<u8> {
    let mut array = ramp([1, 4, 8, 16]);
    array.slice_mut(s![.., 2.., .., ..]).fill(1.0);
    let (_folder, path) = place();
    write_array(&path, array.view(), &ArrayOptions { chunk: Some([1, 1, 8, 16]) }).expect("writes");
    fs_err::read(&path).expect("reads")
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sound = sound_file();
    for place in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[place] ^= 1 << (place % 8);
        assert!(!reads(&bytes), "a flipped bit in byte {place} went unnoticed");
    }
}

#[test]
fn every_truncation_is_noticed() {
    let sound = sound_file();
    for length in (0..sound.len()).step_by(7) {
        assert!(!reads(&sound[..length]), "a file cut to {length} bytes was read");
    }
}

#[test]
fn appended_bytes_are_noticed() {
    let mut bytes = sound_file();
    bytes.push(0);
    assert!(!reads(&bytes));
}

/// Bytes of a file with this header whose checksum is right, and an index of one entry.
fn forged(header: &format::Header, size: u32) -> Vec<u8> {
    let mut bytes = header.encode(&[format::Entry { offset: 112, size, checksum: format::crc32(&[0; 4]) }]);
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

#[test]
fn a_chunk_that_cannot_hold_what_it_declares_is_refused() {
    let extents = [1, 512, 512, 512];
    let header = format::Header { kind: ElementKind::F32, shape: extents, chunk: extents };
    assert!(!reads(&forged(&header, 4)));
}

#[test]
fn a_shape_beyond_the_address_space_is_refused() {
    let header = format::Header { kind: ElementKind::F32, shape: [1 << 40; 4], chunk: [1 << 40; 4] };
    assert!(!reads(&forged(&header, 4)));
}

#[test]
fn an_empty_file_is_no_array() {
    assert!(!reads(b""));
}

#[test]
fn an_array_in_slabs_makes_the_same_file_as_the_whole() {
    let array = ramp([3, 7, 5, 11]);
    for chunk in [[1, 2, 3, 4], [2, 7, 5, 11], [3, 1, 1, 1]] {
        let options = ArrayOptions { chunk: Some(chunk) };
        let ((_one, whole), (_other, slabs)) = (place(), place());
        write_array(&whole, array.view(), &options).expect("writes");
        write_array_in_slabs(&slabs, [3, 7, 5, 11], &options, |channels, slices| {
            Ok::<_, ArrayError>(array.slice(s![channels, slices, .., ..]).to_owned())
        })
        .expect("writes");
        assert_eq!(std::fs::read(slabs).expect("reads"), std::fs::read(whole).expect("reads"), "{chunk:?}");
    }
}

#[test]
fn a_slab_that_cannot_be_made_leaves_no_file() {
    let (folder, path) = place();
    let kind = || ArrayErrorKind::Channels { channels: 1, start: 2, stop: 3 };
    let failed = write_array_in_slabs::<f32, _>(&path, [3, 4, 5, 6], &ArrayOptions::default(), |_, _| {
        Err(ArrayError { path: PathBuf::new(), kind: kind() })
    });
    assert!(matches!(kind_of(failed.expect_err("no slab")), ArrayErrorKind::Channels { start: 2, .. }));
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
}
