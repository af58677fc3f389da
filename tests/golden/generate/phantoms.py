"""Small seeded images of an invented body, written as datasets in nnU-Net's raw layout.

All arrays are [z, y, x], spacings in millimetres in the same order.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage import io


@dataclass
class Kind:
    """What the images of a dataset have in common."""

    name: str
    number: int
    channels: dict[str, str]
    labels: dict[str, int | list[int]]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    ending: str = ".nii.gz"
    cropped: bool = True
    extra: dict = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        return f"Dataset{self.number:03d}_{''.join(word.capitalize() for word in self.name.split('_'))}"

    def description(self, cases: int) -> dict:
        return {
            "channel_names": self.channels,
            "labels": self.labels,
            "numTraining": cases,
            "file_ending": self.ending,
            **self.extra,
        }


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "centre": 3, "ignore": 4}

KINDS = [
    # Zeros around the body: cropped, and normalised within the body.
    Kind("mr_two_channels", 901, {"0": "T1", "1": "FLAIR"}, {"background": 0, "body": 1, "organ": 2, "spot": 3},
         (18, 24, 20), (1.2, 0.9, 1.0)),
    # The coarse axis is the last one, so that the plan turns the axes.
    Kind("mr_coarse_sagittal", 902, {"0": "T2"}, {"background": 0, "body": 1, "organ": 2}, (26, 24, 7), (0.8, 0.75, 4.0)),
    Kind("ct_regions_ignore", 903, {"0": "CT"}, REGIONS, (14, 22, 18), (3.0, 1.5, 1.5), cropped=False,
         extra={"regions_class_order": [1, 2, 3]}),
    # Every normalisation that nnU-Net has for volumes.
    Kind("mixed_channels", 904, {"0": "CT", "1": "noNorm", "2": "rescale_to_0_1", "3": "MRI"},
         {"background": 0, "body": 1, "organ": 2}, (12, 16, 14), (2.0, 1.0, 1.0), cropped=False),
    Kind("rgb_png", 905, {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"}, {"background": 0, "cell": 1, "nucleus": 2}, (1, 40, 52),
         (999.0, 1.0, 1.0), ending=".png", cropped=False),
]


def ellipsoid(shape, centre, radii):
    grid = np.meshgrid(*[np.arange(extent) for extent in shape], indexing="ij")
    distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radii))
    return distance <= 1


def draw(kind: Kind, random: np.random.RandomState):
    """Image [c, z, y, x] and labels [z, y, x] of one case."""
    shape = tuple(max(1, extent + random.randint(-2, 3)) if extent > 1 else 1 for extent in kind.shape)
    middle = [(extent - 1) / 2 + (random.uniform(-1, 1) if extent > 1 else 0) for extent in shape]
    half = [max(extent / 2, 1) for extent in shape]
    body = ellipsoid(shape, middle, [0.7 * r for r in half])
    organ = ellipsoid(shape, middle, [0.45 * r for r in half])
    spot = ellipsoid(shape, [m + random.uniform(-0.1, 0.1) * r for m, r in zip(middle, half)], [max(0.25 * r, 0.8) for r in half])
    n_labels = max(max(value) if isinstance(value, list) else value for name, value in kind.labels.items() if name != "ignore")
    labels = np.zeros(shape, np.uint8)
    for number, part in enumerate([body, organ, spot][:n_labels], start=1):
        labels[part] = number
    if "ignore" in kind.labels:
        # Nobody annotated one end of the image.
        labels[:, : shape[1] // 5] = kind.labels["ignore"]
    image = np.stack([channel(name, labels, body, organ, random) for name in kind.channels.values()])
    if kind.cropped:
        image[:, ~body] = 0
        # A hole, which filling closes again.
        image[:, shape[0] // 2, shape[1] // 2, shape[2] // 2] = 0
    return image, labels


def channel(name, labels, body, organ, random):
    wave = np.sin(np.arange(labels.size).reshape(labels.shape) * 0.37)
    noise = random.normal(size=labels.shape)
    if name == "CT":
        values = -1000 + 1030 * body + 60 * organ + 20 * noise
        return np.round(values).astype(np.float32)
    if name == "rgb_to_0_1":
        return np.clip(np.round(90 + 60 * body + 40 * organ + 25 * noise), 0, 255).astype(np.float32)
    level = random.uniform(80, 400)
    return (level * (1 + 0.4 * body + 0.6 * organ) + 0.1 * level * (wave + noise)).astype(np.float32)


def write_volume(array, spacing, path, random_state):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(value) for value in spacing[::-1]])
    # The same numbers for all files of a case: nnU-Net compares them.
    random = np.random.RandomState(random_state)
    image.SetOrigin([round(float(value), 3) for value in random.uniform(-90, 90, 3)])
    angle = random.uniform(-0.4, 0.4)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    image.SetDirection([c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0])
    sitk.WriteImage(image, str(path), useCompression=True)


def write_case(kind: Kind, image, labels, spacing, images: Path, label: Path, case: str, geometry: int):
    if kind.ending == ".png":
        io.imsave(images / f"{case}_0000.png", np.moveaxis(image[:, 0], 0, -1).astype(np.uint8), check_contrast=False)
        io.imsave(label, labels[0], check_contrast=False)
        return
    integer = all(name == "CT" for name in kind.channels.values())
    for number, values in enumerate(image):
        values = values.astype(np.int16) if integer else values
        write_volume(values, spacing, images / f"{case}_{number:04d}{kind.ending}", geometry)
    write_volume(labels, spacing, label, geometry)


def write_dataset(kind: Kind, folder: Path, cases: int, seed: int):
    """A dataset in nnU-Net's raw layout; returns the identifiers of its cases."""
    random = np.random.RandomState([seed, kind.number])
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    names = [f"{kind.name}_{number:02d}" for number in range(cases)]
    for number, case in enumerate(names):
        image, labels = draw(kind, random)
        factor = 1.0 if kind.ending == ".png" else 1 + 0.1 * number
        spacing = [round(value * factor, 3) for value in kind.spacing]
        write_case(kind, image, labels, spacing, folder / "imagesTr", folder / "labelsTr" / f"{case}{kind.ending}",
                   case, seed * 1000 + kind.number * 10 + number)
    (folder / "dataset.json").write_text(json.dumps(kind.description(cases), indent=1) + "\n")
    return names
