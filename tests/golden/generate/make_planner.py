"""The four planners on drawn fingerprints."""

import json
import os
from pathlib import Path

import numpy as np

from real import write_json

PLANNERS = {"default": "ExperimentPlanner", "resencM": "nnUNetPlannerResEncM", "resencL": "nnUNetPlannerResEncL",
            "resencXL": "nnUNetPlannerResEncXL"}


def make(target: Path, seed: int, cases: int):
    for number in range(4 * cases):
        random = np.random.RandomState([seed, number])
        dataset = f"Dataset{500 + number:03d}_Drawn{seed}"
        folder = target / "drawn" / f"case_{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        fingerprint, description = draw(random)
        write_json(folder / "dataset_fingerprint.json", fingerprint)
        write_json(folder / "dataset.json", description)
        write_json(folder / "meta.json", {"kind": "drawn", "dataset_name": dataset,
                                          "runs": [run(folder, dataset, name, random) for name in PLANNERS]})


def draw(random):
    n = int(random.choice([3, 11, 40]))
    flat = random.rand() < 0.15
    base = np.exp(random.uniform(np.log(0.4), np.log(3), 3))
    if random.rand() < 0.5:
        base[random.randint(3)] *= random.uniform(2, 8)
    extents = np.exp(random.uniform(np.log(20), np.log(520), 3))
    spacings, shapes = [], []
    for _ in range(n):
        factor = random.uniform(0.85, 1.2)
        spacings.append([999.0, 1.0, 1.0] if flat else [float(value) for value in np.round(base * factor, 4)])
        shape = [max(4, int(extent * random.uniform(0.8, 1.2))) for extent in extents]
        shapes.append([1, *shape[1:]] if flat else shape)
    channels = [str(name) for name in random.choice(["CT", "MRI", "noNorm", "rescale_to_0_1", "T2"], random.randint(1, 4))]
    statistics = lambda: {key: float(value) for key, value in zip(
        ["mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"], random.normal(size=7) * 100)}
    fingerprint = {"spacings": spacings, "shapes_after_crop": shapes,
                   "foreground_intensity_properties_per_channel": {str(c): statistics() for c in range(len(channels))},
                   "median_relative_size_after_cropping": float(random.uniform(0.3, 1))}
    labels = {"background": 0, **{f"label{value}": value for value in range(1, 2 + random.randint(5))}}
    description = {"channel_names": {str(c): name for c, name in enumerate(channels)}, "labels": labels, "numTraining": n,
                   "file_ending": ".png" if flat else ".nii.gz"}
    return fingerprint, description


def run(folder: Path, dataset: str, name: str, random) -> dict:
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as residual

    raw, made = Path(os.environ["nnUNet_raw"]) / dataset, Path(os.environ["nnUNet_preprocessed"]) / dataset
    description = json.loads((folder / "dataset.json").read_text())
    ending, channels = description["file_ending"], len(description["channel_names"])
    # The planner lists images and reads none, once its choice of a reader is made for it.
    for name_of_file in [f"imagesTr/case_{channel:04d}{ending}" for channel in range(channels)] + [f"labelsTr/case{ending}"]:
        path = raw / name_of_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made.mkdir(exist_ok=True)
    (raw / "dataset.json").write_text((folder / "dataset.json").read_text())
    (made / "dataset_fingerprint.json").write_text((folder / "dataset_fingerprint.json").read_text())
    planner = ExperimentPlanner if name == "default" else getattr(residual, PLANNERS[name])
    keywords = {"gpu_memory_target_in_gb": float(random.choice([6, 16, 40]))} if random.rand() < 0.25 else {}
    built = planner(dataset, **keywords)
    reader = "NaturalImage2DIO" if ending == ".png" else "SimpleITKIO"
    built.determine_reader_writer = lambda: type(reader, (), {})
    # The networks are only asked for the sizes of their maps; on this device they take no memory.
    with torch.device("meta"):
        plans = built.plan_experiment()
    file = f"plans_{name}.json"
    write_json(folder / file, json.loads((made / f"{built.plans_identifier}.json").read_text()))
    return {"file": file, "planner": name, "kwargs": keywords, "error": None, "configurations": list(plans["configurations"])}
