//! Reading the files of a case.

use std::io::ErrorKind;

use ndarray::{Array3, Array4, s};
use nnflow_io::dataset::read_spacing;
use nnflow_io::image::{Geometry, Image, ReadError, ReadErrorKind, read_image, read_labels};
use nnflow_kernels::geometry::Spacing;
use nnflow_stage::{Artifact, FileRef};

use super::check::{Findings, compare_grids};
use crate::sources::{LABEL_SPACING, SPACING};

/// First part of the name of the label image.
const LABEL: &str = "label.";
/// What to do about a file that ends early or whose compressed data are damaged.
const COPY_AGAIN: &str = "copy or export damaged files again";

/// The files of a case, told apart by their names.
pub(super) struct CaseFiles<'a> {
    channels: Vec<&'a FileRef>,
    label: Option<&'a FileRef>,
    /// Distances between voxels, for volumes of a format without.
    spacing: Option<Spacing>,
    /// As `spacing`, of the label image.
    label_spacing: Option<Spacing>,
}

impl<'a> CaseFiles<'a> {
    /// Sorts the files of the artifact.
    pub(super) fn of(artifact: &'a Artifact, findings: &mut Findings) -> Self {
        let named = |name: &str| artifact.files.iter().find(|file| file.name == name);
        let mut spacing_of = |name: &str| {
            let file = named(name)?;
            let spacing = read_spacing(&file.path);
            spacing.map_err(|error| findings.problem(format!("its spacing cannot be used: {error}"))).ok()
        };
        let (spacing, label_spacing) = (spacing_of(SPACING), spacing_of(LABEL_SPACING));
        let label = artifact.files.iter().find(|file| file.name.starts_with(LABEL));
        let is_image =
            |file: &&FileRef| !file.name.starts_with(LABEL) && ![SPACING, LABEL_SPACING].contains(&file.name.as_str());
        let mut channels: Vec<&FileRef> = artifact.files.iter().filter(is_image).collect();
        channels.sort_by(|first, second| first.name.cmp(&second.name));
        for (number, file) in channels.iter().enumerate() {
            let expected = format!("{number:04}.");
            if !file.name.starts_with(&expected) {
                findings.problem(format!("expected an image file `{expected}…`, found `{}`", file.name));
            }
        }
        Self { channels, label, spacing, label_spacing: label_spacing.or(spacing) }
    }
}

/// The channels of all image files, one after the other, and the grid of the first file; none if a file cannot be read or
/// does not fit the others.
pub(super) fn read_channels(
    files: &CaseFiles<'_>,
    expected: usize,
    findings: &mut Findings,
) -> Option<(Array4<f32>, Geometry)> {
    let mut stack: Option<Stack> = None;
    let mut complete = true;
    for (number, file) in files.channels.iter().enumerate() {
        let image = match read_image(&file.path, &file.name) {
            Ok(image) => Image { geometry: spaced(image.geometry, files.spacing), ..image },
            Err(error) => {
                tell_unreadable(&format!("image file {number}"), file, &error, findings);
                complete = false;
                continue;
            }
        };
        match &mut stack {
            None => stack = Some(Stack::new(image, expected)),
            Some(stack) => complete &= stack.add(number, &image, findings),
        }
    }
    let found = stack.as_ref().map_or(0, |stack| stack.filled);
    if complete && found != expected {
        let names: Vec<&str> = files.channels.iter().map(|file| file.name.as_str()).collect();
        let names = names.join("`, `");
        findings.problem(format!("`dataset.json` names {expected} channels, the image files (`{names}`) hold {found}"));
        return None;
    }
    stack.filter(|_| complete).map(|stack| (stack.voxels, stack.geometry))
}

/// A volume's grid with the distances that a file beside it gives; a slice keeps its own, as in nnU-Net.
fn spaced(geometry: Geometry, spacing: Option<Spacing>) -> Geometry {
    match spacing {
        Some(spacing) if geometry.shape[0] > 1 => Geometry { spacing, ..geometry },
        _ => geometry,
    }
}

/// Channels one after the other, in an array that is made once.
struct Stack {
    voxels: Array4<f32>,
    geometry: Geometry,
    filled: usize,
}

impl Stack {
    fn new(first: Image, expected: usize) -> Self {
        let (channels, depth, height, width) = first.voxels.dim();
        if channels >= expected {
            return Self { voxels: first.voxels, geometry: first.geometry, filled: channels };
        }
        let mut voxels = Array4::zeros((expected, depth, height, width));
        voxels.slice_mut(s![..channels, .., .., ..]).assign(&first.voxels);
        Self { voxels, geometry: first.geometry, filled: channels }
    }

    /// Adds the channels of a further file; says whether it could.
    fn add(&mut self, number: usize, image: &Image, findings: &mut Findings) -> bool {
        compare_grids(&format!("image file {number}"), &image.geometry, &self.geometry, findings);
        if image.voxels.shape()[1..] != self.voxels.shape()[1..] {
            return false;
        }
        let first = self.filled;
        self.filled += image.voxels.dim().0;
        if self.filled <= self.voxels.dim().0 {
            self.voxels.slice_mut(s![first..self.filled, .., .., ..]).assign(&image.voxels);
        }
        true
    }
}

/// The label image.
pub(super) fn read_label(files: &CaseFiles<'_>, findings: &mut Findings) -> Option<(Array3<i16>, Geometry)> {
    let Some(file) = files.label else {
        findings.problem_with_hint(
            "it has no label image".to_owned(),
            "add it to `labelsTr`; for cases that are only to be predicted, set `labels = \"none\"`",
        );
        return None;
    };
    match read_labels(&file.path, &file.name) {
        Ok((label, geometry)) => Some((label, spaced(geometry, files.label_spacing))),
        Err(error) => {
            tell_unreadable("the label image", file, &error, findings);
            None
        }
    }
}

/// Tells what is wrong with a file, with the path that a person can look at.
fn tell_unreadable(what: &str, file: &FileRef, error: &ReadError, findings: &mut Findings) {
    let path = file.path.display();
    match &error.kind {
        _ if file.bytes == 0 => findings.problem_with_hint(format!("{what} (`{path}`) is empty"), COPY_AGAIN),
        ReadErrorKind::Io(cause) if cause.kind() == ErrorKind::NotFound => {
            findings.problem(format!("{what} (`{path}`) is not there"));
        }
        ReadErrorKind::Io(cause) => {
            findings.problem_with_hint(format!("{what} (`{path}`) cannot be read: {cause}"), COPY_AGAIN);
        }
        kind => findings.problem(format!("{what} (`{path}`) cannot be used: {kind}")),
    }
}
