"""Label images that could be predictions: `predictions.py REFERENCES OUT`.

Each reference is shifted by a voxel, which gives every measure something to count, and every second one has an island of
label 1 in a corner, so that removing all but the largest component of label 1 helps and no rule is free.
"""

import os
import sys

import numpy
import SimpleITK

ISLAND = 4

references, out = sys.argv[1:]
os.makedirs(out)
for number, name in enumerate(sorted(os.listdir(references))):
    image = SimpleITK.ReadImage(os.path.join(references, name))
    label = numpy.roll(SimpleITK.GetArrayFromImage(image), 1, axis=-1).astype(numpy.uint8)
    if number % 2:
        label[:ISLAND, :ISLAND, :ISLAND] = 1
    prediction = SimpleITK.GetImageFromArray(label)
    prediction.CopyInformation(image)
    SimpleITK.WriteImage(prediction, os.path.join(out, name), useCompression=True)
