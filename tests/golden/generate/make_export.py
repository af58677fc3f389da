"""convert_predicted_logits_to_segmentation_with_correct_shape on random scores."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from real import write_array, write_json

# Kind, classes, shape of the scores, shape and spacing of the cropped image, spacing of the scores, voxels that cropping took
# away on both sides of each axis, transpose_forward; all but the last with the axes of the scores.
KINDS = [
    ("iso_up", 4, (7, 8, 9), (13, 15, 16), (0.8, 0.8, 0.8), (1.5, 1.5, 1.5), ((0, 0), (0, 0), (0, 0)), (0, 1, 2)),
    ("iso_mixed", 3, (9, 8, 7), (13, 7, 9), (1.0, 1.6, 1.1), (1.45, 1.4, 1.4), ((2, 1), (0, 3), (1, 0)), (2, 0, 1)),
    ("iso_down", 3, (12, 13, 11), (8, 9, 7), (1.5, 1.5, 1.6), (1.0, 1.0, 1.0), ((1, 0), (0, 2), (0, 0)), (1, 0, 2)),
    ("sepz_up", 4, (4, 9, 8), (7, 14, 13), (3.0, 0.6, 0.6), (5.2, 1.0, 1.0), ((1, 0), (2, 1), (0, 4)), (0, 2, 1)),
    ("sepz_down", 4, (9, 8, 10), (5, 12, 15), (7.0, 0.6, 0.6), (4.0, 1.0, 1.0), ((0, 0), (1, 1), (0, 2)), (1, 2, 0)),
    ("sepz_last", 3, (9, 8, 5), (13, 14, 8), (0.7, 0.6, 3.8), (1.0, 1.0, 6.0), ((0, 1), (2, 0), (1, 1)), (2, 1, 0)),
    ("same", 5, (5, 6, 7), (5, 6, 7), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), ((2, 1), (0, 1), (3, 0)), (0, 2, 1)),
    ("regions", 3, (7, 8, 6), (12, 11, 13), (0.9, 1.1, 0.7), (1.5, 1.5, 1.5), ((1, 1), (0, 0), (2, 0)), (1, 0, 2)),
]


def make(target: Path, seed: int, cases: int):
    entries = []
    for number, (kind, *arguments) in enumerate(KINDS):
        random = np.random.RandomState([seed, number])
        case = f"case_{number:02d}_{kind}"
        (target / case).mkdir(exist_ok=True)
        entries.append({"case": case, **one(target / case, random, kind == "regions", *arguments)})
    write_json(target / "cases.json", entries)


def one(folder, random, has_regions, classes, shape, cropped, spacing, scores_spacing, margins, forward) -> dict:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    labels = {"background": 0, **{f"label {label}": label for label in range(1, classes)}}
    order = None
    if has_regions:
        labels, order = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}, [2, 1, 3]
    logits = random.normal(scale=3, size=(classes, *shape)).astype(np.float32)
    backward = [forward.index(axis) for axis in range(3)]
    before = [extent + sum(margin) for extent, margin in zip(cropped, margins)]
    box = [[margin[0], margin[0] + extent] for extent, margin in zip(cropped, margins)]
    plans = SimpleNamespace(transpose_forward=list(forward), transpose_backward=backward)
    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    configuration = SimpleNamespace(spacing=list(scores_spacing), resampling_fn_probabilities=resample)
    file_spacing = [spacing[axis] for axis in backward]
    properties = {"spacing": file_spacing, "shape_after_cropping_and_before_resampling": list(cropped),
                  "shape_before_cropping": before, "bbox_used_for_cropping": box}
    segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, LabelManager(labels, order), properties, return_probabilities=True,
        num_threads_torch=1)
    arrays = {"logits": write_array(folder, "logits.npy", logits),
              "segmentation": write_array(folder, "labels.npy", segmentation),
              "probabilities": write_array(folder, "probabilities.npy", np.asarray(probabilities, dtype=np.float32))}
    return {**arrays, "labels": {name: list(value) if isinstance(value, tuple) else value for name, value in labels.items()},
            "regions_class_order": order, "transpose_forward": list(forward),
            "shape": [before[axis] for axis in backward], "spacing": file_spacing,
            "cropped_to": {"start": [start for start, _ in box], "stop": [stop for _, stop in box]},
            "scores_shape": list(shape), "scores_spacing": list(scores_spacing)}
