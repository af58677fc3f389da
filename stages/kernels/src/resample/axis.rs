//! Interpolation along one axis, sixteen lines at a time.
//!
//! The lines of a block are interleaved, so that the recursion of the spline's filter, which cannot be vectorised along
//! a line, is vectorised across lines. Samples are `f64` within a block and `f32` between axes.

use std::ops::Range;

use ndarray::{ArrayViewMut2, Axis};

use super::Order;

/// Lines in a block: a cache line of `f32`.
pub(super) const LANES: usize = 16;
/// Samples of the repeated edge on each side that the taps of an order can reach.
const EDGE: usize = 2;
/// The cubic B-spline's filter: its pole `√3 - 2` and its gain `(1 - z)(1 - 1/z)` (Unser 1999, box 2).
const POLE: f64 = -0.267_949_192_431_122_7;
const GAIN: f64 = 6.0;

/// The same sample of each line of a block.
pub(super) type Samples = [f64; LANES];

/// Where sample `k` of `m` lies among `n` samples.
pub(super) fn coordinate(k: usize, n: usize, m: usize) -> f64 {
    (k as f64 + 0.5) * (n as f64 / m as f64) - 0.5
}

/// For each of `m` samples the nearest of `n` samples; halves go up.
pub(super) fn nearest_indices(n: usize, m: usize) -> Vec<usize> {
    let last = (n - 1) as f64;
    (0..m).map(|k| (coordinate(k, n, m).clamp(0.0, last) + 0.5).floor() as usize).collect()
}

/// Turns lines of `n` samples into lines of `m` samples, which may overshoot.
///
/// Each new sample is a weighted sum of `taps` neighbouring samples, or of spline coefficients.
pub(super) struct Pass {
    n: usize,
    m: usize,
    order: Order,
    taps: usize,
    /// For each new sample the first of its taps, counted with the edge.
    first: Vec<usize>,
    /// `taps` weights for each new sample.
    weights: Vec<f64>,
}

impl Pass {
    pub(super) fn new(n: usize, m: usize, order: Order) -> Self {
        let mut pass = Self { n, m, order, taps: 0, first: Vec::with_capacity(m), weights: Vec::new() };
        match order {
            Order::Nearest => {
                pass.taps = 1;
                pass.first.extend(nearest_indices(n, m).into_iter().map(|index| index + EDGE));
                pass.weights.resize(m, 1.0);
            }
            Order::Linear => pass.place(0, |fraction| [1.0 - fraction, fraction]),
            Order::Cubic => pass.place(1, cubic_weights),
        }
        pass
    }

    /// Finds the taps of each new sample; `before` of them lie before the sample at the coordinate's floor.
    fn place<const TAPS: usize>(&mut self, before: usize, weights: impl Fn(f64) -> [f64; TAPS]) {
        self.taps = TAPS;
        for k in 0..self.m {
            let coordinate = coordinate(k, self.n, self.m);
            let whole = coordinate.floor();
            // A coordinate is at least -0.5, so its floor is at least -1 and the edge keeps the index from going below 0.
            self.first.push((whole + EDGE as f64) as usize - before);
            self.weights.extend(weights(coordinate - whole));
        }
    }

    /// The order of interpolation.
    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// Samples of a new line.
    pub(super) fn extent(&self) -> usize {
        self.m
    }

    /// The samples that the new samples `part` are made of; a spline's filter sees the whole line.
    pub(super) fn sources(&self, part: &Range<usize>) -> Range<usize> {
        if self.order == Order::Cubic || part.is_empty() {
            return 0..self.n;
        }
        let start = self.first[part.start].saturating_sub(EDGE);
        let stop = (self.first[part.end - 1] + self.taps).saturating_sub(EDGE).min(self.n);
        start..stop
    }

    /// The pass that makes of `sources(part)` the new samples `part`, and no others.
    pub(super) fn window(&self, part: Range<usize>) -> Self {
        let sources = self.sources(&part);
        Self {
            n: sources.len(),
            m: part.len(),
            order: self.order,
            taps: self.taps,
            first: self.first[part.clone()].iter().map(|first| first - sources.start).collect(),
            weights: self.weights[part.start * self.taps..part.end * self.taps].to_vec(),
        }
    }

    /// Lines that lie one behind the other, each in one piece.
    pub(super) fn rows(&self, block: &mut Vec<Samples>, input: &[f32], output: &mut [f32]) {
        for (input, output) in input.chunks(LANES * self.n).zip(output.chunks_mut(LANES * self.m)) {
            block.resize(self.n + 2 * EDGE, [0.0; LANES]);
            for (lane, line) in input.chunks(self.n).enumerate() {
                for (samples, &value) in block[EDGE..].iter_mut().zip(line) {
                    samples[lane] = f64::from(value);
                }
            }
            self.complete(block);
            for k in 0..self.m {
                for (target, value) in output.iter_mut().skip(k).step_by(self.m).zip(self.sample(block, k)) {
                    *target = value as f32;
                }
            }
        }
    }

    /// Lines that lie side by side: sample `i` of line `j` at `i · width + j`.
    pub(super) fn columns(&self, block: &mut Vec<Samples>, input: &[f32], output: &mut [f32], width: usize) {
        if self.order != Order::Cubic {
            return self.blend_rows(input, output, width);
        }
        let mut output = ArrayViewMut2::from_shape((self.m, width), output).expect("invariant: m rows of this width");
        for (index, columns) in output.axis_chunks_iter_mut(Axis(1), LANES).enumerate() {
            self.column_block(block, input, columns, width, index * LANES);
        }
    }

    /// Without a filter along the line each row of new samples is a blend of one or two rows, as they lie in memory.
    fn blend_rows(&self, input: &[f32], output: &mut [f32], width: usize) {
        let row = |tap: usize| {
            let index = tap.clamp(EDGE, EDGE + self.n - 1) - EDGE;
            &input[index * width..(index + 1) * width]
        };
        let taps = self.first.iter().zip(self.weights.chunks_exact(self.taps));
        for (target, (&first, weights)) in output.chunks_exact_mut(width).zip(taps) {
            match *weights {
                [lower, upper] => blend(target, [row(first), row(first + 1)], [lower, upper]),
                _ => target.copy_from_slice(row(first)),
            }
        }
    }

    /// Those of `width` lines side by side that begin at `start`, up to sixteen.
    pub(super) fn column_block(
        &self,
        block: &mut Vec<Samples>,
        input: &[f32],
        mut output: ArrayViewMut2<'_, f32>,
        width: usize,
        start: usize,
    ) {
        block.resize(self.n + 2 * EDGE, [0.0; LANES]);
        let lanes = start..start + output.ncols();
        for (samples, row) in block[EDGE..].iter_mut().zip(input.chunks(width)) {
            for (sample, &value) in samples.iter_mut().zip(&row[lanes.clone()]) {
                *sample = f64::from(value);
            }
        }
        self.complete(block);
        for (k, mut row) in output.rows_mut().into_iter().enumerate() {
            for (target, value) in row.iter_mut().zip(self.sample(block, k)) {
                *target = value as f32;
            }
        }
    }

    /// Repeats the edge samples and, for splines, turns samples into coefficients.
    fn complete(&self, block: &mut [Samples]) {
        let last = EDGE + self.n - 1;
        let (start, end) = (block[EDGE], block[last]);
        block[..EDGE].fill(start);
        block[last + 1..].fill(end);
        if self.order == Order::Cubic {
            filter_cubic(block);
        }
    }

    /// New sample `k` of each line of a block.
    fn sample(&self, block: &[Samples], k: usize) -> Samples {
        let mut sum = [0.0; LANES];
        let first = self.first[k];
        let weights = &self.weights[k * self.taps..(k + 1) * self.taps];
        for (samples, weight) in block[first..first + self.taps].iter().zip(weights) {
            for lane in 0..LANES {
                sum[lane] += weight * samples[lane];
            }
        }
        sum
    }
}

/// The weighted sum of two rows.
fn blend(target: &mut [f32], [lower, upper]: [&[f32]; 2], weights: [f64; 2]) {
    for ((target, &lower), &upper) in target.iter_mut().zip(lower).zip(upper) {
        *target = (weights[0] * f64::from(lower) + weights[1] * f64::from(upper)) as f32;
    }
}

/// The weights of the four B-spline coefficients around a place `fraction` of the way from the second to the third.
fn cubic_weights(fraction: f64) -> [f64; 4] {
    let rest = 1.0 - fraction;
    let outer = |distance: f64| distance * distance * distance / 6.0;
    let inner = |distance: f64| (distance * distance * (distance - 2.0) * 3.0 + 4.0) / 6.0;
    [outer(rest), inner(fraction), inner(rest), outer(fraction)]
}

/// Turns samples into the coefficients of the cubic B-spline that passes through them, the edges going on for ever.
fn filter_cubic(block: &mut [Samples]) {
    let last = block.len() - 1;
    // Over a constant stretch the forward recursion stands still at this multiple of the constant.
    let still = GAIN / (1.0 - POLE);
    let end = block[last].map(|value| value * still);
    let mut state = block[0].map(|value| value * still);
    for samples in block.iter_mut() {
        for lane in 0..LANES {
            state[lane] = GAIN * samples[lane] + POLE * state[lane];
            samples[lane] = state[lane];
        }
    }
    // Behind the end the forward recursion decays towards `end`; this is the backward recursion summed over all of that.
    for lane in 0..LANES {
        let excess = state[lane] - end[lane];
        state[lane] = -POLE * (end[lane] / (1.0 - POLE) + excess / (1.0 - POLE * POLE));
    }
    block[last] = state;
    for samples in block[..last].iter_mut().rev() {
        for lane in 0..LANES {
            state[lane] = POLE * (state[lane] - samples[lane]);
            samples[lane] = state[lane];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spline_passes_through_its_samples() {
        let samples = [3.0, -1.0, 4.0, 1.0, -5.0];
        let mut block = vec![[0.0; LANES]; samples.len() + 2 * EDGE];
        for (index, line) in block.iter_mut().enumerate() {
            *line = [samples[index.clamp(EDGE, EDGE + 4) - EDGE]; LANES];
        }
        filter_cubic(&mut block);
        for (index, &sample) in samples.iter().enumerate() {
            // At a knot the B-spline weighs its neighbours 1/6, 4/6, 1/6.
            let knot = index + EDGE;
            let value = (block[knot - 1][0] + 4.0 * block[knot][0] + block[knot + 1][0]) / 6.0;
            assert!((value - sample).abs() < 1e-12, "sample {index}: {value}");
        }
    }

    #[test]
    fn halves_go_to_the_upper_neighbour() {
        assert_eq!(nearest_indices(4, 2), [1, 3]);
        assert_eq!(nearest_indices(2, 4), [0, 0, 1, 1]);
    }
}
