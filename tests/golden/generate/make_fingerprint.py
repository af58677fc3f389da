"""DatasetFingerprintExtractor.run on datasets that lie in the vectors themselves."""

import shutil
from pathlib import Path

import numpy as np

from phantoms import KINDS
from real import fingerprint, preprocessed, raw_dataset, write_json


def make(target: Path, seed: int, cases: int):
    for kind in KINDS:
        if kind.name == "mixed_channels":
            # nnU-Net holds 10^8 numbers a channel; four channels need more memory than they are worth.
            continue
        raw, names = raw_dataset(kind, cases, seed)
        fingerprint(kind)
        folder = target / kind.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(raw, folder)
        shutil.copy(preprocessed(kind) / "dataset_fingerprint.json", folder)
        write_json(folder / "cases.json", [describe(kind, raw, name) for name in names])


def describe(kind, raw: Path, case: str) -> dict:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    reader = determine_reader_writer_from_file_ending(kind.ending, verbose=False)()
    images = sorted(str(path) for path in (raw / "imagesTr").glob(f"{case}_*"))
    image, properties = reader.read_images(images)
    labels, _ = reader.read_seg(str(raw / "labelsTr" / f"{case}{kind.ending}"))
    cropped, labels, box = crop_to_nonzero(image, labels.astype(np.int16))
    inside = labels[0] > 0
    return {
        "case": case,
        "shape_before_crop": list(image.shape[1:]),
        "shape_after_crop": list(cropped.shape[1:]),
        "bbox": [[int(edge) for edge in axis] for axis in box],
        "spacing": [float(value) for value in properties["spacing"]],
        "n_foreground": int(inside.sum()),
        "n_outside_mask": int((labels == -1).sum()),
        "channels": [statistics(channel[inside].astype(np.float64)) for channel in cropped],
    }


def statistics(values) -> dict:
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    return {"mean": values.mean(), "std": values.std(), "min": values.min(), "max": values.max(),
            "percentile_00_5": low, "median": median, "percentile_99_5": high}
