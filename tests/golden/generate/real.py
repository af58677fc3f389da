"""What several makers need of the real nnU-Net."""

import json
import os
from pathlib import Path

import numpy as np

from phantoms import Kind, write_dataset


def raw_dataset(kind: Kind, cases: int, seed: int):
    """A dataset where nnU-Net looks for it; made once a run."""
    folder = Path(os.environ["nnUNet_raw"]) / kind.dataset
    if folder.is_dir():
        return folder, sorted(path.name[: -len(kind.ending)] for path in (folder / "labelsTr").iterdir())
    return folder, write_dataset(kind, folder, cases, seed)


def fingerprint(kind: Kind) -> dict:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    DatasetFingerprintExtractor(kind.dataset, num_processes=1).run()
    return json.loads((preprocessed(kind) / "dataset_fingerprint.json").read_text())


def preprocessed(kind: Kind) -> Path:
    return Path(os.environ["nnUNet_preprocessed"]) / kind.dataset


def write_json(path: Path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_array(folder: Path, name: str, array) -> dict:
    array = np.ascontiguousarray(array)
    np.save(folder / name, array)
    return {"file": name, "shape": list(array.shape), "dtype": str(array.dtype)}
