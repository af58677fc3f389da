"""Holds what nnflow made against what nnU-Net made of the same data: `compare.py WHAT NNUNET NNFLOW`.

Prints one line for each thing compared (see deviations.py). Limits are those of the golden vectors.
"""

import json
import os
import pickle
import sys

import blosc2
import numpy
import SimpleITK

import nna
from deviations import Deviations, relative

# Z-scores are about 1; float32 sums of nnU-Net and float64 sums of nnflow differ in the sixth digit.
IMAGE_LIMIT = 1e-4
# Labels whose interpolated scores are nearly equal may come out either way.
LABEL_LIMIT = 0.01
STATISTICS_LIMIT = 1e-6
# A number that is a count, a shape or a decision has to be the same.
EXACT = 1e-12


def fingerprint(theirs, ours, deviations):
    """Two `dataset_fingerprint.json`."""
    theirs, ours = load(theirs), load(ours)
    for key in ("spacings", "shapes_after_crop", "median_relative_size_after_cropping"):
        deviations.same("spacings and shapes", theirs[key], ours[key])
    key = "foreground_intensity_properties_per_channel"
    deviations.same("channels", sorted(theirs[key]), sorted(ours[key]))
    for channel, statistics in theirs[key].items():
        for name, value in statistics.items():
            deviations.add("intensity statistics, relative", relative(value, ours[key][channel][name]), STATISTICS_LIMIT)


def plans(theirs, ours, deviations):
    """Two `plans.json`: all but the dataset's name, which is that of the folder for one and of the workflow for the other."""
    theirs, ours = dict(leaves(load(theirs))), dict(leaves(load(ours)))
    for leaf in sorted((theirs.keys() | ours.keys()) - {"/dataset_name"}):
        first, second = theirs.get(leaf), ours.get(leaf)
        if leaf.startswith("/foreground_intensity_properties_per_channel/") and None not in (first, second):
            deviations.add("intensity statistics, relative", relative(first, second), STATISTICS_LIMIT)
        elif isinstance(first, float) and isinstance(second, float):
            deviations.add("spacings, relative", relative(first, second), 1e-9)
        else:
            deviations.same("plan, entries that differ", (leaf, first), (leaf, second))


def preprocessed(theirs, ours, deviations):
    """Two folders of preprocessed cases: `CASE.b2nd`, `CASE_seg.b2nd`, `CASE.pkl`, and `CASE/image.nna` and so on."""
    cases = sorted(name[: -len(".pkl")] for name in os.listdir(theirs) if name.endswith(".pkl"))
    deviations.same("cases", cases, sorted(name for name in os.listdir(ours) if not name.startswith(".")))
    for case in cases:
        folder = os.path.join(ours, case)
        image = blosc2.open(os.path.join(theirs, f"{case}.b2nd"), mode="r")[:]
        label = blosc2.open(os.path.join(theirs, f"{case}_seg.b2nd"), mode="r")[:]
        our_image, our_label = nna.read(os.path.join(folder, "image.nna")), nna.read(os.path.join(folder, "label.nna"))
        deviations.same("shapes", (image.shape, label.shape), (our_image.shape, our_label.shape))
        if image.shape != our_image.shape:
            continue
        # CT and unnormalised channels have large values: the deviation is counted in units of the value there.
        difference = numpy.abs(image - our_image) / numpy.maximum(1, numpy.abs(image))
        deviations.add("images", difference.max(initial=0), IMAGE_LIMIT)
        deviations.add("labels, share of voxels", (label != our_label).mean(), LABEL_LIMIT)
        with open(os.path.join(theirs, f"{case}.pkl"), "rb") as file:
            drawn = pickle.load(file)["class_locations"]
        if (label == our_label).all():
            locations(drawn, folder, deviations)


def locations(drawn, folder, deviations):
    """Voxels of each class: rows `(0, a0, a1, a2)`, and places in C order. Comparable where the labels are equal."""
    index = load(os.path.join(folder, "locations.json"))
    places = nna.read(os.path.join(folder, "locations.nna")).reshape(-1)
    begin = 0
    for target in index["targets"]:
        ours = places[begin : begin + target["count"]]
        begin += target["count"]
        key = int(target["name"]) if target["name"].isdecimal() else tuple(target["labels"])
        rows = numpy.asarray(drawn[key], dtype=numpy.int64).reshape(-1, 4)
        theirs = numpy.ravel_multi_index(rows[:, 1:].T, index["shape"]) if len(rows) else rows[:, 0]
        deviations.same("class locations", len(theirs), len(ours))
        if len(theirs) == len(ours):
            deviations.add("class locations, share that differs", (theirs != ours).mean() if len(ours) else 0, 0)


def summary(theirs, ours, deviations):
    """Two `summary.json`, of which the paths of files are not compared."""
    theirs, ours = load(theirs), load(ours)
    deviations.same("cases", len(theirs["metric_per_case"]), len(ours["metric_per_case"]))
    by_name = {os.path.basename(case["prediction_file"]): case["metrics"] for case in ours["metric_per_case"]}
    for case in theirs["metric_per_case"]:
        measures(case["metrics"], by_name[os.path.basename(case["prediction_file"])], deviations)
    measures(theirs["mean"], ours["mean"], deviations)
    measures({"": theirs["foreground_mean"]}, {"": ours["foreground_mean"]}, deviations)


def measures(theirs, ours, deviations):
    """Measures by label and name; NaN equals NaN."""
    for label, metrics in theirs.items():
        for name, value in metrics.items():
            other = ours[label][name]
            both_nan = value != value and other != other
            deviations.add("measures, relative", 0 if both_nan else relative(value, other), EXACT)


def postprocessing(theirs, ours, deviations):
    """A folder with `postprocessing.json` and `postprocessed`, and one with `rules` and `labels`: rules and label images."""
    found = load(os.path.join(theirs, "postprocessing.json"))["postprocessing_kwargs"]
    as_list = lambda labels: list(labels) if isinstance(labels, list) else [labels]
    steps = load(os.path.join(ours, "rules", "postprocessing.json"))["steps"]
    deviations.same("rules", [as_list(step["labels_or_regions"]) for step in found], [step["labels"] for step in steps])
    folder = os.path.join(theirs, "postprocessed")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".nii.gz"):
            label = os.path.join(ours, "labels", name.removesuffix(".nii.gz"), "labels.nii.gz")
            label_image(os.path.join(folder, name), label, deviations, 0)


def labels(theirs, ours, deviations):
    """Two label images that come from scores, which may be nearly equal."""
    label_image(theirs, ours, deviations, LABEL_LIMIT)


def predictions(theirs, ours, deviations):
    """Two folders of label images. Networks without training give nearly equal scores everywhere."""
    names = [name for name in sorted(os.listdir(theirs)) if name.endswith(".nii.gz")]
    deviations.same("images", names, sorted(name for name in os.listdir(ours) if name.endswith(".nii.gz")))
    for name in names:
        label_image(os.path.join(theirs, name), os.path.join(ours, name), deviations, LABEL_LIMIT)


def label_image(theirs, ours, deviations, limit):
    first, second = SimpleITK.ReadImage(theirs), SimpleITK.ReadImage(ours)
    deviations.same("shapes", first.GetSize(), second.GetSize())
    if first.GetSize() == second.GetSize():
        differs = SimpleITK.GetArrayViewFromImage(first) != SimpleITK.GetArrayViewFromImage(second)
        deviations.add("labels, share of voxels", differs.mean(), limit)


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def leaves(value, path=""):
    """Every number, text and empty container of a document, with its path."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    children = list(children)
    if not children:
        yield path, value
    for key, child in children:
        yield from leaves(child, f"{path}/{key}")


if __name__ == "__main__":
    what, theirs, ours = sys.argv[1:]
    found = Deviations()
    comparisons = (fingerprint, plans, preprocessed, summary, postprocessing, labels, predictions)
    {comparison.__name__: comparison for comparison in comparisons}[what](theirs, ours, found)
    found.report()
