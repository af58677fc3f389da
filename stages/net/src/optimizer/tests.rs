use super::*;

#[test]
fn a_gradient_is_clipped_to_the_largest_norm_and_not_stretched() {
    // (3, 4) has the norm 5.
    let clipped = |max_norm| clip(Tensor::from_slice(&[3.0_f32, 4.0]), max_norm).expect("floats");
    assert_eq!(clipped(10.0), Tensor::from_slice(&[3.0_f32, 4.0]));
    let apart = (clipped(2.5) - Tensor::from_slice(&[1.5_f32, 2.0])).abs().max().double_value(&[]);
    assert!(apart < 1e-6, "{apart}");
}

#[test]
fn steps_with_nesterovs_momentum_are_those_of_its_recursion() {
    // By hand for gradients 1 and 1 and momentum 0.5: velocities 1 and 1.5, steps 1 + 0.5 and 1 + 0.75.
    let options = OptimizerOptions::Sgd { momentum: 0.5, weight_decay: 0.0 };
    let expected = 1.0 - 0.1 * 1.5 - 0.1 * 1.75;
    assert!((steps(options, &[1.0, 1.0]) - expected).abs() < 1e-6);
}

#[test]
fn weights_decay_through_the_gradient_of_a_descent() {
    // The gradient 0 plus the weight 1 times the decay.
    let options = OptimizerOptions::Sgd { momentum: 0.0, weight_decay: 0.5 };
    assert!((steps(options, &[0.0]) - 0.95).abs() < 1e-6);
}

fn adam(amsgrad: bool, weight_decay: f64) -> OptimizerOptions {
    OptimizerOptions::Adam { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay, amsgrad }
}

/// The weight after steps against each of `gradients`, from 1.
fn steps(options: OptimizerOptions, gradients: &[f32]) -> f64 {
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
    assert!((steps(adam(false, 0.0), &[0.02]) - 0.9).abs() < 1e-6);
    assert!((steps(adam(false, 0.0), &[-30.0]) - 1.1).abs() < 1e-6);
}

#[test]
fn adam_decays_weights_through_the_gradient() {
    // The gradient 0 plus the weight 1 times the decay: a whole step again.
    assert!((steps(adam(false, 0.01), &[0.0]) - 0.9).abs() < 1e-6);
}

#[test]
fn the_second_step_of_adam_is_that_of_its_recursion() {
    // By hand for gradients 2 and -1: means 0.2, 0.08 and squares 0.004, 0.004996; corrections 0.19 and 0.001999.
    let expected = 1.0 - 0.1 - 0.1 * (0.08 / 0.19) / ((0.004_996_f64 / 0.001_999).sqrt() + 1e-8);
    assert!((steps(adam(false, 0.0), &[2.0, -1.0]) - expected).abs() < 1e-6);
}

#[test]
fn amsgrad_remembers_the_largest_mean_square() {
    // After a gradient of 10 the mean square falls from 0.1 to 0.0999; amsgrad divides by the root of the former.
    let mean = 0.9 * 1.0;
    let step = |square: f64| 0.1 * (mean / 0.19) / ((square / 0.001_999_f64).sqrt() + 1e-8);
    assert!((steps(adam(true, 0.0), &[10.0, 0.0]) - (0.9 - step(0.1))).abs() < 1e-6);
    assert!((steps(adam(false, 0.0), &[10.0, 0.0]) - (0.9 - step(0.0999))).abs() < 1e-6);
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
