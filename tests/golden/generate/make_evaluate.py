"""compute_metrics_on_folder2 on drawn segmentations."""

import json
from pathlib import Path

import numpy as np

from segmentations import KINDS, write_set


def make(target: Path, seed: int, cases: int):
    for number, (name, labels, noise, islands) in enumerate(KINDS):
        write_set(target / name, labels, noise, islands, max(cases, 4), np.random.RandomState([seed, number]))
        summary(target / name, target / name / "prediction", target / name / "summary.json")


def summary(folder: Path, prediction: Path, output: Path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

    compute_metrics_on_folder2(str(folder / "reference"), str(prediction), str(folder / "dataset.json"),
                               str(folder / "plans.json"), str(output), num_processes=1)
    document = json.loads(output.read_text())
    for case in document["metric_per_case"]:
        for key in ["prediction_file", "reference_file"]:
            path = Path(case[key])
            case[key] = f"{path.parent.name}/{path.name}"
    output.write_text(json.dumps(document, indent=4, sort_keys=True))
