//! Files in the page cache, each with the bytes of voxels that it holds.
//!
//! `cargo xtask bench --kernels`; docs/benchmarks.md says how to read what it prints.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::BytesCount;
use flate2::read::MultiGzDecoder;
use ndarray::{Array4, Axis};
use nnflow_bench::{SHAPE, SPACING, image};
use nnflow_cache::hash_file;
use nnflow_io::array::{ArrayFile, ArrayOptions, write_array};
use nnflow_io::image::{Geometry, StoredKind, read_image, write_image};
use nnflow_kernels::geometry::Spacing;
use tempfile::TempDir;

/// Runs of each benchmark.
const RUNS: u32 = 10;

/// Voxels along each axis of a patch, and how many are read in a run.
const PATCH: [usize; 3] = [128, 128, 128];
const PATCHES: usize = 8;

/// Largest step between the corners of patches, in voxels.
const STEPS: [usize; 3] = [8, 16, 16];

fn main() {
    divan::Divan::from_args().sample_count(RUNS).sample_size(1).main();
}

/// An image in several formats, in a folder that goes with it.
struct Files {
    folder: TempDir,
    image: Array4<f32>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("the benchmarks need a temporary folder");
        Self { folder, image: image(SHAPE).insert_axis(Axis(0)) }
    }

    /// Bytes of the voxels as `f32`.
    fn bytes(&self) -> BytesCount {
        BytesCount::new(4 * self.image.len())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn nifti(&self) -> PathBuf {
        let path = self.path("image.nii.gz");
        let spacing = Spacing::new(SPACING).expect("invariant: spacings are positive");
        write_image(&path, self.image.view(), &Geometry::new(SHAPE, spacing), StoredKind::I16, ".nii.gz")
            .expect("the image can be written");
        path
    }

    fn array(&self) -> PathBuf {
        let path = self.path("image.nna");
        write_array(&path, self.image.view(), &ArrayOptions::default()).expect("the array can be written");
        path
    }
}

fn decompress(path: &Path) -> io::Result<u64> {
    io::copy(&mut MultiGzDecoder::new(BufReader::new(File::open(path)?)), &mut io::sink())
}

/// The limit of `nifti_read`: the decoder of gzip alone. It is one stream, so that one thread has to do it.
#[divan::bench]
fn a_gunzip(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let path = files.nifti();
    bencher.counter(files.bytes()).bench_local(|| decompress(&path));
}

#[divan::bench]
fn nifti_read(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let path = files.nifti();
    bencher.counter(files.bytes()).bench_local(|| read_image(&path, "image.nii.gz"));
}

#[divan::bench]
fn array_write(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let path = files.path("written.nna");
    bencher.counter(files.bytes()).bench_local(|| write_array(&path, files.image.view(), &ArrayOptions::default()));
}

#[divan::bench]
fn array_read(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let file = ArrayFile::open(&files.array()).expect("the array was just written");
    bencher.counter(files.bytes()).bench_local(|| file.read_all::<f32>());
}

/// What training reads: patches at places that do not fit the chunks.
#[divan::bench]
fn patch_read(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let file = ArrayFile::open(&files.array()).expect("the array was just written");
    let start = |patch: usize| STEPS.map(|step| (patch * step) as isize);
    bencher.counter(BytesCount::new(4 * PATCHES * PATCH.iter().product::<usize>())).bench_local(|| {
        (0..PATCHES).map(|patch| file.read_box::<f32>(0..1, start(patch), PATCH, 0.0)).collect::<Vec<_>>()
    });
}

/// The limit of `hash`: reading the file.
#[divan::bench]
fn a_read(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let path = files.array();
    let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    bencher.counter(BytesCount::new(bytes)).bench_local(|| fs::read(&path));
}

#[divan::bench]
fn hash(bencher: Bencher<'_, '_>) {
    let files = Files::new();
    let path = files.array();
    let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
    bencher.counter(BytesCount::new(bytes)).bench_local(|| hash_file(&path));
}
