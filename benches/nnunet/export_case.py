"""The answer of a network that never was: `export_case.py CLASSES EDGE OUT`.

Its grid has `EDGE`³ voxels of 2 mm, the image's `2 EDGE`³ of 1 mm. Each class is a smooth hill around its own place; what is
far from all of them is background. nnU-Net's predictor gives logits as float16 and nnflow's as float32: each program gets its
own kind, of the same values.
"""

import json
import os
import sys

import numpy

classes, edge, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.makedirs(os.path.join(out, "logits", "case"))
os.makedirs(os.path.join(out, "cases", "case"))


def create(path, dtype):
    shape = (classes, edge, edge, edge)
    return numpy.lib.format.open_memmap(os.path.join(out, path), mode="w+", dtype=dtype, shape=shape)


def write(path, document):
    with open(os.path.join(out, path), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)


generator = numpy.random.default_rng(1234)
axis = numpy.arange(edge, dtype=numpy.float32)
whole, half = create("logits/case/logits.npy", "<f4"), create("logits_half.npy", "<f2")
for number, centre in enumerate(generator.uniform(0, edge, (classes, 3))):
    z, y, x = [(axis - middle) ** 2 for middle in centre]
    distance = numpy.sqrt(z[:, None, None] + y[None, :, None] + x[None, None, :])
    half[number] = 20 * (1 - distance / edge) if number else 14
    whole[number] = half[number]
whole.flush()
half.flush()

labels = {"background": 0} | {f"organ {number}": number for number in range(1, classes)}
write("dataset.json", {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"})

# The planner takes the spacing of the network's grid from here; of the intensities nothing is used.
names = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
intensities = {"0": dict.fromkeys(names, 1.0)}
write(
    "dataset_fingerprint.json",
    {
        "foreground_intensity_properties_per_channel": intensities,
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": [[edge] * 3],
        "spacings": [[2.0] * 3],
    },
)

image = {"shape": [2 * edge] * 3, "spacing": [1.0] * 3, "origin": [0.0] * 3, "direction": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]}
grid = {"transpose_forward": [0, 1, 2], "cropped_to": {"start": [0] * 3, "stop": [2 * edge] * 3}}
grid |= {"shape": [edge] * 3, "spacing": [2.0] * 3}
record = {"identifier": "case", "channels": 1, "file_ending": ".nii.gz", "labelled": False}
write("cases/case/case.json", record | {"geometry": image, "prepared": grid})
