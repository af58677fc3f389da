"""The sliding window: weights, places, padding, the loader's patches."""

from pathlib import Path

import numpy as np

from real import write_array, write_json


def make(target: Path, seed: int, cases: int):
    random = np.random.RandomState(seed)
    write_json(target / "gaussians.json", [gaussian(target, random, half) for _ in range(4) for half in [False, True]])
    write_json(target / "steps.json", [steps(random) for _ in range(40)])
    write_json(target / "padding.json", [padding(random) for _ in range(20)])
    write_json(target / "initial_patch_size.json", [initial(random) for _ in range(12)])


def patch_and_image(random):
    rank = random.choice([2, 3])
    patch = [int(value) for value in 4 * random.randint(2, 24, rank)]
    return patch, [int(max(1, extent * random.uniform(0.3, 3))) for extent in patch]


def gaussian(target, random, half) -> dict:
    import torch
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    patch = [int(value) for value in random.randint(5, 30, random.choice([2, 3]))]
    kind = torch.float16 if half else torch.float32
    factor = 10.0 if half else 1.0
    values = compute_gaussian(tuple(patch), 1.0 / 8, factor, kind, torch.device("cpu")).numpy()
    name = f"gaussian_{'x'.join(map(str, patch))}_{values.dtype}.npy"
    return {**write_array(target, name, values), "patch": patch, "sigma_scale": 1.0 / 8, "value_scaling_factor": factor,
            "min": float(values.min()), "max": float(values.max())}


def steps(random) -> dict:
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    patch, image = patch_and_image(random)
    padded = [max(extent, edge) for extent, edge in zip(image, patch)]
    step = float(random.choice([0.25, 0.5, 0.7, 1.0]))
    found = compute_steps_for_sliding_window(tuple(padded), tuple(patch), step)
    return {"image": image, "image_after_padding": padded, "patch": patch, "step": step,
            "steps": [[int(start) for start in axis] for axis in found]}


def padding(random) -> dict:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    patch, image = patch_and_image(random)
    padded, slices = pad_nd_image(np.zeros(image, np.float32), patch, "constant", {"constant_values": 0}, True, None)
    return {"image": image, "patch": patch, "padded": list(padded.shape),
            "slices": [[int(part.start), int(part.stop)] for part in slices]}


def initial(random) -> dict:
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

    patch, _ = patch_and_image(random)
    degrees = int(random.choice([15, 30, 180]))
    limits = (-degrees / 360 * 2 * np.pi, degrees / 360 * 2 * np.pi)
    scales = [0.7, 1.4] if random.rand() < 0.5 else [0.85, 1.25]
    found = get_patch_size(np.array(patch), limits, limits, limits, scales)
    return {"patch": patch, "rotation_degrees": degrees, "scale_range": scales,
            "initial_patch_size": [int(extent) for extent in found]}
