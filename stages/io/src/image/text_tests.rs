//! What the tests of MetaImage and NRRD share.

use ndarray::Array4;
use nnflow_kernels::geometry::Spacing;

use super::{Geometry, Image, ReadError, StoredKind, read_header, read_image, write_image};

/// The grid of the files that SimpleITK wrote.
pub(super) fn expected_geometry() -> Geometry {
    Geometry {
        origin: [5.0, 6.0, 7.5],
        direction: [0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0],
        ..Geometry::new([2, 2, 3], Spacing::new([4.0, 3.0, 2.0]).expect("positive"))
    }
}

/// Writes files into a folder of their own and reads the first.
pub(super) fn read(files: &[(&str, &[u8])]) -> Result<Image, ReadError> {
    let folder = tempfile::tempdir().expect("temporary folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("writes");
    }
    read_image(&folder.path().join(files[0].0), files[0].0)
}

/// Writes images of one and of two channels and reads them back.
pub(super) fn round_trip(ending: &str) {
    for (channels, kind) in [(1, StoredKind::I16), (2, StoredKind::F32), (1, StoredKind::U8)] {
        let voxels = Array4::from_shape_fn((channels, 2, 2, 3), |(c, z, y, x)| (100 * c + 20 * z + 5 * y + x) as f32);
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("object");
        write_image(&path, voxels.view(), &expected_geometry(), kind, ending).expect("writes");
        let found = read_image(&path, ending).expect("reads");
        assert_eq!((found.kind, found.voxels), (kind, voxels));
        assert_eq!(found.geometry.differences(&expected_geometry()), []);
    }
}

/// Writes labels onto the grid of a 2-D image and reads them back.
pub(super) fn flat_round_trip(ending: &str) -> Vec<u8> {
    let spacing = Spacing::new([999.0 * 3.0, 3.0, 2.0]).expect("positive");
    let geometry = Geometry { origin: [5.0, 6.0, 0.0], ..Geometry::new([1, 2, 3], spacing) };
    let voxels = Array4::from_shape_fn((1, 1, 2, 3), |(_, _, y, x)| (3 * y + x) as f32);
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("object");
    write_image(&path, voxels.view(), &geometry, StoredKind::U8, ending).expect("writes");
    let found = read_image(&path, ending).expect("reads");
    assert_eq!((found.voxels, found.geometry), (voxels, geometry));
    std::fs::read(&path).expect("was written")
}

/// Reads files with some bytes changed, most of them in the header.
pub(super) fn mutate(name: &str, sound: &[u8]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join(name);
    arbtest::arbtest(|source| {
        let mut bytes = sound.to_vec();
        for _ in 0..source.int_in_range(1..=6)? {
            let place = source.choose_index(bytes.len())?;
            if source.ratio(1, 2)? {
                bytes[place] = *source.choose(b"0123456789 -.:(),=\n\x00")?;
            } else {
                bytes[place] = source.arbitrary()?;
            }
        }
        std::fs::write(&path, bytes).expect("writes");
        drop(read_header(&path, name));
        drop(read_image(&path, name));
        Ok(())
    });
}
