use serde_json::Value;

use super::*;
use crate::testing::{golden, read_json};

fn floats(value: &Value) -> Tensor {
    let numbers = value.as_array().expect("a list").iter();
    Tensor::from_slice(&numbers.map(|number| number.as_f64().expect("a number") as f32).collect::<Vec<f32>>())
}

fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    let largest = expected.abs().max().double_value(&[]);
    let deviation = (found - expected).abs().max().double_value(&[]) / largest;
    assert!(deviation <= tolerance, "{what}: {deviation:e}");
}

/// Walks the vector and hands each step's clipped gradient, buffer and parameters to `check`.
fn walk_sgd(check: impl Fn(usize, &Value, &Tensor, &Optimizer, &Tensor)) {
    let vector = read_json(&golden("schedule").join("sgd_steps.json"));
    let number = |key: &str| vector[key].as_f64().expect("a number");
    let options = OptimizerOptions::Sgd { momentum: number("momentum"), weight_decay: number("weight_decay") };
    let mut parameters = floats(&vector["start"]);
    let mut optimizer = Optimizer::new(options, &parameters).expect("it fits into memory");
    let steps = vector["steps"].as_array().expect("a list");
    assert!(!steps.is_empty(), "no step in the vector");
    for (index, step) in steps.iter().enumerate() {
        let clipped = clip(floats(&step["gradient"]), number("clip_norm")).expect("floats");
        optimizer.step(&mut parameters, clipped.copy(), number("lr")).expect("floats");
        check(index, step, &clipped, &optimizer, &parameters);
    }
}

#[test]
fn gradients_are_clipped_as_torch_clips_them() {
    walk_sgd(|index, step, clipped, _, _| {
        assert_close(clipped, &floats(&step["clipped"]), 1e-6, &format!("step {index}"));
    });
}

#[test]
fn sgd_makes_the_steps_of_torch() {
    walk_sgd(|index, step, _, _, parameters| {
        assert_close(parameters, &floats(&step["parameter_after"]), 1e-6, &format!("step {index}"));
    });
}

#[test]
fn sgd_keeps_the_momentum_of_torch() {
    walk_sgd(|index, step, _, optimizer, _| {
        let (_, velocity) = optimizer.state().next().expect("SGD has a momentum");
        assert_close(velocity, &floats(&step["momentum_buffer"]), 1e-6, &format!("step {index}"));
    });
}

fn adam(amsgrad: bool, weight_decay: f64) -> OptimizerOptions {
    OptimizerOptions::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, amsgrad }
}

/// The weight after steps against each of `gradients`, from 1.
fn adam_steps(options: OptimizerOptions, gradients: &[f32]) -> f64 {
    let mut parameters = Tensor::from_slice(&[1.0_f32]);
    let mut optimizer = Optimizer::new(options, &parameters).expect("it fits into memory");
    for &gradient in gradients {
        optimizer.step(&mut parameters, Tensor::from_slice(&[gradient]), 0.1).expect("floats");
    }
    parameters.double_value(&[0])
}

#[test]
fn the_first_step_of_adam_is_the_learning_rate() {
    // The corrected means of one gradient g are g and g², and g / sqrt(g²) is its sign.
    assert!((adam_steps(adam(false, 0.0), &[0.02]) - 0.9).abs() < 1e-6);
    assert!((adam_steps(adam(false, 0.0), &[-30.0]) - 1.1).abs() < 1e-6);
}

#[test]
fn adam_decays_weights_through_the_gradient() {
    // The gradient 0 plus the weight 1 times the decay: a whole step again.
    assert!((adam_steps(adam(false, 0.01), &[0.0]) - 0.9).abs() < 1e-6);
}

#[test]
fn the_second_step_of_adam_is_that_of_its_recursion() {
    // By hand for gradients 2 and -1: means 0.2, 0.08 and squares 0.004, 0.004996; corrections 0.19 and 0.001999.
    let expected = 1.0 - 0.1 - 0.1 * (0.08 / 0.19) / ((0.004_996_f64 / 0.001_999).sqrt() + 1e-8);
    assert!((adam_steps(adam(false, 0.0), &[2.0, -1.0]) - expected).abs() < 1e-6);
}

#[test]
fn amsgrad_remembers_the_largest_mean_square() {
    // After a gradient of 10 the mean square falls from 0.1 to 0.0999; amsgrad divides by the root of the former.
    let mean = 0.9 * 1.0;
    let step = |square: f64| 0.1 * (mean / 0.19) / ((square / 0.001_999_f64).sqrt() + 1e-8);
    assert!((adam_steps(adam(true, 0.0), &[10.0, 0.0]) - (0.9 - step(0.1))).abs() < 1e-6);
    assert!((adam_steps(adam(false, 0.0), &[10.0, 0.0]) - (0.9 - step(0.0999))).abs() < 1e-6);
}

#[test]
fn a_restored_optimiser_goes_on_as_if_it_had_never_stopped() {
    let gradient = || Tensor::from_slice(&[0.3_f32, -0.7]);
    let start = || Tensor::from_slice(&[1.0_f32, 2.0]);
    for options in [OptimizerOptions::nnunet(), adam(false, 1e-3), adam(true, 0.0)] {
        let mut straight = (start(), Optimizer::new(options.clone(), &start()).expect("it fits"));
        for _ in 0..4 {
            straight.1.step(&mut straight.0, gradient(), 0.1).expect("floats");
        }
        let mut first = (start(), Optimizer::new(options.clone(), &start()).expect("it fits"));
        for _ in 0..2 {
            first.1.step(&mut first.0, gradient(), 0.1).expect("floats");
        }
        let state: Vec<Tensor> = first.1.state().map(|(_, tensor)| tensor.copy()).collect();
        let mut second = Optimizer::new(options, &start()).expect("it fits");
        second.restore(first.1.steps(), &state).expect("the same form");
        for _ in 0..2 {
            second.step(&mut first.0, gradient(), 0.1).expect("floats");
        }
        assert_eq!(first.0, straight.0);
    }
}
