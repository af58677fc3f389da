//! From a body to voxels.

use ndarray::{Array3, Array4};

use super::{
    Modality,
    anatomy::{Body, CONTRASTS},
    noise::{SmoothNoise, mix},
};
use crate::random::CounterRandom;

/// What surrounds a body, in Hounsfield units and as magnetic resonance sees it.
const AIR_OUTSIDE: f32 = -1000.0;
const NO_SIGNAL: f32 = 0.0;

/// Lattice steps across the field of view of the noise that shifts places, and of coarse and fine texture.
const WARP_DETAIL: f32 = 1.5;
const COARSE_TEXTURE: f32 = 9.0;
const FINE_TEXTURE: f32 = 31.0;

/// The image without the faults of taking it, and the labels.
pub(super) fn render(
    body: &Body,
    shape: [usize; 3],
    channels: usize,
    modality: Modality,
    random: &CounterRandom,
) -> (Array4<f32>, Array3<u8>) {
    let [depth, height, width] = shape;
    let surroundings = match modality {
        Modality::Mr => NO_SIGNAL,
        Modality::Ct => AIR_OUTSIDE,
    };
    let mut image = Array4::from_elem((channels, depth, height, width), surroundings);
    let mut labels = Array3::zeros((depth, height, width));
    let texture = SmoothNoise::draw(&mut random.fork(3));
    // Along an axis of one voxel nothing changes, so that the voxel has no extent in it.
    let voxel = shape.map(|extent| if extent == 1 { 0.0 } else { 2.0 / extent as f32 });
    for ((z, y, x), label) in labels.indexed_iter_mut() {
        let index = [z, y, x];
        let place = std::array::from_fn(|axis| (index[axis] as f32 + 0.5) * 2.0 / shape[axis] as f32 - 1.0);
        let mut values = [surroundings; CONTRASTS];
        *label = body.paint(place, voxel, &texture, &mut values);
        for (channel, value) in values.into_iter().enumerate().take(channels) {
            image[[channel, z, y, x]] = value;
        }
    }
    (image, labels)
}

impl Body {
    /// Mixes the tissues of a voxel into `values`, and returns its label.
    fn paint(&self, place: [f32; 3], voxel: [f32; 3], texture: &SmoothNoise, values: &mut [f32; CONTRASTS]) -> u8 {
        let warped = self.warped(place);
        let Some((outline, parts)) = self.structures.split_first() else { return 0 };
        let grain = self.grain(warped, texture);
        let inside = outline.coverage(warped, voxel, &self.noise);
        if inside == 0.0 {
            return 0;
        }
        let mut body = outline.tissue.intensity.map(|value| value + outline.tissue.texture * grain);
        let mut label = 0;
        for part in parts {
            let covered = part.coverage(warped, voxel, &self.noise);
            if covered > 0.0 {
                for (value, intensity) in body.iter_mut().zip(part.tissue.intensity) {
                    *value = mix(*value, intensity + part.tissue.texture * grain, covered);
                }
            }
            if covered >= 0.5 {
                label = part.label;
            }
        }
        for (value, body) in values.iter_mut().zip(body) {
            *value = mix(*value, body, inside);
        }
        if inside >= 0.5 { label } else { 0 }
    }

    /// Where the tissue at a place would be if the body were not bent.
    fn warped(&self, place: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|axis| {
            let from = std::array::from_fn(|other| place[other] * WARP_DETAIL + 5.0 * axis as f32 + 0.37);
            place[axis] + self.warp * self.noise.at(from)
        })
    }

    /// Texture at a place, mostly from -1 to 1.
    fn grain(&self, place: [f32; 3], texture: &SmoothNoise) -> f32 {
        let at = |detail: f32| texture.at(place.map(|coordinate| coordinate * detail));
        at(COARSE_TEXTURE) + at(FINE_TEXTURE)
    }
}
