//! Smooth random fields.

use crate::random::CounterRandom;

/// Nodes along an axis, after which a field repeats; a power of two.
const PERIOD: usize = 16;

/// A random number at each node of a lattice, and a smooth transition between them (value noise, Perlin 1985).
pub(super) struct SmoothNoise {
    nodes: Vec<f32>,
}

impl SmoothNoise {
    pub(super) fn draw(random: &mut CounterRandom) -> Self {
        Self { nodes: (0..PERIOD * PERIOD * PERIOD).map(|_| random.range(-1.0, 1.0) as f32).collect() }
    }

    /// The field at a position in lattice steps, from -1 to 1.
    pub(super) fn at(&self, position: [f32; 3]) -> f32 {
        let axes = position.map(|coordinate| {
            // Shifted by whole periods into the positive numbers, where cutting off is rounding down.
            let shifted = coordinate + 64.0 * PERIOD as f32;
            let node = shifted as i32;
            let fraction = shifted - node as f32;
            let before = node as usize % PERIOD;
            (before, (before + 1) % PERIOD, fraction * fraction * (3.0 - 2.0 * fraction))
        });
        let [(z0, z1, fz), (y0, y1, fy), (x0, x1, fx)] = axes;
        let along_x = |z: usize, y: usize| {
            let row = (z * PERIOD + y) * PERIOD;
            mix(self.nodes[row + x0], self.nodes[row + x1], fx)
        };
        let slice = |z: usize| mix(along_x(z, y0), along_x(z, y1), fy);
        mix(slice(z0), slice(z1), fz)
    }
}

pub(super) fn mix(from: f32, to: f32, fraction: f32) -> f32 {
    from + fraction * (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_passes_through_its_nodes() {
        let noise = SmoothNoise::draw(&mut CounterRandom::new(1, [0; 3]));
        assert_eq!(noise.at([2.0, 3.0, 4.0]), noise.nodes[(2 * PERIOD + 3) * PERIOD + 4]);
        assert_eq!(noise.at([-14.0, 19.0, 4.0]), noise.nodes[(2 * PERIOD + 3) * PERIOD + 4]);
    }

    #[test]
    fn a_field_has_no_jumps() {
        let noise = SmoothNoise::draw(&mut CounterRandom::new(2, [0; 3]));
        let line: Vec<f32> = (0..4000).map(|step| noise.at([0.3, -1.7, step as f32 * 0.01 - 20.0])).collect();
        // A smooth step between -1 and 1 is nowhere steeper than 1.5 times 2.
        assert!(line.windows(2).all(|pair| (pair[1] - pair[0]).abs() < 0.031));
    }
}
