//! Odd and broken files from public repositories, against what nibabel and SimpleITK read.
//!
//! The files are no part of this repository: `NNFLOW_DATA` names the folder that holds `robustness_nifti`.

use std::path::{Path, PathBuf};

use nnflow_io::image::{Geometry, Image, ReadError, StoredKind, read_header, read_image, write_image};
use serde_json::Value;

use crate::outside;

/// The folder of files and its manifest; `None`, with a message, where it is absent.
fn files() -> Option<(PathBuf, Vec<Value>)> {
    let folder = outside("NNFLOW_DATA", "data", "robustness_nifti")?;
    let manifest = nnflow_io::json::read(&folder.join("manifest.json")).expect("manifest");
    Some((folder, manifest))
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_default()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * (1.0 + expected.abs())
}

fn read(folder: &Path, entry: &Value) -> Result<Image, ReadError> {
    let name = text(entry, "file");
    read_image(&folder.join(name), name)
}

/// Runs a check on every file and reports all that fail it.
fn check_all(check: impl Fn(&Path, &Value) -> Result<(), String>) {
    let Some((folder, manifest)) = files() else { return };
    let failures: Vec<String> = manifest
        .iter()
        .filter_map(|entry| check(&folder, entry).err().map(|reason| format!("{}: {reason}", text(entry, "file"))))
        .collect();
    assert!(failures.is_empty(), "{} of {} files:\n{}", failures.len(), manifest.len(), failures.join("\n"));
}

/// What SimpleITK reads must be read, and what neither program reads must be refused.
#[test]
fn what_others_read_is_read_and_the_rest_refused() {
    check_all(|folder, entry| {
        let found = read(folder, entry);
        let nibabel_reads = entry["nib"].is_object() && entry["nib_error"].is_null() && entry["nib"]["mean"].is_f64();
        let refused_by_both = entry["nib_error"].is_string() && entry["sitk_error"].is_string();
        match found {
            Err(error) if nibabel_reads && !is_other_format(entry) => Err(format!("not read: {error}")),
            Ok(_) if refused_by_both => Err("read although nobody else does".to_owned()),
            _ => Ok(()),
        }
    });
}

/// FreeSurfer and CIFTI files lie among the others to be refused.
fn is_other_format(entry: &Value) -> bool {
    text(entry, "file").ends_with(".mgz")
}

#[test]
fn shapes_are_those_of_nibabel_backwards() {
    check_all(|folder, entry| {
        let (Ok(image), Value::Array(shape)) = (read(folder, entry), &entry["nib"]["shape"]) else { return Ok(()) };
        if entry["nib"]["mean"].is_null() {
            return Ok(());
        }
        let mut expected: Vec<usize> = shape.iter().filter_map(Value::as_u64).map(|extent| extent as usize).collect();
        expected.resize(expected.len().max(3), 1);
        let channels = expected.split_off(3).into_iter().product::<usize>();
        expected.push(channels);
        expected.reverse();
        let found = image.voxels.shape();
        if found == expected { Ok(()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
    });
}

#[test]
fn intensities_are_those_of_nibabel() {
    check_all(|folder, entry| {
        let (Ok(image), Some(mean)) = (read(folder, entry), entry["nib"]["mean"].as_f64()) else { return Ok(()) };
        let known: Vec<f64> =
            image.voxels.iter().filter(|value| value.is_finite()).map(|&value| f64::from(value)).collect();
        let found = [
            known.iter().copied().fold(f64::INFINITY, f64::min),
            known.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            known.iter().sum::<f64>() / known.len() as f64,
        ];
        let expected = [entry["nib"]["min"].as_f64(), entry["nib"]["max"].as_f64(), Some(mean)];
        let same = expected.iter().zip(found).all(|(expected, found)| {
            // nibabel's extremes are NaN where a voxel is; only the mean leaves such voxels out.
            expected.is_none_or(|expected| close(found, expected, 1e-6))
        });
        if same { Ok(()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
    });
}

/// The manifest rounds to five digits.
#[test]
fn spacing_is_that_of_simpleitk() {
    check_all(|folder, entry| {
        let name = text(entry, "file");
        let (Ok(header), Value::Object(itk)) = (read_header(&folder.join(name), name), &entry["sitk"]) else {
            return Ok(());
        };
        let spacing = header.geometry.spacing;
        let expected = numbers(&itk["spacing"]);
        let same = [2, 1, 0]
            .iter()
            .zip(&expected)
            .take(expected.len().min(3))
            .all(|(&axis, expected)| close(spacing[axis], *expected, 1e-5));
        if same { Ok(()) } else { Err(format!("expected {expected:?} (x, y, z), found {spacing:?}")) }
    });
}

#[test]
fn a_flat_image_has_the_dummy_spacing() {
    check_all(|folder, entry| {
        let name = text(entry, "file");
        let (Ok(header), 2) = (read_header(&folder.join(name), name), numbers(&entry["sitk"]["size"]).len()) else {
            return Ok(());
        };
        let spacing = header.geometry.spacing;
        let expected = 999.0 * spacing[1].max(spacing[2]);
        if spacing[0] == expected { Ok(()) } else { Err(format!("expected {expected}, found {}", spacing[0])) }
    });
}

#[test]
fn origin_and_direction_are_those_of_simpleitk() {
    check_all(|folder, entry| {
        let name = text(entry, "file");
        let (Ok(header), Value::Object(itk)) = (read_header(&folder.join(name), name), &entry["sitk"]) else {
            return Ok(());
        };
        let (origin, direction) = (numbers(&itk["origin"]), numbers(&itk["direction"]));
        let rank = origin.len();
        let same_origin =
            header.geometry.origin.iter().zip(&origin).all(|(found, expected)| close(*found, *expected, 1e-4));
        let same_direction = (0..rank.min(3).pow(2)).all(|entry| {
            let (row, column) = (entry / rank.min(3), entry % rank.min(3));
            close(header.geometry.direction[3 * row + column], direction[rank * row + column], 1e-4)
        });
        if same_origin && same_direction {
            return Ok(());
        }
        let Geometry { origin: found, direction: turned, .. } = header.geometry;
        Err(format!("expected {origin:?} {direction:?}, found {found:?} {turned:?}"))
    });
}

#[test]
fn written_again_every_file_keeps_geometry_and_voxels() {
    check_all(|folder, entry| {
        let Ok(image) = read(folder, entry) else { return Ok(()) };
        let target = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = target.path().join("again.nii.gz");
        write_image(&path, image.voxels.view(), &image.geometry, StoredKind::F32, ".nii.gz")
            .map_err(|error| error.to_string())?;
        let again = read_image(&path, "again.nii.gz").map_err(|error| error.to_string())?;
        if (again.geometry.origin, again.geometry.direction) != (image.geometry.origin, image.geometry.direction) {
            return Err("origin or direction changed".to_owned());
        }
        if again.geometry.spacing != image.geometry.spacing {
            return Err(format!("spacing: {:?}, then {:?}", image.geometry.spacing, again.geometry.spacing));
        }
        let same = image
            .voxels
            .iter()
            .zip(&again.voxels)
            .all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
        if same && image.voxels.dim() == again.voxels.dim() { Ok(()) } else { Err("voxels changed".to_owned()) }
    });
}

#[test]
fn mutated_files_never_panic() {
    let Some((folder, manifest)) = files() else { return };
    let target = tempfile::tempdir().expect("temporary folder");
    let small: Vec<&Value> =
        manifest.iter().filter(|entry| entry["bytes"].as_u64().is_some_and(|size| size < 50_000)).collect();
    arbtest::arbtest(|source| {
        let entry = source.choose(&small)?;
        let name = Path::new(text(entry, "file")).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut bytes = std::fs::read(folder.join(text(entry, "file"))).expect("readable");
        for _ in 0..source.int_in_range(1..=8)? {
            if !bytes.is_empty() {
                // Most of what can go wrong stands in the header.
                let most = if source.ratio(3, 4)? { bytes.len().min(352) } else { bytes.len() };
                let place = source.choose_index(most)?;
                bytes[place] = source.arbitrary()?;
            }
        }
        if source.ratio(1, 4)? {
            let length = source.int_in_range(0..=bytes.len())?;
            bytes.truncate(length);
        }
        let path = target.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        drop(read_header(&path, name));
        drop(read_image(&path, name));
        Ok(())
    });
}
