"""DC_and_CE_loss and DC_and_BCE_loss with MemoryEfficientSoftDiceLoss, and DeepSupervisionWrapper."""

from pathlib import Path

import numpy as np

from real import write_array, write_json

# Name, kind, batch dice, ignore, shape (b, c, spatial...), number of outputs.
KINDS = [
    ("ce_nobatch_3d", "ce", False, None, (2, 4, 6, 8, 7), 1),
    ("ce_batch_2d", "ce", True, None, (4, 3, 11, 13), 1),
    ("ce_ignore_2d", "ce", True, 3, (3, 3, 12, 9), 1),
    ("bce_regions_2d", "bce", False, None, (2, 2, 12, 11), 1),
    ("bce_regions_batch_3d", "bce", True, None, (2, 3, 6, 7, 8), 1),
    ("bce_regions_ignore_3d", "bce", True, "last channel", (2, 2, 6, 8, 7), 1),
    ("ce_deep_2d", "ce", True, None, (2, 3, 32, 16), 3),
]


def make(target: Path, seed: int, cases: int):
    entries = []
    for number, (name, *rest) in enumerate(KINDS):
        (target / name).mkdir(exist_ok=True)
        entries.append({"case": name, **one(target / name, np.random.RandomState([seed, number]), *rest)})
    write_json(target / "cases.json", entries)
    write_json(target / "deep_supervision_weights.json", {str(n): {"plain": weights(n)} for n in range(2, 8)})


def weights(n: int):
    """As nnUNetTrainer._build_loss takes them."""
    values = np.array([1 / (2**index) for index in range(n)])
    values[-1] = 0
    return [float(value) for value in values / values.sum()]


def one(folder, random, kind, batch_dice, ignore, shape, n_outputs) -> dict:
    import torch
    from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dice = {"batch_dice": batch_dice, "do_bg": kind == "bce", "smooth": 1e-5, "ddp": False}
    if kind == "ce":
        loss = DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, ignore_label=ignore,
                              dice_class=MemoryEfficientSoftDiceLoss)
    else:
        loss = DC_and_BCE_loss({}, dice, use_ignore_label=ignore is not None, dice_class=MemoryEfficientSoftDiceLoss)
    if n_outputs > 1:
        loss = DeepSupervisionWrapper(loss, weights(n_outputs))
    logits, targets = [], []
    for index in range(n_outputs):
        extents = tuple(extent // 2**index for extent in shape[2:])
        logits.append((2 * random.normal(size=shape[:2] + extents)).astype(np.float32))
        targets.append(draw_target(random, kind, ignore, shape[:2] + extents))
    tensors = [torch.from_numpy(values).requires_grad_(True) for values in logits]
    as_target = lambda values: torch.from_numpy(values.astype(np.float32 if kind == "ce" else np.uint8))
    wanted = [as_target(values) for values in targets]
    value = loss(tensors, wanted) if n_outputs > 1 else loss(tensors[0], wanted[0])
    value.backward()
    gradients = [None if tensor.grad is None else write_array(folder, f"gradient_{index}.npy", tensor.grad.numpy())
                 for index, tensor in enumerate(tensors)]
    return {
        "kind": kind, "batch_dice": batch_dice, "ignore_label": ignore, "do_bg": kind == "bce", "smooth": 1e-5,
        "n_outputs": n_outputs, "loss": float(value),
        "logits": [write_array(folder, f"logits_{index}.npy", values) for index, values in enumerate(logits)],
        "targets": [write_array(folder, f"target_{index}.npy", values) for index, values in enumerate(targets)],
        "gradients": gradients,
    }


def draw_target(random, kind, ignore, shape):
    if kind == "ce":
        highest = shape[1] + (1 if ignore is not None else 0)
        return random.randint(0, highest, (shape[0], 1) + shape[2:]).astype(np.int16)
    channels = shape[1] + (1 if ignore is not None else 0)
    return (random.rand(shape[0], channels, *shape[2:]) < 0.3).astype(np.uint8)
