//! The parts of a body: where they lie, how large they are, what they look like, and how all this varies.

use super::{Modality, noise::SmoothNoise, structure::Structure};
use crate::{augment::Dimension, random::CounterRandom};

/// Contrasts that every tissue has.
pub(super) const CONTRASTS: usize = 4;

/// What fills a structure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tissue {
    /// Intensity in each contrast: Hounsfield units, or a fraction of the brightest signal.
    pub(super) intensity: [f32; CONTRASTS],
    /// Amplitude of its texture, in the same unit.
    pub(super) texture: f32,
}

/// A tissue in both modalities.
struct Material {
    /// Fractions of the brightest signal in four contrasts, about T1, T2, FLAIR and proton density weighted.
    mr: [f32; CONTRASTS],
    /// Hounsfield units in the portal venous phase, without contrast agent, in the arterial and in a late phase.
    ct: [f32; CONTRASTS],
}

const FAT: Material = Material { mr: [0.90, 0.70, 0.55, 0.80], ct: [-98.0, -100.0, -100.0, -98.0] };
const MUSCLE: Material = Material { mr: [0.38, 0.20, 0.34, 0.50], ct: [64.0, 52.0, 60.0, 62.0] };
const MESENTERY: Material = Material { mr: [0.68, 0.52, 0.44, 0.70], ct: [-45.0, -55.0, -50.0, -45.0] };
const CORTICAL_BONE: Material = Material { mr: [0.10, 0.07, 0.10, 0.12], ct: [655.0, 650.0, 650.0, 655.0] };
const MARROW: Material = Material { mr: [0.72, 0.50, 0.40, 0.62], ct: [205.0, 190.0, 195.0, 200.0] };
const AIR: Material = Material { mr: [0.04, 0.04, 0.04, 0.04], ct: [-920.0, -920.0, -920.0, -920.0] };

/// The mean shape of an organ in the coordinates of the field of view, -1 to 1: y grows towards the back, x to the left.
pub(super) struct Organ {
    centre: [f32; 3],
    semi_axes: [f32; 3],
    boxiness: f32,
    material: Material,
}

/// The organs, in the order of their labels.
pub(super) const ORGANS: [Organ; 8] = [
    Organ {
        centre: [0.18, -0.06, -0.38],
        semi_axes: [0.38, 0.34, 0.31],
        boxiness: 0.3,
        material: Material { mr: [0.50, 0.34, 0.48, 0.56], ct: [112.0, 58.0, 75.0, 104.0] },
    },
    Organ {
        centre: [0.20, 0.10, 0.42],
        semi_axes: [0.36, 0.28, 0.23],
        boxiness: 0.1,
        material: Material { mr: [0.95, 0.50, 0.60, 0.62], ct: [132.0, 48.0, 125.0, 118.0] },
    },
    Organ {
        centre: [-0.42, 0.18, -0.32],
        semi_axes: [0.32, 0.23, 0.22],
        boxiness: 0.0,
        material: Material { mr: [0.27, 0.62, 0.68, 0.66], ct: [190.0, 32.0, 150.0, 178.0] },
    },
    Organ {
        centre: [-0.45, -0.20, 0.18],
        semi_axes: [0.28, 0.24, 0.26],
        boxiness: 0.4,
        material: Material { mr: [0.16, 0.92, 0.16, 0.78], ct: [14.0, 8.0, 8.0, 40.0] },
    },
    Organ {
        centre: [0.28, -0.30, 0.20],
        semi_axes: [0.24, 0.18, 0.20],
        boxiness: 0.2,
        material: Material { mr: [0.44, 0.44, 0.52, 0.46], ct: [80.0, 40.0, 62.0, 84.0] },
    },
    Organ {
        centre: [-0.36, 0.30, 0.40],
        semi_axes: [0.22, 0.15, 0.15],
        boxiness: 0.0,
        material: Material { mr: [0.46, 0.70, 0.58, 0.72], ct: [165.0, 36.0, 138.0, 150.0] },
    },
    Organ {
        centre: [0.0, 0.22, 0.04],
        semi_axes: [0.80, 0.10, 0.10],
        boxiness: 0.5,
        material: Material { mr: [0.12, 0.14, 0.22, 0.24], ct: [170.0, 42.0, 310.0, 145.0] },
    },
    Organ {
        centre: [-0.04, -0.10, 0.02],
        semi_axes: [0.14, 0.13, 0.22],
        boxiness: 0.3,
        material: Material { mr: [0.56, 0.40, 0.40, 0.52], ct: [98.0, 44.0, 105.0, 90.0] },
    },
];

/// Standard deviation of an organ's place, and how much its semi-axes vary.
const PLACE_DEVIATION: f64 = 0.035;
const SIZE_VARIATION: f64 = 0.15;

/// Largest angle in radians by which a structure is turned about each axis.
const LARGEST_TURN: f64 = 0.25;

/// A layer of fat lies around an organ, this many times as large as the organ.
const CAPSULE: f32 = 1.13;

/// The parts of one body, and how it is bent.
pub(super) struct Body {
    /// In the order in which they are drawn: what comes later lies in front.
    pub(super) structures: Vec<Structure>,
    /// The noise that deforms surfaces and shifts places.
    pub(super) noise: SmoothNoise,
    /// Amplitude of the shift of places, in the coordinates of the field of view.
    pub(super) warp: f32,
}

/// Draws structures of one body.
struct Artist<'a> {
    random: CounterRandom,
    dimension: Dimension,
    modality: Modality,
    structures: &'a mut Vec<Structure>,
}

impl Body {
    /// Draws a body with the first `labels` organs labelled; the first structure is the body's outline.
    pub(super) fn draw(random: &CounterRandom, dimension: Dimension, modality: Modality, labels: usize) -> Self {
        let mut structures = Vec::new();
        let mut artist = Artist { random: random.fork(1), dimension, modality, structures: &mut structures };
        artist.draw_trunk();
        artist.draw_distractors();
        // Organs without a label are there too, but do not hide those with one.
        for (index, organ) in ORGANS.iter().enumerate().skip(labels).chain(ORGANS.iter().enumerate().take(labels)) {
            artist.draw_organ(organ, if index < labels { index as u8 + 1 } else { 0 });
        }
        Self { structures, noise: SmoothNoise::draw(&mut random.fork(2)), warp: 0.05 }
    }
}

impl Artist<'_> {
    /// Skin and fat, muscle, the cavity in it, and the spine.
    fn draw_trunk(&mut self) {
        let (height, width) = (self.random.range(0.68, 0.80) as f32, self.random.range(0.78, 0.88) as f32);
        let wall = self.random.range(0.86, 0.92) as f32;
        let offset = self.place_in_noise();
        for (material, scale, depth, boxiness) in
            [(&FAT, 1.0, 0.86, 0.35), (&MUSCLE, wall, 0.845, 0.35), (&MESENTERY, wall - 0.14, 0.83, 0.45)]
        {
            let semi_axes = [depth, height * scale, width * scale];
            self.add(
                Shape { centre: [0.0; 3], semi_axes, boxiness, roughness: 0.05, detail: 2.0, offset },
                material,
                0,
            );
        }
        let centre = [0.0, height * 0.66, self.random.normal() as f32 * 0.02];
        for (material, scale) in [(&CORTICAL_BONE, 1.0), (&MARROW, 0.72)] {
            let semi_axes = [0.84, 0.13 * scale, 0.14 * scale];
            self.add(Shape { centre, semi_axes, boxiness: 0.6, roughness: 0.1, detail: 6.0, offset }, material, 0);
        }
    }

    /// What has the intensity of an organ but is none: muscles along the spine, loops of bowel, some of it filled with air.
    fn draw_distractors(&mut self) {
        for side in [-1.0, 1.0] {
            let centre = [0.0, 0.44 + self.jitter(), side * (0.26 + self.jitter())];
            let material = &ORGANS[self.random.below(ORGANS.len())].material;
            let shape = self.shape(centre, [0.85, 0.09, 0.12], 0.2);
            self.add(shape, material, 0);
        }
        for _ in 0..10 {
            let angle = self.random.range(0.0, std::f64::consts::TAU);
            let (along, radius) = (self.random.range(-0.75, 0.75) as f32, self.random.range(0.1, 0.55) as f32);
            let centre = [along, 0.75 * radius * angle.sin() as f32 - 0.1, radius * angle.cos() as f32];
            let size = self.random.range(0.06, 0.12) as f32;
            let material = &ORGANS[self.random.below(ORGANS.len())].material;
            let shape = self.shape(centre, [size * 1.4, size, size], 0.0);
            self.add(Shape { roughness: 0.3, ..shape }, material, 0);
            if self.random.chance(0.3) {
                // Air rises to the front of a body that lies on its back.
                let air = Shape {
                    centre: [centre[0], centre[1] - 0.3 * size, centre[2]],
                    semi_axes: [size * 0.7, size * 0.4, size * 0.5],
                    ..shape
                };
                self.add(air, &AIR, 0);
            }
        }
    }

    fn draw_organ(&mut self, organ: &Organ, label: u8) {
        let centre = organ.centre.map(|coordinate| coordinate + self.jitter());
        let shape = self.shape(centre, organ.semi_axes, organ.boxiness);
        let turn = std::array::from_fn(|_| self.random.range(-LARGEST_TURN, LARGEST_TURN));
        let capsule = Shape { semi_axes: shape.semi_axes.map(|axis| axis * CAPSULE), ..shape };
        self.add_turned(capsule, &MESENTERY, 0, turn);
        self.add_turned(shape, &organ.material, label, turn);
    }

    /// A shape with axes that vary about those given.
    fn shape(&mut self, centre: [f32; 3], semi_axes: [f32; 3], boxiness: f32) -> Shape {
        let semi_axes =
            semi_axes.map(|axis| axis * self.random.range(1.0 - SIZE_VARIATION, 1.0 + SIZE_VARIATION) as f32);
        Shape { centre, semi_axes, boxiness, roughness: 0.2, detail: 4.0, offset: self.place_in_noise() }
    }

    fn jitter(&mut self) -> f32 {
        (self.random.normal().clamp(-2.0, 2.0) * PLACE_DEVIATION) as f32
    }

    fn place_in_noise(&mut self) -> [f32; 3] {
        std::array::from_fn(|_| self.random.range(0.0, 16.0) as f32)
    }

    fn add(&mut self, shape: Shape, material: &Material, label: u8) {
        self.add_turned(shape, material, label, [0.0; 3]);
    }

    fn add_turned(&mut self, mut shape: Shape, material: &Material, label: u8, mut turn: [f64; 3]) {
        if self.dimension == Dimension::Two {
            // A slice cuts every structure through its middle.
            shape.centre[0] = 0.0;
            turn = [turn[0], 0.0, 0.0];
        }
        let tissue = self.tissue(material);
        self.structures.push(shape.into_structure(turn, tissue, label));
    }

    /// A material as this body has it: some per cent brighter or darker, in each contrast on its own.
    fn tissue(&mut self, material: &Material) -> Tissue {
        let random = &mut self.random;
        match self.modality {
            Modality::Mr => Tissue {
                intensity: material.mr.map(|value| value * (1.0 + 0.05 * random.normal().clamp(-2.0, 2.0) as f32)),
                texture: 0.035,
            },
            Modality::Ct => Tissue {
                intensity: material.ct.map(|value| value + 5.0 * random.normal().clamp(-2.0, 2.0) as f32),
                texture: 9.0,
            },
        }
    }
}

/// A structure without its tissue.
#[derive(Debug, Clone, Copy)]
struct Shape {
    centre: [f32; 3],
    semi_axes: [f32; 3],
    boxiness: f32,
    roughness: f32,
    detail: f32,
    offset: [f32; 3],
}

impl Shape {
    fn into_structure(self, turn: [f64; 3], tissue: Tissue, label: u8) -> Structure {
        let rotation = crate::spatial::Affine::rotation_scaling(turn, [1.0; 3]).rows();
        let to_unit =
            std::array::from_fn(|row| std::array::from_fn(|column| rotation[row][column] as f32 / self.semi_axes[row]));
        // A box is larger than the ellipsoid in it: its corners lie the root of 3 away.
        let largest = self.semi_axes.into_iter().fold(0.0, f32::max) * (1.0 + self.roughness) * 1.32;
        let turned = turn != [0.0; 3];
        let reach = self.semi_axes.map(|axis| if turned { largest } else { axis * (1.0 + self.roughness) * 1.05 });
        let Self { centre, boxiness, roughness, detail, offset, .. } = self;
        Structure { centre, to_unit, boxiness, roughness, offset, detail, reach, tissue, label }
    }
}
