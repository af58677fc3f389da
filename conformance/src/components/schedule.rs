//! Learning rates against nnU-Net's `PolyLRScheduler`, steps against `torch.optim.SGD` with `clip_grad_norm_`.

use nnflow_net::optimizer::OptimizerOptions;
use nnflow_net::probe;
use nnflow_nnunet::train::schedule::poly;
use serde::Deserialize;

use crate::{Check, Folder, Problem, Surroundings, Tolerance, Vector};

const RATE: Tolerance = Tolerance::Relative(1e-12);
const STEP: Tolerance = Tolerance::OfLargest(1e-6);

const RATES: &str = "poly_lr.json";
const STEPS: &str = "sgd_steps.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    initial_lr: f64,
    epochs: u32,
    exponent: f64,
    lr_at_epoch_start: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Descent {
    start: Vec<f32>,
    lr: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    clip_norm: f64,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    gradient: Vec<f32>,
    clipped: Vec<f64>,
    momentum_buffer: Vec<f64>,
    parameter_after: Vec<f64>,
}

pub(super) fn compare(folder: &Folder, _: &Surroundings) -> Result<Vec<Vector>, Problem> {
    let tables: Vec<Table> = folder.list(RATES)?;
    let named = tables.iter().enumerate();
    let mut vectors: Vec<Vector> = named
        .map(|(index, table)| Vector::of(format!("{RATES}[{index}]"), |check| compare_rates(check, table)))
        .collect();
    vectors.push(Vector::of(STEPS, |check| compare_steps(check, folder)));
    Ok(vectors)
}

fn compare_rates(check: &mut Check, table: &Table) -> Result<(), Problem> {
    let epochs = (0..table.epochs).take(table.lr_at_epoch_start.len());
    let found: Vec<f64> = epochs.map(|epoch| poly(table.initial_lr, epoch, table.epochs, table.exponent)).collect();
    check.numbers("rate of each epoch", &table.lr_at_epoch_start, &found, RATE);
    Ok(())
}

fn compare_steps(check: &mut Check, folder: &Folder) -> Result<(), Problem> {
    let descent: Descent = folder.json(STEPS)?;
    if !descent.nesterov || descent.steps.is_empty() {
        return Err(Problem::not_understood(folder.path(STEPS), "expected at least one step with Nesterov's momentum"));
    }
    let options = OptimizerOptions::Sgd { momentum: descent.momentum, weight_decay: descent.weight_decay };
    let gradients: Vec<Vec<f32>> = descent.steps.iter().map(|step| step.gradient.clone()).collect();
    let found = probe::optimizer(options, &descent.start, &gradients, descent.clip_norm, descent.lr)
        .map_err(Problem::refused)?;
    for (index, (expected, found)) in descent.steps.iter().zip(found).enumerate() {
        let velocity = found.state.get("momentum").map_or(&[][..], Vec::as_slice);
        check.numbers(format!("clipped gradient of step {index}"), &expected.clipped, &wide(&found.clipped), STEP);
        check.numbers(format!("momentum after step {index}"), &expected.momentum_buffer, &wide(velocity), STEP);
        check.numbers(
            format!("parameters after step {index}"),
            &expected.parameter_after,
            &wide(&found.parameters),
            STEP,
        );
    }
    Ok(())
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
