"""Small networks, trained for a moment, in the folders that nnU-Net keeps models in, and what nnUNetPredictor makes of a case."""

import json
import shutil
from pathlib import Path

import numpy as np

from make_preprocess import plans
from phantoms import KINDS
from real import raw_dataset, write_json

# Dataset, configuration, patch, features, folds.
MODELS = [
    ("mr_two_channels", "3d_fullres", (8, 12, 12), (4, 6, 8), (0, 1)),
    ("mr_coarse_sagittal", "2d", (16, 16), (4, 8), (0,)),
    ("ct_regions_ignore", "3d_fullres", (8, 12, 8), (4, 8), (0,)),
]
# Folds (all of them or the first), mirroring, step, Gaussian weights.
SETTINGS = [(True, True, 0.5, True), (False, False, 0.75, False)]
STEPS = 500
BATCH = 4


def make(target: Path, seed: int, cases: int):
    kinds = {kind.name: kind for kind in KINDS}
    for number, (name, configuration, patch, features, folds) in enumerate(MODELS):
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        one(folder, kinds[name], configuration, patch, features, folds, seed + number, cases)


def one(folder, kind, configuration, patch, features, folds, seed, cases):
    raw, names = raw_dataset(kind, cases, seed)
    description = json.loads((raw / "dataset.json").read_text())
    plan = shrunk(plans(kind), configuration, patch, features)
    model = folder / f"model_{configuration}"
    for fold in folds:
        (model / f"fold_{fold}").mkdir(parents=True)
    write_json(model / "plans.json", plan)
    write_json(model / "dataset.json", description)
    # The last case is predicted, the others are trained on.
    prepared = [prepare(kind, raw, name, plan, configuration, description, True) for name in names[:-1]]
    for fold in folds:
        train(model / f"fold_{fold}" / "checkpoint_final.pth", prepared, plan, configuration, description, fold, seed)
    (folder / "inputs").mkdir()
    for path in sorted((raw / "imagesTr").glob(f"{names[-1]}_*")):
        shutil.copy(path, folder / "inputs")
    for every, *setting in SETTINGS:
        predict(folder, kind, raw, names[-1], plan, configuration, description, folds if every else folds[:1], setting)


def shrunk(plan, configuration, patch, features) -> dict:
    """The plan with a patch and a network that fit the small images."""
    plan = {**plan, "configurations": {configuration: plan["configurations"][configuration]}}
    planned = plan["configurations"][configuration]
    planned.update(patch_size=list(patch), batch_size=BATCH)
    stages = len(features)
    planned["architecture"]["arch_kwargs"].update(
        n_stages=stages, features_per_stage=list(features), kernel_sizes=[[3] * len(patch)] * stages,
        strides=[[1] * len(patch)] + [[2] * len(patch)] * (stages - 1), n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[1] * (stages - 1))
    return plan


def prepare(kind, raw, case, plan, configuration, description, labelled):
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plan)
    images = sorted(str(path) for path in (raw / "imagesTr").glob(f"{case}_*"))
    label = str(raw / "labelsTr" / f"{case}{kind.ending}") if labelled else None
    preprocessor = DefaultPreprocessor(verbose=False)
    return preprocessor.run_case(images, label, manager, manager.get_configuration(configuration), description)


def train(path, prepared, plan, configuration, description, fold, seed):
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(seed + fold)
    random = np.random.RandomState([seed, fold])
    manager = PlansManager(plan)
    planned = manager.get_configuration(configuration)
    labels = manager.get_label_manager(description)
    network = nnUNetTrainer.build_network_architecture(
        manager, planned, determine_num_input_channels(manager, planned, description), labels.num_segmentation_heads,
        enable_deep_supervision=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    losses = []
    for _ in range(STEPS):
        batch = [crop(*prepared[random.randint(len(prepared))][:2], planned.patch_size, random) for _ in range(BATCH)]
        image, target = (torch.from_numpy(np.stack(parts)) for parts in zip(*batch))
        loss = difference(network(image), target, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # As nnUNetTrainer.save_checkpoint has it.
    torch.save({
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "ema_fg_dice": [np.float64(0.5)], "train_losses": losses[-1:],
                    "val_losses": [np.float64(losses[-1])], "lrs": [0.05]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {"plans": plan, "configuration": configuration, "fold": fold, "dataset_json": description,
                      "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(range(len(planned.patch_size))),
    }, path)


def crop(data, segmentation, patch, random):
    """A patch of the network's dimension, with labels; what lies outside of the image is 0."""
    size = [1] * (3 - len(patch)) + list(patch)
    pad = [(0, 0)] + [(0, max(0, wanted - extent)) for wanted, extent in zip(size, data.shape[1:])]
    data, segmentation = np.pad(data, pad), np.pad(segmentation, pad)
    starts = [random.randint(extent - wanted + 1) for extent, wanted in zip(data.shape[1:], size)]
    window = tuple(slice(start, start + wanted) for start, wanted in zip(starts, size))
    image, labels = data[(slice(None), *window)], segmentation[(0, *window)]
    return (image[:, 0], labels[0]) if len(patch) == 2 else (image, labels)


def difference(logits, target, labels):
    import torch

    target = target.clamp(min=0).long()
    if not labels.has_regions:
        return torch.nn.functional.cross_entropy(logits, target)
    known = target != labels.ignore_label
    regions = [torch.isin(target, torch.tensor(np.atleast_1d(region))) for region in labels.foreground_regions]
    wanted = torch.stack(regions, 1).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (loss * known[:, None]).mean()


def predict(folder, kind, raw, case, plan, configuration, description, folds, setting):
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    mirroring, step, gaussian = setting
    predictor = nnUNetPredictor(step, gaussian, mirroring, perform_everything_on_device=False,
                                device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder / f"model_{configuration}"), folds)
    data, _, properties = prepare(kind, raw, case, plan, configuration, description, False)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
    segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, predictor.plans_manager, predictor.configuration_manager, predictor.label_manager, properties,
        num_threads_torch=1)
    below = folder / f"predictions_{configuration}"
    name = f"fold{''.join(map(str, folds))}_{'mirror' if mirroring else 'nomirror'}_step{step}{'' if gaussian else '_nogauss'}"
    (below / name).mkdir(parents=True)
    np.save(below / f"{case}_preprocessed.npy", data.astype(np.float32))
    np.save(below / name / f"{case}_logits.npy", logits.numpy().astype(np.float16))
    np.save(below / name / f"{case}_segmentation.npy", segmentation.astype(np.uint8))
    writer = predictor.plans_manager.image_reader_writer_class()
    writer.write_seg(segmentation, str(below / name / f"{case}{kind.ending}"), properties)
