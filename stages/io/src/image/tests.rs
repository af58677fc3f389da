use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::Array3;
use nnflow_kernels::geometry::Spacing;
use tempfile::TempDir;

use super::*;

/// A NIfTI-1 file made by hand: little endian unless `big`, single file, 2 x 3 x 4 mm.
struct Nifti1 {
    bytes: Vec<u8>,
    big: bool,
}

impl Nifti1 {
    fn new(dims: &[i16], datatype: i16, bits: i16, big: bool) -> Self {
        let mut file = Self { bytes: vec![0; 352], big };
        file.put(0, 348_i32.to_le_bytes());
        file.put(40, (dims.len() as i16).to_le_bytes());
        for (axis, extent) in dims.iter().enumerate() {
            file.put(42 + 2 * axis, extent.to_le_bytes());
        }
        file.put(70, datatype.to_le_bytes());
        file.put(72, bits.to_le_bytes());
        for (index, size) in [1.0_f32, 2.0, 3.0, 4.0].into_iter().enumerate() {
            file.put(76 + 4 * index, size.to_le_bytes());
        }
        file.put(108, 352_f32.to_le_bytes());
        file.bytes[344..348].copy_from_slice(b"n+1\0");
        file
    }

    /// Writes a number given in little-endian order.
    fn put<const WIDTH: usize>(&mut self, offset: usize, mut number: [u8; WIDTH]) {
        if self.big {
            number.reverse();
        }
        self.bytes[offset..offset + WIDTH].copy_from_slice(&number);
    }

    fn scaled(mut self, slope: f32, intercept: f32) -> Self {
        self.put(112, slope.to_le_bytes());
        self.put(116, intercept.to_le_bytes());
        self
    }

    fn body(mut self, body: &[u8]) -> Vec<u8> {
        self.bytes.extend_from_slice(body);
        self.bytes
    }
}

fn i16_file(dims: &[i16]) -> Nifti1 {
    Nifti1::new(dims, 4, 16, false)
}

fn i16_body(count: i16) -> Vec<u8> {
    (0..count).flat_map(i16::to_le_bytes).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn stored(bytes: &[u8], name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("writes");
    (folder, path)
}

fn read_bytes(bytes: &[u8], name: &str) -> Result<Image, ReadErrorKind> {
    let (_folder, path) = stored(bytes, name);
    read_image(&path, name).map_err(|error| error.kind)
}

fn values(bytes: &[u8]) -> Vec<f32> {
    read_bytes(bytes, "x.nii").expect("reads").voxels.into_raw_vec_and_offset().0
}

#[test]
fn the_files_first_axis_is_our_last() {
    let image = read_bytes(&i16_file(&[3, 2, 2]).body(&i16_body(12)), "x.nii").expect("reads");
    // Stored number x + 3 y + 6 z.
    assert_eq!((image.voxels.dim(), image.voxels[[0, 1, 0, 2]]), ((1, 2, 2, 3), 8.0));
}

#[test]
fn spacing_is_in_the_order_of_our_axes() {
    let image = read_bytes(&i16_file(&[3, 2, 2]).body(&i16_body(12)), "x.nii").expect("reads");
    assert_eq!(image.geometry.spacing.values(), [4.0, 3.0, 2.0]);
}

#[test]
fn a_fourth_axis_is_channels() {
    let image = read_bytes(&i16_file(&[1, 1, 2, 3]).body(&i16_body(6)), "x.nii").expect("reads");
    assert_eq!((image.voxels.dim(), image.voxels[[2, 1, 0, 0]]), ((3, 2, 1, 1), 5.0));
}

#[test]
fn a_flat_image_is_one_slice_with_the_dummy_spacing() {
    let image = read_bytes(&i16_file(&[3, 2]).body(&i16_body(6)), "x.nii").expect("reads");
    assert_eq!((image.voxels.dim(), image.geometry.spacing[0]), ((1, 1, 2, 3), 2997.0));
}

#[test]
fn every_number_type_is_read_in_both_byte_orders() {
    macro_rules! check {
        ($($number:ty, $datatype:literal);* $(;)?) => {
            $(for big in [false, true] {
                let file = Nifti1::new(&[2, 1, 1], $datatype, 8 * size_of::<$number>() as i16, big);
                let numbers = [<$number>::MIN, 7 as $number];
                let body: Vec<u8> =
                    numbers.iter().flat_map(|n| if big { n.to_be_bytes() } else { n.to_le_bytes() }).collect();
                assert_eq!(values(&file.body(&body)), numbers.map(|n| n as f32), "{} {big}", stringify!($number));
            })*
        };
    }
    check! { u8, 2; i16, 4; i32, 8; f32, 16; f64, 64; i8, 256; u16, 512; u32, 768; i64, 1024; u64, 1280; }
}

#[test]
fn stored_numbers_are_scaled_in_double_precision() {
    let file = i16_file(&[2, 1, 1]).scaled(0.1, -0.3);
    let body: Vec<u8> = [-1045_i16, 3].iter().flat_map(|n| n.to_le_bytes()).collect();
    let (slope, intercept) = (f64::from(0.1_f32), f64::from(-0.3_f32));
    assert_eq!(values(&file.body(&body)), [-1045.0, 3.0].map(|n| (n * slope + intercept) as f32));
}

#[test]
fn a_slope_that_is_no_number_counts_as_one() {
    assert_eq!(values(&i16_file(&[2, 1, 1]).scaled(f32::NAN, f32::NAN).body(&i16_body(2))), [0.0, 1.0]);
}

#[test]
fn a_slope_of_zero_keeps_the_intercept_as_itk_does() {
    assert_eq!(values(&i16_file(&[2, 1, 1]).scaled(0.0, 5.0).body(&i16_body(2))), [5.0, 6.0]);
}

#[test]
fn colours_become_channels() {
    let file = Nifti1::new(&[2, 1, 1], 128, 24, false).body(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(values(&file), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn units_of_micrometres_become_millimetres() {
    let mut file = i16_file(&[1, 1, 1]);
    file.bytes[123] = 3;
    let image = read_bytes(&file.body(&i16_body(1)), "x.nii").expect("reads");
    assert_eq!(image.geometry.spacing.values(), [0.004, 0.003, 0.002]);
}

#[test]
fn a_spacing_of_zero_or_below_is_made_usable_as_itk_does() {
    let mut file = i16_file(&[1, 1, 1]);
    file.put(80, (-2_f32).to_le_bytes());
    file.put(84, 0_f32.to_le_bytes());
    file.put(88, f32::NAN.to_le_bytes());
    let image = read_bytes(&file.body(&i16_body(1)), "x.nii").expect("reads");
    assert_eq!(image.geometry.spacing.values(), [1.0, 1.0, 2.0]);
}

/// A file whose `sform` has the lengths of its sizes and the origin 5, 6, 7.
fn placed(sform_code: i16) -> Nifti1 {
    let mut file = i16_file(&[3, 2, 2]);
    file.put(254, sform_code.to_le_bytes());
    let rows = [2.0, 0.0, 0.0, 5.0, 0.0, 3.0, 0.0, 6.0, 0.0, 0.0, 4.0, 7.0_f32];
    for (entry, value) in rows.into_iter().enumerate() {
        file.put(280 + 4 * entry, value.to_le_bytes());
    }
    file
}

fn placement(file: Nifti1) -> ([f64; 3], [f64; 3]) {
    let Geometry { origin, direction, .. } = read_bytes(&file.body(&i16_body(12)), "x.nii").expect("reads").geometry;
    (origin, [direction[0], direction[4], direction[8]])
}

// What follows is what SimpleITK 2.5.7 reads from these files.

#[test]
fn the_origin_has_the_unit_of_the_spacing() {
    let mut file = placed(1);
    file.put(123, [1_u8]);
    assert_eq!(placement(file), ([-5000.0, -6000.0, 7000.0], [-1.0, -1.0, 1.0]));
}

#[test]
fn a_negative_size_turns_its_axis_round() {
    let mut file = placed(1);
    file.put(80, (-2.0_f32).to_le_bytes());
    assert_eq!(placement(file), ([-5.0, -6.0, 7.0], [1.0, -1.0, 1.0]));
}

#[test]
fn of_two_transforms_that_differ_by_rounding_only_the_finer_one_is_taken() {
    for (away, origin) in [(5e-5, f64::from(5.0_f32 + 5e-5)), (5e-4, 5.0)] {
        let mut file = placed(2);
        file.put(292, (5.0_f32 + away).to_le_bytes());
        file.put(252, 1_i16.to_le_bytes());
        for (entry, value) in [5.0, 6.0, 7.0_f32].into_iter().enumerate() {
            file.put(268 + 4 * entry, value.to_le_bytes());
        }
        assert_eq!(placement(file).0, [-origin, -6.0, 7.0]);
    }
}

#[test]
fn a_compressed_file_needs_no_gz_in_its_name() {
    let bytes = gzip(&i16_file(&[2, 1, 1]).body(&i16_body(2)));
    assert_eq!(values(&bytes), [0.0, 1.0]);
}

#[test]
fn an_uncompressed_file_may_have_gz_in_its_name() {
    let image = read_bytes(&i16_file(&[2, 1, 1]).body(&i16_body(2)), "x.nii.gz").expect("reads");
    assert_eq!(image.voxels.len(), 2);
}

#[test]
fn compression_in_several_members_is_read() {
    let bytes = i16_file(&[2, 1, 1]).body(&i16_body(2));
    let members = [gzip(&bytes[..100]), gzip(&bytes[100..355]), gzip(&bytes[355..])].concat();
    assert_eq!(values(&members), [0.0, 1.0]);
}

#[test]
fn zeros_behind_a_compressed_file_are_ignored() {
    let mut bytes = gzip(&i16_file(&[2, 1, 1]).body(&i16_body(2)));
    bytes.extend_from_slice(&[0; 512]);
    assert_eq!(values(&bytes), [0.0, 1.0]);
}

#[test]
fn a_wrong_checksum_is_noticed() {
    let mut bytes = gzip(&i16_file(&[2, 1, 1]).body(&i16_body(2)));
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    assert!(matches!(read_bytes(&bytes, "x.nii.gz"), Err(ReadErrorKind::Io(_))));
}

#[test]
fn a_file_cut_short_says_how_much_is_missing() {
    let error = read_bytes(&i16_file(&[2, 2, 2]).body(&i16_body(5)), "x.nii").expect_err("five of eight");
    assert_eq!(error.to_string(), "the file is cut short: expected 16 bytes of voxels, found 10");
}

#[test]
fn a_compressed_file_cut_short_is_an_error() {
    let bytes = gzip(&i16_file(&[10, 10, 10]).body(&i16_body(1000)));
    assert!(read_bytes(&bytes[..bytes.len() / 2], "x.nii.gz").is_err());
}

#[test]
fn extents_that_the_file_cannot_hold_are_refused_before_allocating() {
    let bytes = gzip(&i16_file(&[32767, 32767, 32767, 32767]).body(&i16_body(2)));
    assert!(matches!(read_bytes(&bytes, "x.nii.gz"), Err(ReadErrorKind::Truncated { .. })));
}

#[test]
fn analyze_is_refused_with_what_to_do() {
    let mut file = i16_file(&[1, 1, 1]);
    file.bytes[344..348].fill(0);
    let error = read_bytes(&file.body(&i16_body(1)), "x.nii").expect_err("no magic");
    assert!(error.to_string().starts_with("Analyze 7.5 is not supported; it cannot tell left from right"), "{error}");
}

/// Some of these numbers make the `nifti` crate take the file for one of the other byte order.
#[test]
fn a_number_of_axes_that_no_file_has_is_named_in_both_byte_orders() {
    for (big, rank) in [-1_i16, 0, 1, 8, 256, 300].into_iter().flat_map(|rank| [(false, rank), (true, rank)]) {
        let mut file = Nifti1::new(&[1, 1, 1], 4, 16, big);
        file.put(40, rank.to_le_bytes());
        let error = read_bytes(&file.body(&i16_body(1)), "x.nii").expect_err("no such rank");
        assert_eq!(error.to_string(), format!("header field `dim`: expected 2 to 7 axes, found `{rank}`"), "{big}");
    }
}

#[test]
fn a_negative_extent_is_refused() {
    let error = read_bytes(&i16_file(&[2, -3, 1]).body(&i16_body(6)), "x.nii").expect_err("an extent below 0");
    assert_eq!(error.to_string(), "header field `dim`: expected extents above 0, found `-3 for axis 2`");
}

#[test]
fn the_size_of_a_voxel_is_that_of_its_type_whatever_bitpix_says() {
    for bits in [i16::MIN, 0, 8, i16::MAX] {
        assert_eq!(values(&Nifti1::new(&[2, 1, 1], 4, bits, false).body(&i16_body(2))), [0.0, 1.0], "{bits}");
    }
}

#[test]
fn complex_numbers_are_refused() {
    let file = Nifti1::new(&[1, 1, 1], 32, 64, false).body(&[0; 8]);
    assert!(matches!(read_bytes(&file, "x.nii"), Err(ReadErrorKind::Unsupported { .. })));
}

#[test]
fn an_unknown_ending_lists_the_known_ones() {
    let error = read_image("x".as_ref(), "case.docx").expect_err("no format");
    assert!(
        error
            .to_string()
            .starts_with("cannot read image `case.docx`: no format has this ending: expected one of `.nii`")
    );
}

#[test]
fn a_fractional_label_is_named_with_its_place() {
    let file = i16_file(&[2, 1, 2]).scaled(0.5, 0.0).body(&i16_body(4));
    let (_folder, path) = stored(&file, "seg.nii");
    let error = read_labels(&path, "seg.nii").expect_err("halves");
    assert_eq!(
        error.to_string(),
        "cannot read image `seg.nii`: labels are whole numbers from -32768 to 32767, found `0.5` at voxel [0, 0, 1] \
         (z, y, x)"
    );
}

#[test]
fn a_label_that_is_no_number_is_refused() {
    let file = Nifti1::new(&[1, 1, 1], 16, 32, false).body(&f32::NAN.to_le_bytes());
    let (_folder, path) = stored(&file, "seg.nii");
    assert!(matches!(read_labels(&path, "seg.nii").map_err(|error| error.kind), Err(ReadErrorKind::LabelValue { .. })));
}

#[test]
fn labels_in_two_channels_are_refused() {
    let (_folder, path) = stored(&i16_file(&[1, 1, 1, 2]).body(&i16_body(2)), "seg.nii");
    let error = read_labels(&path, "seg.nii").map_err(|error| error.kind);
    assert!(matches!(error, Err(ReadErrorKind::LabelChannels { found: 2 })));
}

/// An oblique, flipped image whose transforms differ, with a description, as geometry and as the file's bytes.
fn oblique(big: bool) -> (Geometry, Vec<u8>) {
    let mut file = Nifti1::new(&[3, 2, 2], 4, 16, big).scaled(2.0, 1.0);
    file.bytes[148..158].copy_from_slice(b"scanner 42");
    file.bytes[123] = 2;
    file.put(252, 1_i16.to_le_bytes());
    file.put(254, 2_i16.to_le_bytes());
    let numbers = [0.1_f32, 0.2, 0.3, -5.0, 6.0, 7.5, -2.0, 0.1, 0.0, 9.0, 0.1, 2.9, 0.3, 8.0, 0.0, -0.3, 3.9, 7.0];
    for (index, number) in numbers.into_iter().enumerate() {
        file.put(256 + 4 * index, number.to_le_bytes());
    }
    file.put(76, (-1_f32).to_le_bytes());
    let bytes = file.body(&i16_body(12));
    let geometry = read_bytes(&bytes, "x.nii").expect("reads").geometry;
    (geometry, bytes)
}

fn labels(shape: [usize; 3], highest: u16) -> Array3<u16> {
    Array3::from_shape_fn(shape, |(z, y, x)| if (z, y, x) == (0, 0, 0) { highest } else { x as u16 })
}

/// Writes labels and gives the file's bytes.
fn written(labels: &Array3<u16>, geometry: &Geometry, ending: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("case.001");
    write_labels(&path, labels.view(), geometry, ending).expect("writes");
    std::fs::read(path).expect("reads")
}

/// Every field that says where voxels lie: `pixdim`, units, description, codes, quaternion, offsets, rows.
fn geometry_fields(header: &[u8]) -> Vec<u8> {
    [&header[76..108], &header[123..124], &header[148..228], &header[252..328]].concat()
}

#[test]
fn labels_keep_the_images_geometry_to_the_last_bit() {
    for big in [false, true] {
        let (geometry, bytes) = oblique(big);
        let file = written(&labels([2, 2, 3], 1), &geometry, ".nii");
        assert_eq!(geometry_fields(&file), geometry_fields(&bytes), "big endian: {big}");
    }
}

#[test]
fn labels_read_by_another_program_are_the_same() {
    use ::nifti::{IntoNdArray, NiftiObject};
    for big in [false, true] {
        let (geometry, _) = oblique(big);
        let expected = labels([2, 2, 3], 300);
        let (_folder, path) = stored(&written(&expected, &geometry, ".nii.gz"), "labels.nii.gz");
        let object = ::nifti::ReaderOptions::new().read_file(path).expect("another reader reads it");
        let found = object.into_volume().into_ndarray::<u16>().expect("volume");
        assert_eq!(found.reversed_axes().into_dimensionality().ok(), Some(expected), "big endian: {big}");
    }
}

#[test]
fn labels_below_255_take_8_bits() {
    let (geometry, _) = oblique(false);
    assert_eq!(written(&labels([2, 2, 3], 254), &geometry, ".nii")[70], 2);
}

#[test]
fn a_label_of_255_takes_16_bits() {
    let (geometry, _) = oblique(false);
    assert_eq!(written(&labels([2, 2, 3], 255), &geometry, ".nii")[70..72], [0, 2]);
}

#[test]
fn written_labels_are_not_scaled() {
    let (geometry, _) = oblique(false);
    let file = written(&labels([2, 2, 3], 1), &geometry, ".nii");
    assert_eq!((&file[112..116], &file[116..120]), (&1_f32.to_le_bytes()[..], &[0; 4][..]));
}

#[test]
fn a_geometry_survives_json() {
    let (geometry, _) = oblique(true);
    let text = serde_json::to_string(&geometry).expect("serialises");
    assert_eq!(serde_json::from_str::<Geometry>(&text).expect("parses"), geometry);
}

#[test]
fn a_geometry_with_half_a_header_is_refused() {
    let (geometry, _) = oblique(false);
    let text = serde_json::to_string(&geometry).expect("serialises").replace("\"nifti\":\"5c010000", "\"nifti\":\"5c");
    assert!(serde_json::from_str::<Geometry>(&text).is_err());
}

#[test]
fn labels_of_another_shape_are_refused() {
    let (geometry, _) = oblique(false);
    let error = write_labels("x.nii".as_ref(), labels([2, 3, 3], 1).view(), &geometry, ".nii").expect_err("3 rows");
    assert!(error.to_string().contains("expected an array of shape `[2, 2, 3]`"), "{error}");
}

#[test]
fn an_axis_beyond_the_formats_limit_is_refused() {
    let geometry = Geometry::new([1, 1, 40_000], Spacing::new([1.0; 3]).expect("positive"));
    let error = write_labels("x.nii".as_ref(), labels(geometry.shape, 1).view(), &geometry, ".nii").expect_err("wide");
    assert!(error.to_string().contains("at most 32767 voxels"), "{error}");
}

#[test]
fn a_geometry_of_our_own_is_read_back() {
    let (cosine, sine) = (0.8, 0.6);
    let geometry = Geometry {
        origin: [10.0, -20.0, 30.5],
        direction: [cosine, -sine, 0.0, sine, cosine, 0.0, 0.0, 0.0, -1.0],
        ..Geometry::new([2, 2, 3], Spacing::new([2.5, 0.5, 0.75]).expect("positive"))
    };
    let found = read_bytes(&written(&labels([2, 2, 3], 1), &geometry, ".nii.gz"), "x.nii.gz").expect("reads");
    assert_eq!(found.geometry.differences(&geometry), []);
}

#[test]
fn a_flat_image_stays_flat() {
    let flat = read_bytes(&i16_file(&[3, 2]).body(&i16_body(6)), "x.nii").expect("reads");
    let file = written(&labels([1, 2, 3], 1), &flat.geometry, ".nii");
    assert_eq!(file[40], 2);
}

#[test]
fn intensities_of_several_channels_come_back() {
    let geometry = Geometry::new([2, 3, 4], Spacing::new([1.0; 3]).expect("positive"));
    let voxels = Array4::from_shape_fn((2, 2, 3, 4), |(c, z, y, x)| (c * 1000 + z * 100 + y * 10 + x) as f32 - 0.25);
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("image");
    write_image(&path, voxels.view(), &geometry, StoredKind::F32, ".nii.gz").expect("writes");
    assert_eq!(read_image(&path, "image.nii.gz").expect("reads").voxels, voxels);
}

#[test]
fn intensities_are_rounded_half_to_even_and_kept_within_limits() {
    let geometry = Geometry::new([1, 1, 4], Spacing::new([1.0; 3]).expect("positive"));
    let voxels = Array4::from_shape_vec((1, 1, 1, 4), vec![0.5, 1.5, -1e9, 40_000.0]).expect("shape fits");
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("image.nii");
    write_image(&path, voxels.view(), &geometry, StoredKind::I16, ".nii").expect("writes");
    let found = read_image(&path, "image.nii").expect("reads").voxels.into_raw_vec_and_offset().0;
    assert_eq!(found, [0.0, 2.0, -32768.0, 32767.0]);
}

#[test]
fn the_same_labels_make_the_same_bytes() {
    let (geometry, _) = oblique(false);
    let labels = labels([2, 2, 3], 1);
    assert_eq!(written(&labels, &geometry, ".nii.gz"), written(&labels, &geometry, ".nii.gz"));
}

/// A disk with room for some bytes.
struct Disk {
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = bytes.len().min(self.room);
        self.room -= written;
        if written == 0 && !bytes.is_empty() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(written) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_noticed_wherever_it_fills_up() {
    let (geometry, _) = oblique(false);
    let labels = labels([2, 2, 3], 1);
    let voxels = labels.view().insert_axis(Axis(0));
    let header = nifti::header_for(&geometry, 1, StoredKind::U8).expect("header");
    for compressed in [false, true] {
        let needed = written(&labels, &geometry, if compressed { ".nii.gz" } else { ".nii" }).len();
        for room in 0..needed {
            let outcome = nifti::write(&mut Disk { room }, &header, voxels, StoredKind::U8, compressed);
            assert!(outcome.is_err(), "a disk with room for {room} of {needed} bytes went unnoticed");
        }
    }
}

#[test]
fn headers_of_any_content_never_panic() {
    arbtest::arbtest(|source| {
        let mut bytes = i16_file(&[2, 2, 2, 1]).body(&i16_body(8));
        for _ in 0..source.int_in_range(1..=12)? {
            let place = source.choose_index(352)?;
            bytes[place] = source.arbitrary()?;
        }
        if let Ok(image) = read_bytes(&bytes, "x.nii") {
            let text = serde_json::to_string(&image.geometry).expect("serialises");
            serde_json::from_str::<Geometry>(&text).expect("parses what was written");
        }
        Ok(())
    });
}
