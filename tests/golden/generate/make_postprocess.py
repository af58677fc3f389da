"""determine_postprocessing on drawn segmentations, and the averaging of probabilities."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np

from make_evaluate import summary
from real import write_array, write_json
from segmentations import KINDS, LABELS, REGIONS, write_set


def make(target: Path, seed: int, cases: int):
    for number, (name, labels, noise, islands) in enumerate(KINDS):
        folder = target / name
        write_set(folder, labels, noise, islands, max(cases, 4), np.random.RandomState([seed, number]))
        decide(folder)
    ensembles = [("ensemble_labels", LABELS, 2), ("ensemble_three", LABELS, 3), ("ensemble_regions", REGIONS, 2)]
    write_json(target / "ensembles.json", [
        ensemble(target, name, labels, members, np.random.RandomState([seed, 100 + number]))
        for number, (name, labels, members) in enumerate(ensembles)])


def decide(folder: Path):
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    work = folder / "work"
    shutil.copytree(folder / "prediction", work)
    determine_postprocessing(str(work), str(folder / "reference"), str(folder / "plans.json"),
                             str(folder / "dataset.json"), num_processes=1, keep_postprocessed_files=True)
    shutil.copy(work / "postprocessing.json", folder)
    (folder / "postprocessed").mkdir()
    for path in (work / "postprocessed").glob("*.nii.gz"):
        shutil.copy(path, folder / "postprocessed")
    shutil.rmtree(work)
    summary(folder, folder / "prediction", folder / "summary_before.json")


def ensemble(target: Path, name: str, labels: dict, members: int, random) -> dict:
    import torch
    from nnunetv2.ensembling.ensemble import average_probabilities
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    folder = target / name
    folder.mkdir(exist_ok=True)
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    order = [1, 2, 3] if labels is REGIONS else None
    if order:
        description["regions_class_order"] = order
    write_json(folder / "dataset.json", description)
    write_json(folder / "plans.json", {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"})
    channels = 3 if order else len(labels)
    scores = [random.normal(size=(channels, 6, 11, 9)).astype(np.float32) for _ in range(members)]
    if order:
        values = [(1 / (1 + np.exp(-score))).astype(np.float32) for score in scores]
    else:
        values = [(np.exp(score) / np.exp(score).sum(0)).astype(np.float32) for score in scores]
    # Ties: all equal, and exactly one half.
    for value in values:
        value[:, 0, 0] = 0.5 if order else 1 / channels
    inputs = [write_array(folder, f"probabilities_{index}.npy", value) for index, value in enumerate(values)]
    archives = []
    for index, value in enumerate(values):
        path = folder / f"work_{index}.npz"
        np.savez(path, probabilities=value)
        archives.append(str(path))
    average = average_probabilities(archives)
    for path in archives:
        Path(path).unlink()
    manager = LabelManager(labels, order)
    segmentation = manager.convert_probabilities_to_segmentation(torch.from_numpy(average.copy()))
    return {"set": name, "n_models": members, "inputs": inputs,
            "average": write_array(folder, "average.npy", average.astype(np.float32)),
            "segmentation": write_array(folder, "segmentation.npy", np.asarray(segmentation).astype(np.int64))}
