"""DefaultPreprocessor.run_case on the first case of each dataset, with several plans."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np

from phantoms import KINDS
from real import fingerprint, preprocessed, raw_dataset, write_array, write_json

# Dataset, configuration, factors of the case's spacing (None: the plan's spacing stays), whether it has labels.
CASES = [
    ("mr_two_channels", "3d_fullres", (1.37, 0.81, 1.13), True, "every axis resampled; normalised within the mask"),
    ("mr_two_channels", "2d", (1.3, 0.7), True, "slices, resampled within the plane"),
    ("mr_two_channels", "3d_fullres", None, False, "no labels"),
    ("mr_coarse_sagittal", "3d_fullres", (0.55, 1.2, 0.9), True, "axes turned; the coarse one resampled apart"),
    ("mr_coarse_sagittal", "2d", None, True, "axes turned; planned spacing"),
    ("ct_regions_ignore", "3d_fullres", (2.0, 2.0, 2.0), True, "regions and voxels to ignore; halved, where ties are exact"),
    ("ct_regions_ignore", "3d_fullres", (0.5, 0.5, 0.5), True, "regions and voxels to ignore; doubled"),
    ("mixed_channels", "3d_fullres", (0.7, 1.4, 1.0), True, "a normalisation of each kind"),
    ("rgb_png", "2d", None, True, "an RGB picture"),
    ("rgb_png", "2d", (0.8, 1.6), True, "an RGB picture, resampled"),
]


def make(target: Path, seed: int, cases: int):
    kinds = {kind.name: kind for kind in KINDS}
    entries = []
    for number, (name, configuration, factors, labelled, note) in enumerate(CASES):
        folder = target / f"{name}_{number}_{configuration}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        entries.append({"case": folder.name, "configuration": configuration, "note": note,
                        **run(kinds[name], configuration, factors, labelled, folder, seed, cases)})
    write_json(target / "cases.json", entries)


def run(kind, configuration, factors, labelled, folder: Path, seed: int, cases: int) -> dict:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, names = raw_dataset(kind, cases, seed)
    case = names[0]
    plan = with_spacing(plans(kind), configuration, factors, spacing_of(kind, raw, case))
    description = json.loads((raw / "dataset.json").read_text())
    images = sorted((raw / "imagesTr").glob(f"{case}_*"))
    label = raw / "labelsTr" / f"{case}{kind.ending}"
    manager = PlansManager(plan)
    data, segmentation, properties = DefaultPreprocessor(verbose=False).run_case(
        [str(path) for path in images], str(label) if labelled else None, manager,
        manager.get_configuration(configuration), description)
    for path in images:
        shutil.copy(path, folder)
    if labelled:
        shutil.copy(label, folder / f"label_{label.name}")
    write_json(folder / "plans.json", plan)
    write_json(folder / "dataset.json", description)
    write_json(folder / "properties.json", plain(properties, folder))
    return {
        "images": [path.name for path in images],
        "label": f"label_{label.name}" if labelled else None,
        "data": write_array(folder, "data.npy", data),
        "seg": write_array(folder, "seg.npy", segmentation),
    }


def plans(kind) -> dict:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    path = preprocessed(kind) / "nnUNetPlans.json"
    if not path.is_file():
        if kind.name == "mixed_channels":
            few_draws(kind)
        else:
            fingerprint(kind)
        ExperimentPlanner(kind.dataset).plan_experiment()
    return json.loads(path.read_text())


def few_draws(kind):
    """The fingerprint with fewer draws, as four channels of 10^8 numbers need much memory."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    extractor = DatasetFingerprintExtractor(kind.dataset, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 1e6
    extractor.run()


def spacing_of(kind, raw: Path, case: str):
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

    reader = determine_reader_writer_from_file_ending(kind.ending, verbose=False)()
    return reader.read_images(sorted(str(path) for path in (raw / "imagesTr").glob(f"{case}_*")))[1]["spacing"]


def with_spacing(plan: dict, configuration: str, factors, spacing) -> dict:
    plan = copy.deepcopy(plan)
    if factors is not None:
        turned = [float(spacing[axis]) for axis in plan["transpose_forward"]][-len(factors):]
        plan["configurations"][configuration]["spacing"] = [s * f for s, f in zip(turned, factors)]
    return plan


def plain(properties: dict, folder: Path) -> dict:
    """The properties as JSON, with the places of the classes in files of their own."""
    whole = lambda values: [int(value) for value in values]
    found = {}
    if "sitk_stuff" in properties:
        found["sitk_stuff"] = {key: [float(v) for v in value] for key, value in properties["sitk_stuff"].items()}
    found["spacing"] = [float(value) for value in properties["spacing"]]
    found["shape_before_cropping"] = whole(properties["shape_before_cropping"])
    found["bbox_used_for_cropping"] = [whole(axis) for axis in properties["bbox_used_for_cropping"]]
    key = "shape_after_cropping_and_before_resampling"
    found[key] = whole(properties[key])
    found["class_locations"] = [
        {"class": list(name) if isinstance(name, tuple) else int(name),
         **write_array(folder, f"class_locations_{number}.npy", np.asarray(places, np.int32).reshape(-1, 4))}
        for number, (name, places) in enumerate(properties.get("class_locations", {}).items())
    ]
    return found
