//! Structuring elements as rows of intervals.

/// One row of an element: the voxels from `from` to `to` itself along x, in the row `dy` and the slice `dz` away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) dz: isize,
    pub(super) dy: isize,
    pub(super) from: isize,
    pub(super) to: isize,
}

/// The voxels around a voxel that a morphological operation looks at.
///
/// The radius may be a fraction, because nnU-Net draws one from a continuous range. scikit-image then lays the grid of a
/// ball, and in another way that of a disk, so that the element is not symmetric; the same elements come out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    rows: Vec<Row>,
}

impl Element {
    /// The ball of `radius` voxels, as `skimage.morphology.ball` 0.26 makes it; a radius below 0 counts as 0.
    #[must_use]
    pub fn ball(radius: f64) -> Self {
        let radius = radius.max(0.0);
        // NumPy spreads this many points evenly over the diameter and cuts the count down to a whole number.
        let count = (2.0 * radius + 1.0) as usize;
        let step = if count > 1 { 2.0 * radius / (count - 1) as f64 } else { 0.0 };
        let grid: Vec<f64> = (0..count).map(|index| index as f64 * step - radius).collect();
        Self::sphere(&grid, &grid, radius)
    }

    /// The disk of `radius` voxels within a slice, as `skimage.morphology.disk` 0.26 makes it.
    #[must_use]
    pub fn disk(radius: f64) -> Self {
        let radius = radius.max(0.0);
        let count = (2.0 * radius + 1.0).ceil() as usize;
        let grid: Vec<f64> = (0..count).map(|index| index as f64 - radius).collect();
        Self::sphere(&[0.0], &grid, radius)
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The points of a grid that lie within the radius, `across` along z, `within` along y and x.
    fn sphere(across: &[f64], within: &[f64], radius: f64) -> Self {
        // Where the number of points is even there is no middle: a convolution with equal padding then leans to the right.
        let offset = |index: usize, count: usize| index as isize - (count.max(1) as isize - 1) / 2;
        let mut rows = Vec::new();
        for (z, depth) in across.iter().enumerate() {
            for (y, height) in within.iter().enumerate() {
                let inside = |x: &usize| depth * depth + height * height + within[*x] * within[*x] <= radius * radius;
                let first = (0..within.len()).find(inside);
                let last = (0..within.len()).rev().find(inside);
                if let (Some(first), Some(last)) = (first, last) {
                    rows.push(Row {
                        dz: offset(z, across.len()),
                        dy: offset(y, within.len()),
                        from: offset(first, within.len()),
                        to: offset(last, within.len()),
                    });
                }
            }
        }
        Self { rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voxels(element: &Element) -> isize {
        element.rows.iter().map(|row| row.to - row.from + 1).sum()
    }

    #[test]
    fn balls_have_the_voxels_of_scikit_images() {
        // `ball(r).sum()` of scikit-image 0.26 for whole and fractional radii.
        for (radius, expected) in [(0.0, 1), (1.0, 7), (2.0, 33), (8.0, 2109), (1.5, 8), (3.7, 160), (7.3, 1378)] {
            assert_eq!(voxels(&Element::ball(radius)), expected, "radius {radius}");
        }
    }

    #[test]
    fn disks_have_the_voxels_of_scikit_images() {
        // `disk(r).sum()` of scikit-image 0.26.
        for (radius, expected) in [(1.0, 5), (3.0, 29), (1.5, 4), (3.7, 41), (7.3, 164)] {
            assert_eq!(voxels(&Element::disk(radius)), expected, "radius {radius}");
        }
    }

    #[test]
    fn a_ball_of_an_even_grid_leans_to_the_right() {
        // Eight points from -3.7 to 3.7: the outermost two would be inside only with a point at 0, which there is not.
        let element = Element::ball(3.7);
        let first = element.rows.iter().map(|row| row.from).min();
        let last = element.rows.iter().map(|row| row.to).max();
        assert_eq!((first, last), (Some(-2), Some(3)));
    }
}
