//! Connected components and holes.

use arbtest::arbtest;
use ndarray::Array3;
use nnflow_kernels::components::{Components, Connectivity};
use nnflow_kernels::morphology::fill_holes;

use crate::arbitrary::{mask, shape};

/// Components by flooding from each voxel: slow, and plainly right.
fn flooded(mask: &Array3<bool>, axes: usize) -> Array3<u32> {
    let mut labels = Array3::zeros(mask.dim());
    let mut next = 0;
    let shape = mask.shape().to_vec();
    for (start, _) in mask.indexed_iter().filter(|(_, inside)| **inside) {
        if labels[start] != 0 {
            continue;
        }
        next += 1;
        let mut stack = vec![start];
        while let Some(at) = stack.pop() {
            if !mask[at] || labels[at] != 0 {
                continue;
            }
            labels[at] = next;
            for index in 0..27_isize {
                let step = [index / 9 - 1, index / 3 % 3 - 1, index % 3 - 1];
                if step.iter().filter(|&&step| step != 0).count() > axes {
                    continue;
                }
                let moved = [at.0, at.1, at.2].into_iter().zip(step).map(|(at, step)| at.checked_add_signed(step));
                let moved: Vec<usize> = moved.flatten().collect();
                if moved.len() == 3 && moved.iter().zip(&shape).all(|(at, extent)| at < extent) {
                    stack.push((moved[0], moved[1], moved[2]));
                }
            }
        }
    }
    labels
}

#[test]
fn components_are_those_that_flooding_finds() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let mask = mask(input, shape)?;
        let all = [(Connectivity::Faces, 1), (Connectivity::Edges, 2), (Connectivity::Corners, 3)];
        for (connectivity, axes) in all {
            let components = Components::of(mask.view(), connectivity);
            assert_eq!(components.labels(), flooded(&mask, axes), "{connectivity:?}");
        }
        Ok(())
    });
}

#[test]
fn component_sizes_add_up_to_the_mask() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let mask = mask(input, shape)?;
        let components = Components::of(mask.view(), Connectivity::Edges);
        let inside = mask.iter().filter(|&&inside| inside).count();
        assert_eq!(components.sizes().iter().sum::<usize>(), inside);
        assert_eq!(components.select(|_| true), mask);
        Ok(())
    });
}

#[test]
fn filling_holes_leaves_no_background_cut_off_from_the_border() {
    arbtest(|input| {
        let shape = shape(input, 6)?;
        let mask = mask(input, shape)?;
        let filled = fill_holes(mask.view());
        assert!(mask.iter().zip(&filled).all(|(before, after)| !before || *after));
        let background = Components::of_value(filled.view(), false, Connectivity::Faces);
        assert!(background.touch_border().iter().all(|&touches| touches));
        Ok(())
    });
}
