//! TIFF: a page is a slice.
//!
//! As nnU-Net's readers: one page is a 2-D image with the spacing 999, 1, 1, colours are channels; several pages are a
//! volume of one channel, whose spacing a TIFF does not hold: 1 mm along each axis.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

use ndarray::{Array3, ArrayView4, Axis};
use nnflow_kernels::geometry::Spacing;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::encoder::{TiffEncoder, colortype};
use tiff::tags::{PhotometricInterpretation, PlanarConfiguration, Tag};
use tiff::{ColorType, TiffError};

use super::error::ReadErrorKind;
use super::geometry::{DUMMY_SPACING, Geometry};
use super::voxels::{StoredKind, Voxel};
use super::{Image, ImageHeader};

/// Bytes of pixels that one byte of a file can stand for at most (DEFLATE; the other codecs stay below).
const MOST_DECODED: u64 = 1032;

/// A file whose pages are all of one size.
struct Pages {
    decoder: Decoder<BufReader<File>>,
    width: usize,
    height: usize,
    channels: usize,
    /// True if the decoder has turned samples round, because 0 is to be shown as white.
    inverted: bool,
    /// Bytes that all pages together may take.
    available: u64,
}

/// Reads all pages.
pub(super) fn read_image(path: &Path) -> Result<Image, ReadErrorKind> {
    let mut pages = Pages::open(path)?;
    let mut values = Vec::new();
    let mut kind = None;
    let mut depth = 0;
    loop {
        let page = pages.read(values.len())?;
        kind = kind.or_else(|| stored_kind(&page));
        append(&mut values, page);
        depth += 1;
        if !pages.decoder.more_images() {
            break;
        }
        pages.next()?;
    }
    let Pages { width, height, channels, .. } = pages;
    let kind = kind.ok_or_else(|| malformed(&"half-precision samples"))?;
    let geometry = geometry(depth, height, width, channels)?;
    let count = values.len();
    let rows = Array3::from_shape_vec((depth * height, width, channels), values);
    let rows = rows.map_err(|_| ReadErrorKind::Memory { voxels: count })?;
    let planar = rows.permuted_axes([2, 0, 1]).as_standard_layout().into_owned();
    let voxels = planar.into_shape_with_order((channels, depth, height, width));
    let voxels = voxels.map_err(|_| ReadErrorKind::Memory { voxels: count })?;
    Ok(Image { voxels, geometry, kind, scaled: false })
}

/// Counts the pages and reads the first.
pub(super) fn read_header(path: &Path) -> Result<ImageHeader, ReadErrorKind> {
    let mut pages = Pages::open(path)?;
    let kind = stored_kind(&pages.read(0)?).ok_or_else(|| malformed(&"half-precision samples"))?;
    let mut depth = 1;
    while pages.decoder.more_images() {
        pages.next()?;
        depth += 1;
    }
    let geometry = geometry(depth, pages.height, pages.width, pages.channels)?;
    Ok(ImageHeader { channels: pages.channels, geometry, kind, scaled: false })
}

impl Pages {
    fn open(path: &Path) -> Result<Self, ReadErrorKind> {
        let file = File::open(path)?;
        let available = file.metadata()?.len().saturating_mul(MOST_DECODED);
        let mut limits = Limits::default();
        limits.decoding_buffer_size = usize::try_from(available).unwrap_or(usize::MAX);
        let decoder = Decoder::new(BufReader::new(file)).map_err(|error| malformed(&error))?;
        let mut pages =
            Self { decoder: decoder.with_limits(limits), width: 0, height: 0, channels: 0, inverted: false, available };
        (pages.width, pages.height, pages.channels) = pages.size()?;
        Ok(pages)
    }

    fn size(&mut self) -> Result<(usize, usize, usize), ReadErrorKind> {
        let (width, height) = self.decoder.dimensions().map_err(|error| malformed(&error))?;
        let channels = match self.decoder.colortype().map_err(|error| malformed(&error))? {
            ColorType::Gray(8..) => 1,
            ColorType::RGB(8..) => 3,
            ColorType::RGBA(8..) => 4,
            other => {
                return Err(ReadErrorKind::Unsupported {
                    what: format!("colours of type {other:?}"),
                    hint: "convert the file to grey values or to red, green and blue, of 8 bits or more",
                });
            }
        };
        let planar = self.tag(Tag::PlanarConfiguration)? == Some(PlanarConfiguration::Planar.to_u16().into());
        if planar && channels > 1 {
            return Err(ReadErrorKind::Unsupported {
                what: "colours in planes of their own".to_owned(),
                hint: "write the colours of a pixel side by side, or each channel as a file of its own",
            });
        }
        let white_is_zero = PhotometricInterpretation::WhiteIsZero.to_u16().into();
        self.inverted = self.tag(Tag::PhotometricInterpretation)? == Some(white_is_zero);
        Ok((width as usize, height as usize, channels))
    }

    fn tag(&mut self, tag: Tag) -> Result<Option<u32>, ReadErrorKind> {
        self.decoder.find_tag_unsigned(tag).map_err(|error| malformed(&error))
    }

    /// Goes to the next page, which must be like the first.
    fn next(&mut self) -> Result<(), ReadErrorKind> {
        self.decoder.next_image().map_err(|error| malformed(&error))?;
        let size = self.size()?;
        let expected = (self.width, self.height, self.channels);
        if size == expected { Ok(()) } else { Err(malformed(&format!("pages of {expected:?} and {size:?}"))) }
    }

    /// Decodes a page after `done` samples of others.
    fn read(&mut self, done: usize) -> Result<DecodingResult, ReadErrorKind> {
        let samples = (self.width as u64).saturating_mul(self.height as u64).saturating_mul(self.channels as u64);
        let expected = samples.saturating_add(done as u64);
        if expected > self.available {
            return Err(ReadErrorKind::Truncated { expected, found: self.available });
        }
        let page = self.decoder.read_image().map_err(|error| unreadable(&error))?;
        if self.inverted { stored_samples(page) } else { Ok(page) }
    }
}

/// Samples as the file stores them, which nnU-Net's readers take, of those that the decoder has turned round.
fn stored_samples(mut page: DecodingResult) -> Result<DecodingResult, ReadErrorKind> {
    match &mut page {
        DecodingResult::U8(samples) => samples.iter_mut().for_each(|sample| *sample = !*sample),
        DecodingResult::U16(samples) => samples.iter_mut().for_each(|sample| *sample = !*sample),
        DecodingResult::U32(samples) => samples.iter_mut().for_each(|sample| *sample = !*sample),
        DecodingResult::U64(samples) => samples.iter_mut().for_each(|sample| *sample = !*sample),
        _ => {
            return Err(ReadErrorKind::Unsupported {
                what: "signed or real numbers of which 0 is white".to_owned(),
                hint: "write the file with 0 as black (`photometric=minisblack`)",
            });
        }
    }
    Ok(page)
}

fn geometry(depth: usize, height: usize, width: usize, channels: usize) -> Result<Geometry, ReadErrorKind> {
    if depth > 1 && channels > 1 {
        return Err(ReadErrorKind::Unsupported {
            what: "a volume of colours".to_owned(),
            hint: "store each channel as a file of its own",
        });
    }
    let slices = if depth == 1 { DUMMY_SPACING } else { 1.0 };
    let spacing = Spacing::new([slices, 1.0, 1.0]).expect("invariant: the three distances are above 0");
    Ok(Geometry::new([depth, height, width], spacing))
}

fn stored_kind(page: &DecodingResult) -> Option<StoredKind> {
    Some(match page {
        DecodingResult::U8(_) => StoredKind::U8,
        DecodingResult::I8(_) => StoredKind::I8,
        DecodingResult::U16(_) => StoredKind::U16,
        DecodingResult::I16(_) => StoredKind::I16,
        DecodingResult::U32(_) => StoredKind::U32,
        DecodingResult::I32(_) => StoredKind::I32,
        DecodingResult::U64(_) => StoredKind::U64,
        DecodingResult::I64(_) => StoredKind::I64,
        DecodingResult::F32(_) => StoredKind::F32,
        DecodingResult::F64(_) => StoredKind::F64,
        DecodingResult::F16(_) => return None,
    })
}

fn append(values: &mut Vec<f32>, page: DecodingResult) {
    match page {
        DecodingResult::U8(samples) => values.extend(samples.into_iter().map(f32::from)),
        DecodingResult::I8(samples) => values.extend(samples.into_iter().map(f32::from)),
        DecodingResult::U16(samples) => values.extend(samples.into_iter().map(f32::from)),
        DecodingResult::I16(samples) => values.extend(samples.into_iter().map(f32::from)),
        DecodingResult::U32(samples) => values.extend(samples.into_iter().map(|sample| sample as f32)),
        DecodingResult::I32(samples) => values.extend(samples.into_iter().map(|sample| sample as f32)),
        DecodingResult::U64(samples) => values.extend(samples.into_iter().map(|sample| sample as f32)),
        DecodingResult::I64(samples) => values.extend(samples.into_iter().map(|sample| sample as f32)),
        DecodingResult::F32(samples) => values.extend(samples),
        DecodingResult::F64(samples) => values.extend(samples.into_iter().map(|sample| sample as f32)),
        DecodingResult::F16(samples) => values.extend(samples.into_iter().map(f32::from)),
    }
}

/// The error of the decoder: what it does not know, or what is wrong with the file.
fn unreadable(error: &TiffError) -> ReadErrorKind {
    match error {
        TiffError::UnsupportedError(_) => ReadErrorKind::Unsupported {
            what: format!("this TIFF file ({error})"),
            hint: "write it uncompressed or with `zlib` or `lzw`, as grey values of which 0 is black, or as red, green and blue",
        },
        other => malformed(other),
    }
}

fn malformed(found: &dyn std::fmt::Display) -> ReadErrorKind {
    ReadErrorKind::NotThisFormat {
        format: "TIFF",
        expected: "sound pages of one size".to_owned(),
        found: found.to_string(),
    }
}

/// The bytes of a file with one page a slice, or one page of colours.
pub(super) fn encode<T: Voxel>(voxels: ArrayView4<'_, T>, kind: StoredKind) -> Result<Vec<u8>, String> {
    let (channels, depth, height, width) = voxels.dim();
    let size = |extent: usize| u32::try_from(extent).map_err(|_| format!("{extent} pixels along an axis are too many"));
    let (width, height) = (size(width)?, size(height)?);
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).map_err(|error| error.to_string())?;
    for slice in voxels.axis_iter(Axis(1)) {
        let samples = || slice.permuted_axes([1, 2, 0]).into_iter().map(|voxel| voxel.to_f64().round_ties_even());
        let written: Result<(), TiffError> = match (channels, depth, kind) {
            (1, _, StoredKind::U8) => {
                encoder.write_image::<colortype::Gray8>(width, height, &samples().map(|v| v as u8).collect::<Vec<_>>())
            }
            (1, _, StoredKind::U16) => encoder.write_image::<colortype::Gray16>(
                width,
                height,
                &samples().map(|v| v as u16).collect::<Vec<_>>(),
            ),
            (3, 1, StoredKind::U8) => {
                encoder.write_image::<colortype::RGB8>(width, height, &samples().map(|v| v as u8).collect::<Vec<_>>())
            }
            _ => return Err(format!("expected slices of one channel of 8 or 16 bits, found {channels} of {kind:?}")),
        };
        written.map_err(|error| error.to_string())?;
    }
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{read_header, read_image, write_image};
    use ndarray::Array4;

    fn round_trip(shape: (usize, usize, usize, usize), kind: StoredKind) -> Image {
        let voxels = Array4::from_shape_fn(shape, |(c, z, y, x)| (90 * c + 40 * z + 5 * y + x) as f32);
        let spacing = Spacing::new([1.0; 3]).expect("positive");
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("object");
        write_image(&path, voxels.view(), &Geometry::new([shape.1, shape.2, shape.3], spacing), kind, ".tif")
            .expect("writes");
        let image = read_image(&path, "x.tif").expect("reads");
        assert_eq!(image.voxels, voxels);
        assert_eq!(read_header(&path, "x.tif").expect("reads").geometry, image.geometry);
        image
    }

    #[test]
    fn a_volume_comes_back_as_pages() {
        assert_eq!(round_trip((1, 3, 4, 5), StoredKind::U16).geometry.spacing.values(), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn one_page_is_a_flat_image() {
        assert_eq!(round_trip((1, 1, 4, 5), StoredKind::U8).geometry.spacing.values(), [999.0, 1.0, 1.0]);
    }

    #[test]
    fn colours_are_channels() {
        assert_eq!(round_trip((3, 1, 2, 2), StoredKind::U8).voxels.dim().0, 3);
    }

    #[test]
    fn samples_of_which_0_is_white_are_read_as_stored() {
        // 1, 2, 300, written by tifffile 2026.3.3 with `photometric="miniswhite"`, which reads the same numbers.
        const WHITE_IS_ZERO: [u8; 182] = [
            73, 73, 42, 0, 8, 0, 0, 0, 12, 0, 0, 1, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 1, 4, 0, 1, 0, 0, 0, 1, 0, 0, 0,
            2, 1, 3, 0, 1, 0, 0, 0, 16, 0, 0, 0, 3, 1, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 6, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0,
            0, 17, 1, 4, 0, 1, 0, 0, 0, 176, 0, 0, 0, 21, 1, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 22, 1, 4, 0, 1, 0, 0, 0, 1,
            0, 0, 0, 23, 1, 4, 0, 1, 0, 0, 0, 6, 0, 0, 0, 26, 1, 5, 0, 1, 0, 0, 0, 158, 0, 0, 0, 27, 1, 5, 0, 1, 0, 0,
            0, 166, 0, 0, 0, 40, 1, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0,
            0, 0, 0, 0, 1, 0, 2, 0, 44, 1,
        ];
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("object");
        std::fs::write(&path, WHITE_IS_ZERO).expect("writes");
        let image = read_image(&path, "x.tif").expect("reads");
        assert_eq!(image.voxels.iter().copied().collect::<Vec<_>>(), [1.0, 2.0, 300.0]);
    }

    #[test]
    fn mutated_files_never_panic() {
        let sound = encode(Array4::<f32>::zeros((1, 2, 3, 4)).view(), StoredKind::U16).expect("encodes");
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("mutated");
        arbtest::arbtest(|source| {
            let mut bytes = sound.clone();
            for _ in 0..source.int_in_range(1..=4)? {
                let place = source.choose_index(bytes.len())?;
                bytes[place] = source.arbitrary()?;
            }
            std::fs::write(&path, bytes).expect("writes");
            drop(read_image(&path, "x.tif"));
            Ok(())
        });
    }
}
