"""Folders of predictions with references, drawn at random."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

LABELS = {"background": 0, "organ": 1, "tumour": 2, "vessel": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "centre": 3}

# Kind, labels, share of noise, whether components far from the body are added.
KINDS = [
    ("labels", LABELS, 0.02, True),
    ("labels_clean", LABELS, 0.0, False),
    ("labels_ignore", {**LABELS, "ignore": 4}, 0.03, True),
    ("regions", REGIONS, 0.02, True),
    ("regions_ignore", {**REGIONS, "ignore": 4}, 0.03, False),
    ("one_label", {"background": 0, "organ": 1}, 0.01, True),
]


def write_set(folder: Path, labels: dict, noise: float, islands: bool, cases: int, random):
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    (folder / "prediction").mkdir(exist_ok=True)
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    if any(isinstance(value, list) for value in labels.values()):
        description["regions_class_order"] = [1, 2, 3]
    (folder / "dataset.json").write_text(json.dumps(description))
    # All that evaluation and postprocessing read of it.
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"}))
    highest = max(max(value) if isinstance(value, list) else value for name, value in labels.items() if name != "ignore")
    for number in range(cases):
        reference = draw(random, highest)
        prediction = np.roll(reference, random.randint(-1, 2, 3), (0, 1, 2))
        flipped = random.rand(*reference.shape) < noise
        prediction[flipped] = random.randint(0, highest + 1, int(flipped.sum()))
        if islands:
            prediction[0:2, 0:3, 0:3] = random.randint(1, highest + 1)
        if number == 1:
            # A label in no image of this case.
            reference[reference == highest] = 0
            prediction[prediction == highest] = 0
        if "ignore" in labels:
            reference[:, -4:] = labels["ignore"]
        for side, values in [("reference", reference), ("prediction", prediction)]:
            image = sitk.GetImageFromArray(values.astype(np.uint8))
            image.SetSpacing([1.0, 1.2, 2.0])
            sitk.WriteImage(image, str(folder / side / f"case_{number}.nii.gz"), useCompression=True)


def draw(random, highest):
    labels = np.zeros((10, 18, 16), np.int16)
    for label in range(1, highest + 1):
        start = [random.randint(2, 4) + label - 1, random.randint(2, 5) + label, random.randint(2, 5) + label]
        size = [max(2, 7 - label), max(3, 12 - 2 * label), max(3, 11 - 2 * label)]
        labels[tuple(slice(s, s + extent) for s, extent in zip(start, size))] = label
    return labels
