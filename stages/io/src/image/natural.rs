//! PNG and BMP: 2-D images `[c, 1, y, x]`, colours as channels.
//!
//! As nnU-Net's `NaturalImage2DIO`: spacing 999, 1, 1; red, green, blue (and alpha) as channels; values as stored, of 8
//! or 16 bits. A PNG of one bit has the values 0 and 1. A colour that a PNG declares to be transparent makes no channel.

use std::io::{BufRead, BufReader, Cursor};
use std::path::Path;

use fs_err as fs;
use image::codecs::bmp::{BmpDecoder, BmpEncoder};
use image::codecs::png::{PngDecoder, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder};
use ndarray::{Array3, ArrayView4, Axis, s};
use nnflow_kernels::geometry::Spacing;

use super::error::ReadErrorKind;
use super::format::ImageFormat;
use super::geometry::{DUMMY_SPACING, Geometry};
use super::voxels::{StoredKind, Voxel};
use super::{Image, ImageHeader};

/// Bytes of pixels that one byte of a file can stand for at most (DEFLATE; run lengths of BMP stay below).
const MOST_DECODED: u64 = 1032;

/// An opened file.
struct Opened {
    decoder: Box<dyn ImageDecoder>,
    /// True if the decoder gives 255 for a bit that is set.
    one_bit: bool,
    /// Channels that the file stores: the first of those that the decoder makes of them.
    channels: usize,
}

impl Opened {
    /// What the file says.
    fn summary(&self) -> ImageHeader {
        let (width, height) = self.decoder.dimensions();
        let colour = self.decoder.color_type();
        let wide = colour.bytes_per_pixel() > colour.channel_count();
        let spacing = Spacing::new([DUMMY_SPACING, 1.0, 1.0]).expect("invariant: the three distances are above 0");
        ImageHeader {
            channels: self.channels,
            geometry: Geometry::new([1, height as usize, width as usize], spacing),
            kind: if wide { StoredKind::U16 } else { StoredKind::U8 },
            scaled: false,
        }
    }
}

/// Reads an image.
pub(super) fn read_image(path: &Path, name: &str) -> Result<Image, ReadErrorKind> {
    let opened = open(path, name)?;
    let ImageHeader { channels, geometry, kind, scaled } = opened.summary();
    let Opened { decoder, one_bit, .. } = opened;
    let decoded = usize::from(decoder.color_type().channel_count());
    let [_, height, width] = geometry.shape;
    let pixels = DynamicImage::from_decoder(decoder).map_err(|error| malformed(name, &error))?;
    let mut values = samples(&pixels);
    if one_bit {
        values.iter_mut().for_each(|value| *value /= 255.0);
    }
    let count = values.len();
    let interleaved = Array3::from_shape_vec((height, width, decoded), values)
        .map_err(|_| ReadErrorKind::Memory { voxels: count })?;
    let stored = interleaved.slice_move(s![.., .., ..channels]);
    let planar = stored.permuted_axes([2, 0, 1]).insert_axis(Axis(1));
    Ok(Image { voxels: planar.as_standard_layout().into_owned(), geometry, kind, scaled })
}

/// Reads what the header says.
pub(super) fn read_header(path: &Path, name: &str) -> Result<ImageHeader, ReadErrorKind> {
    Ok(open(path, name)?.summary())
}

/// Opens a file and checks that it can hold the pixels that it declares.
fn open(path: &Path, name: &str) -> Result<Opened, ReadErrorKind> {
    let file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let reader = BufReader::new(file);
    let opened = match ImageFormat::of(name)? {
        ImageFormat::Bmp => open_bmp(reader),
        _ => open_png(reader),
    };
    let opened = opened.map_err(|error| malformed(name, &error))?;
    let available = length.saturating_mul(MOST_DECODED);
    let expected = opened.decoder.total_bytes();
    if expected > available {
        return Err(ReadErrorKind::Truncated { expected, found: available });
    }
    Ok(opened)
}

fn open_png(mut reader: BufReader<fs::File>) -> Result<Opened, image::ImageError> {
    // Bits per sample and colour type are bytes 24 and 25 of every PNG; types with alpha have the bit of 4.
    let kind = reader.fill_buf()?.get(24..26).map(|kind| [kind[0], kind[1]]);
    let (one_bit, opaque) = (kind == Some([1, 0]), kind.is_some_and(|[_, colour]| colour & 4 == 0));
    let decoder = PngDecoder::new(reader)?;
    let colour = decoder.color_type();
    // The decoder makes alpha of a colour that is declared to be transparent.
    let channels = usize::from(colour.channel_count()) - usize::from(opaque && colour.has_alpha());
    Ok(Opened { decoder: Box::new(decoder), one_bit, channels })
}

/// Grey bitmaps have a palette; where it maps each index to itself, or two indices to black and white, indices are the
/// values, as Pillow takes them.
fn open_bmp(reader: BufReader<fs::File>) -> Result<Opened, image::ImageError> {
    let decoder = BmpDecoder::new(reader)?;
    // The decoder fills up to 256 colours with black.
    let padded = decoder.get_palette().unwrap_or_default();
    let palette = &padded[..padded.iter().rposition(|colour| *colour != [0; 3]).map_or(0, |last| last + 1)];
    let one_bit = *palette == [[0; 3], [255; 3]];
    let is_identity = |(index, colour): (usize, &[u8; 3])| colour.iter().all(|&value| usize::from(value) == index);
    let is_grey = one_bit || (!palette.is_empty() && palette.iter().enumerate().all(is_identity));
    let channels = if is_grey { 1 } else { usize::from(decoder.color_type().channel_count()) };
    Ok(Opened { decoder: Box::new(decoder), one_bit, channels })
}

/// Samples of all pixels, the channels of a pixel side by side.
fn samples(pixels: &DynamicImage) -> Vec<f32> {
    let narrow = |samples: &[u8]| samples.iter().map(|&sample| f32::from(sample)).collect();
    let wide = |samples: &[u16]| samples.iter().map(|&sample| f32::from(sample)).collect();
    match pixels {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => wide(bytemuck::cast_slice(pixels.as_bytes())),
        _ => narrow(pixels.as_bytes()),
    }
}

fn malformed(name: &str, error: &image::ImageError) -> ReadErrorKind {
    ReadErrorKind::NotThisFormat {
        format: if name.to_ascii_lowercase().ends_with("bmp") { "BMP" } else { "PNG" },
        expected: "a sound image".to_owned(),
        found: error.to_string(),
    }
}

/// The bytes of a file with one slice of 1, 3 or 4 channels.
pub(super) fn encode<T: Voxel>(voxels: ArrayView4<'_, T>, kind: StoredKind, ending: &str) -> Result<Vec<u8>, String> {
    let (channels, depth, height, width) = voxels.dim();
    if depth != 1 {
        return Err(format!("a 2-D format holds one slice, found {depth}"));
    }
    let size = |extent: usize| u32::try_from(extent).map_err(|_| format!("{extent} pixels along an axis are too many"));
    let (width, height) = (size(width)?, size(height)?);
    let colour = colour_type(channels, kind)?;
    let pixels = pixel_bytes(voxels, kind);
    let mut file = Vec::new();
    let written = match ImageFormat::of(ending).map_err(|error| error.to_string())? {
        ImageFormat::Bmp => BmpEncoder::new(&mut file).write_image(&pixels, width, height, colour),
        _ => PngEncoder::new(Cursor::new(&mut file)).write_image(&pixels, width, height, colour),
    };
    written.map_err(|error| error.to_string())?;
    Ok(file)
}

fn colour_type(channels: usize, kind: StoredKind) -> Result<ExtendedColorType, String> {
    match (channels, kind) {
        (1, StoredKind::U8) => Ok(ExtendedColorType::L8),
        (3, StoredKind::U8) => Ok(ExtendedColorType::Rgb8),
        (4, StoredKind::U8) => Ok(ExtendedColorType::Rgba8),
        (1, StoredKind::U16) => Ok(ExtendedColorType::L16),
        (3, StoredKind::U16) => Ok(ExtendedColorType::Rgb16),
        (4, StoredKind::U16) => Ok(ExtendedColorType::Rgba16),
        _ => Err(format!("expected 1, 3 or 4 channels of 8 or 16 bits, found {channels} of {kind:?}")),
    }
}

/// Samples in the order of a file in memory: the channels of a pixel side by side, in the machine's byte order.
fn pixel_bytes<T: Voxel>(voxels: ArrayView4<'_, T>, kind: StoredKind) -> Vec<u8> {
    let interleaved = voxels.permuted_axes([1, 2, 3, 0]);
    let rounded = interleaved.iter().map(|voxel| voxel.to_f64().round_ties_even());
    match kind {
        StoredKind::U16 => rounded.flat_map(|value| (value as u16).to_ne_bytes()).collect(),
        _ => rounded.map(|value| value as u8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{read_image, read_labels, write_image, write_labels};
    use ndarray::{Array3 as Volume, Array4};

    /// Pixels 1 0 1 / 0 1 1 in one bit, written by Pillow.
    const ONE_BIT: [u8; 69] = [
        137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 181, 15,
        91, 183, 0, 0, 0, 12, 73, 68, 65, 84, 120, 218, 99, 88, 192, 44, 0, 0, 1, 250, 0, 180, 200, 8, 15, 14, 0, 0, 0,
        0, 73, 69, 78, 68, 174, 66, 96, 130,
    ];
    /// Pixels 1 2000 65535 in 16 bits, written by Pillow.
    const WIDE: [u8; 72] = [
        137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 3, 0, 0, 0, 1, 16, 0, 0, 0, 0, 110, 27,
        151, 43, 0, 0, 0, 15, 73, 68, 65, 84, 120, 218, 99, 96, 96, 100, 191, 240, 255, 63, 0, 5, 149, 2, 215, 123,
        236, 126, 95, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
    ];
    /// Colours (1, 2, 3) (4, 5, 6), written by Pillow.
    const COLOURS: [u8; 72] = [
        137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 2, 0, 0, 0, 1, 8, 2, 0, 0, 0, 123, 64,
        232, 221, 0, 0, 0, 15, 73, 68, 65, 84, 120, 218, 99, 100, 100, 98, 102, 102, 102, 6, 0, 0, 60, 0, 17, 108, 5,
        250, 161, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
    ];
    /// Three pixels of a palette with (10, 20, 30) and (40, 50, 60), written by Pillow.
    const PALETTE: [u8; 85] = [
        137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 3, 0, 0, 0, 1, 1, 3, 0, 0, 0, 33, 46,
        134, 247, 0, 0, 0, 6, 80, 76, 84, 69, 10, 20, 30, 40, 50, 60, 213, 27, 180, 233, 0, 0, 0, 10, 73, 68, 65, 84,
        120, 218, 99, 72, 0, 0, 0, 98, 0, 97, 28, 16, 3, 127, 0, 0, 0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
    ];

    fn read(bytes: &[u8]) -> Image {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("object");
        std::fs::write(&path, bytes).expect("writes");
        read_image(&path, "x.png").expect("reads")
    }

    fn values(image: &Image) -> Vec<f32> {
        image.voxels.iter().copied().collect()
    }

    fn grid(height: usize, width: usize) -> Geometry {
        Geometry::new([1, height, width], Spacing::new([DUMMY_SPACING, 1.0, 1.0]).expect("positive"))
    }

    #[test]
    fn one_bit_is_zero_or_one() {
        assert_eq!(values(&read(&ONE_BIT)), [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn sixteen_bits_are_read_as_stored() {
        assert_eq!(values(&read(&WIDE)), [1.0, 2000.0, 65535.0]);
    }

    #[test]
    fn colours_are_channels() {
        let image = read(&COLOURS);
        assert_eq!((image.voxels.dim(), values(&image)), ((3, 1, 1, 2), vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }

    #[test]
    fn a_palette_is_colours() {
        assert_eq!(values(&read(&PALETTE)), [10.0, 40.0, 40.0, 20.0, 50.0, 50.0, 30.0, 60.0, 60.0]);
    }

    #[test]
    fn a_transparent_colour_is_no_channel() {
        // (1, 2, 3), which is transparent, and (4, 5, 6), written by Pillow; scikit-image 0.26.0 reads three channels.
        const TRANSPARENT: [u8; 90] = [
            137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 2, 0, 0, 0, 1, 8, 2, 0, 0, 0, 123,
            64, 232, 221, 0, 0, 0, 6, 116, 82, 78, 83, 0, 1, 0, 2, 0, 3, 201, 75, 171, 245, 0, 0, 0, 15, 73, 68, 65,
            84, 120, 156, 99, 100, 100, 98, 102, 102, 102, 6, 0, 0, 60, 0, 17, 213, 126, 70, 230, 0, 0, 0, 0, 73, 69,
            78, 68, 174, 66, 96, 130,
        ];
        let image = read(&TRANSPARENT);
        assert_eq!((image.voxels.dim(), values(&image)), ((3, 1, 1, 2), vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }

    #[test]
    fn a_bitmap_of_one_bit_is_zero_or_one() {
        // 1, 0, 1, written by Pillow.
        const BITS: [u8; 66] = [
            66, 77, 66, 0, 0, 0, 0, 0, 0, 0, 62, 0, 0, 0, 40, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0,
            4, 0, 0, 0, 196, 14, 0, 0, 196, 14, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 0, 160, 0, 0,
            0,
        ];
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("object");
        std::fs::write(&path, BITS).expect("writes");
        assert_eq!(values(&read_image(&path, "x.bmp").expect("reads")), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn the_spacing_is_nnunets() {
        assert_eq!(read(&WIDE).geometry.spacing.values(), [999.0, 1.0, 1.0]);
    }

    #[test]
    fn labels_come_back_from_both_formats() {
        for (ending, highest) in [(".png", 2), (".png", 300), (".bmp", 2)] {
            let labels = Volume::from_shape_fn((1, 2, 3), |(_, y, x)| if x == 1 { highest } else { y as u16 });
            let folder = tempfile::tempdir().expect("temporary folder");
            let path = folder.path().join("labels");
            write_labels(&path, labels.view(), &grid(2, 3), ending).expect("writes");
            let (found, _) = read_labels(&path, ending).expect("reads");
            assert_eq!(found, labels.mapv(|label| label as i16), "{ending}, labels up to {highest}");
        }
    }

    #[test]
    fn a_colour_image_comes_back() {
        let voxels = Array4::from_shape_fn((3, 1, 2, 2), |(c, _, y, x)| (100 * c + 10 * y + x) as f32);
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("image");
        write_image(&path, voxels.view(), &grid(2, 2), StoredKind::U8, ".png").expect("writes");
        assert_eq!(read_image(&path, ".png").expect("reads").voxels, voxels);
    }

    #[test]
    fn a_volume_is_refused() {
        let geometry = Geometry::new([2, 1, 1], Spacing::new([1.0; 3]).expect("positive"));
        let labels = Volume::zeros((2, 1, 1));
        let error = write_labels("x.png".as_ref(), labels.view(), &geometry, ".png").expect_err("two slices");
        assert!(error.to_string().ends_with("a 2-D format holds one slice, found 2"), "{error}");
    }

    #[test]
    fn mutated_files_never_panic() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("mutated");
        arbtest::arbtest(|source| {
            let mut bytes = source.choose(&[&ONE_BIT[..], &WIDE[..], &COLOURS[..], &PALETTE[..]])?.to_vec();
            for _ in 0..source.int_in_range(1..=4)? {
                let place = source.choose_index(bytes.len())?;
                bytes[place] = source.arbitrary()?;
            }
            std::fs::write(&path, bytes).expect("writes");
            drop(read_image(&path, "x.png"));
            drop(read_image(&path, "x.bmp"));
            Ok(())
        });
    }
}
