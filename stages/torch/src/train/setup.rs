//! Everything that a training needs, put together from what arrived.

use std::ops::Range;

use nnflow_kernels::augment::Augmentation;
use nnflow_net::architecture::Architecture;
use nnflow_net::augment::Augmenter;
use nnflow_net::device::Device;
use nnflow_net::loss::{Loss, Target};
use nnflow_net::optimizer::OptimizerOptions;
use nnflow_net::precision::Precision;
use nnflow_net::shim;
use nnflow_net::training::{Division, TrainingOptions};
use nnflow_nnunet::train::augmentation::augmentation;
use nnflow_nnunet::train::loader::BatchMaker;
use nnflow_nnunet::train::patches::{PatchCase, PatchShape, Patches};
use nnflow_nnunet::train::settings::{OptimizerName, TrainingSettings};
use nnflow_nnunet::train::slices::{Classes, FoldCases, TrainingPlan};
use nnflow_stage::{Context, StageError};

/// A training before its first epoch.
pub(super) struct Setup {
    pub(super) settings: TrainingSettings,
    pub(super) plan: TrainingPlan,
    pub(super) classes: Classes,
    pub(super) architecture: Architecture,
    pub(super) options: TrainingOptions,
    pub(super) device: Device,
    pub(super) loader_threads: usize,
    /// What augments samples on the device, where that is to be done there.
    pub(super) augmenter: Option<Augmenter>,
    /// The samples of each batch that this process works on.
    share: Range<usize>,
    augmentation: Augmentation,
    training: Patches,
    validation: Patches,
    seed: u64,
}

impl Setup {
    /// The training as the process `rank` of `ranks` has it.
    pub(super) fn new(context: &Context<'_>, rank: usize, ranks: usize) -> Result<Self, StageError> {
        let settings: TrainingSettings = context.parameters().parse()?;
        let plan: TrainingPlan = context.parsed("plan")?;
        let classes: Classes = context.parsed("description")?;
        let fold: FoldCases = context.parsed("split")?;
        check_labels(&classes)?;
        let patch = plan.patch()?;
        let augmentation = augmentation(&settings.augmentation, &plan, &classes)?;
        let read = augmentation.settings().initial_patch(patch);
        let annotated = classes.ignore.is_some();
        let training = Patches::new(cases(context, &fold.train, &plan)?, PatchShape { read, seen: patch }, annotated)?;
        let validation =
            Patches::new(cases(context, &fold.val, &plan)?, PatchShape { read: patch, seen: patch }, annotated)?;
        let device = crate::serve::device(context)?;
        if device.is_gpu() {
            shim::set_deterministic(settings.deterministic).map_err(super::torch)?;
        }
        let architecture = architecture(&settings, &plan, &classes)?;
        let on_device = settings.augment_on.is_device(device.is_gpu(), plan.is_2d());
        let augmenter = on_device.then(|| {
            Augmenter::new(augmentation.settings().clone(), patch, plan.is_2d(), scales(&architecture, &plan))
        });
        Ok(Self {
            share: division(&settings, &plan, device).share(rank, ranks),
            architecture,
            augmenter,
            options: options(&settings, &plan, &classes, device),
            loader_threads: super::loader_threads(device, context.resources().threads),
            seed: context.seed(),
            settings,
            plan,
            classes,
            device,
            augmentation,
            training,
            validation,
        })
    }

    pub(super) fn input_channels(&self) -> usize {
        input_channels(&self.plan, &self.classes)
    }

    /// The axes of the patch that training mirrors, counted without the axis of slices in 2-D.
    pub(super) fn mirror_axes(&self) -> Vec<usize> {
        let mirror = &self.augmentation.settings().mirror;
        if mirror.probability == 0.0 {
            return Vec::new();
        }
        let first = usize::from(self.plan.is_2d());
        mirror.axes.iter().filter_map(|axis| axis.checked_sub(first)).collect()
    }

    /// Samples of a batch, of all processes.
    pub(super) fn batch_size(&self) -> usize {
        batch_size(&self.settings, &self.plan)
    }

    pub(super) fn batch_maker(&self) -> BatchMaker<'_> {
        let patch = self.plan.patch().unwrap_or([1; 3]);
        BatchMaker {
            training: &self.training,
            validation: &self.validation,
            augmentation: &self.augmentation,
            patch,
            is_2d: self.plan.is_2d(),
            batch_size: self.batch_size(),
            share: self.share.clone(),
            oversample_foreground: self.settings.oversample_foreground,
            scales: scales(&self.architecture, &self.plan),
            seed: self.seed,
        }
    }
}

/// The scale of each supervised output, as fractions of the patch's extents z, y and x.
fn scales(architecture: &Architecture, plan: &TrainingPlan) -> Vec<[f64; 3]> {
    let scale = |shape: &Vec<usize>| {
        let mut scale = [1.0; 3];
        let first = 3 - shape.len();
        for (axis, extent) in shape.iter().enumerate() {
            scale[first + axis] = *extent as f64 / plan.patch_size[axis] as f64;
        }
        scale
    };
    architecture.supervised_shapes(&plan.patch_size).iter().map(scale).collect()
}

/// The device of a training, and how many processes it goes over.
pub(crate) fn processes(context: &Context<'_>) -> Result<(Device, usize), StageError> {
    let device = crate::serve::device(context)?;
    let asked = context.resources().processes;
    if asked <= 1 {
        return Ok((device, 1));
    }
    let (settings, plan) = (context.parameters().parse()?, context.parsed("plan")?);
    let most = division(&settings, &plan, device).most_processes();
    if most < asked {
        let batch = batch_size(&settings, &plan);
        context.log(format!(
            "a batch of {batch} patches keeps {most} of {asked} processes busy, so that no more are used"
        ));
    }
    Ok((device, asked.min(most)))
}

fn batch_size(settings: &TrainingSettings, plan: &TrainingPlan) -> usize {
    settings.batch_size.unwrap_or(plan.batch_size)
}

fn division(settings: &TrainingSettings, plan: &TrainingPlan, device: Device) -> Division {
    Division::new(device, batch_size(settings, plan), plan.patch_size.iter().product())
}

/// Opens cases, each with its segmentation of the stage before in a cascade.
fn cases(context: &Context<'_>, names: &[String], plan: &TrainingPlan) -> Result<Vec<PatchCase>, StageError> {
    let (cases, previous) = (context.items("cases")?, context.items("previous")?);
    let missing: Vec<String> = names
        .iter()
        .filter(|name| !cases.contains_key(name.as_str()) || (plan.cascade && !previous.contains_key(name.as_str())))
        .cloned()
        .collect();
    if !missing.is_empty() {
        let what = if plan.cascade { "cases, or their segmentations of the stage before," } else { "cases" };
        return Err(StageError::input(format!("{what} of the fold are missing")).with_details(missing));
    }
    names
        .iter()
        .map(|name| {
            let before = if plan.cascade { previous.get(name.as_str()).copied() } else { None };
            PatchCase::open(name, cases[name.as_str()], before)
        })
        .collect()
}

/// The outputs of a network are the labels 0, 1, 2, …; a gap would be an output that is never right.
fn check_labels(classes: &Classes) -> Result<(), StageError> {
    let consecutive = (0_i16..).zip(&classes.labels).all(|(expected, label)| expected == *label);
    if consecutive || classes.regions.is_some() {
        return Ok(());
    }
    Err(StageError::input(format!("the labels of `dataset.json` are {:?}", classes.labels))
        .with_hint("number them 0, 1, 2, … without a gap, with 0 for the background"))
}

fn input_channels(plan: &TrainingPlan, classes: &Classes) -> usize {
    classes.channels + if plan.cascade { classes.foreground().len() } else { 0 }
}

fn architecture(
    settings: &TrainingSettings,
    plan: &TrainingPlan,
    classes: &Classes,
) -> Result<Architecture, StageError> {
    let channels = input_channels(plan, classes);
    Architecture::from_plans(&plan.architecture, channels, classes.outputs(), settings.deep_supervision)
        .map_err(|error| StageError::input(format!("the plan's network cannot be built: {error}")).with_source(error))
}

fn options(settings: &TrainingSettings, plan: &TrainingPlan, classes: &Classes, device: Device) -> TrainingOptions {
    let target = match &classes.regions {
        None => Target::Labels { ignore: classes.ignore },
        Some(regions) => Target::Regions { regions: regions.clone(), ignore: classes.ignore },
    };
    let (loss, optimizer) = (&settings.loss, &settings.optimizer);
    TrainingOptions {
        loss: Loss {
            target,
            batch_dice: loss.dice_over.is_batch(plan.batch_dice),
            smooth: loss.smooth,
            dice_of_background: loss.dice_of_background,
            dice_weight: loss.dice_weight,
            cross_entropy_weight: loss.cross_entropy_weight,
        },
        optimizer: match optimizer.name {
            OptimizerName::Sgd => {
                OptimizerOptions::Sgd { momentum: optimizer.momentum, weight_decay: optimizer.weight_decay }
            }
            OptimizerName::Adam => OptimizerOptions::Adam {
                betas: optimizer.betas,
                epsilon: optimizer.epsilon,
                weight_decay: optimizer.weight_decay,
                amsgrad: optimizer.amsgrad,
            },
        },
        clip_norm: settings.gradient_clip,
        precision: crate::serve::precision(settings.precision, device, Precision::Bfloat16),
    }
}
