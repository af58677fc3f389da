//! From a body to voxels.

use ndarray::{Array3, Array4};

use super::{
    Modality,
    anatomy::{Body, CONTRASTS},
    noise::{SmoothNoise, mix},
    structure::Structure,
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
    let place = |axis: usize, index: usize| (index as f32 + 0.5) * 2.0 / shape[axis] as f32 - 1.0;
    for z in 0..depth {
        for y in 0..height {
            let row = [place(0, z), place(1, y)];
            let nearby = body.near_row(row, voxel);
            for x in 0..width {
                let mut values = [surroundings; CONTRASTS];
                labels[[z, y, x]] = body.paint([row[0], row[1], place(2, x)], voxel, &nearby, &texture, &mut values);
                for (channel, value) in values.into_iter().enumerate().take(channels) {
                    image[[channel, z, y, x]] = value;
                }
            }
        }
    }
    (image, labels)
}

impl Body {
    /// The structures that a row of voxels along x may meet, in the order in which they are drawn.
    fn near_row(&self, row: [f32; 2], voxel: [f32; 3]) -> Vec<&Structure> {
        let near = |structure: &&Structure| {
            (0..2).all(|axis| {
                (row[axis] - structure.centre[axis]).abs() <= structure.reach[axis] + voxel[axis] + self.warp
            })
        };
        // Without the body's outline there is nothing, even where the box around an organ sticks out of it.
        match self.structures.first() {
            Some(outline) if near(&outline) => self.structures.iter().filter(near).collect(),
            _ => Vec::new(),
        }
    }

    /// Mixes the tissues of a voxel into `values`, and returns its label; `nearby` starts with the body's outline.
    fn paint(
        &self,
        place: [f32; 3],
        voxel: [f32; 3],
        nearby: &[&Structure],
        texture: &SmoothNoise,
        values: &mut [f32; CONTRASTS],
    ) -> u8 {
        let Some((outline, parts)) = nearby.split_first() else { return 0 };
        let warped = self.warped(place);
        let inside = outline.coverage(warped, voxel, &self.noise);
        if inside == 0.0 {
            return 0;
        }
        let grain = self.grain(warped, texture);
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
