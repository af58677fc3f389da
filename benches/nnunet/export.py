"""nnU-Net's side of the export: `export.py CASE OUT`, with what `export_case.py` has made in the folder CASE.

It does what nnU-Net's predictor does with the logits of a case, which it has in memory as float16.
"""

import os
import sys

import numpy
import torch
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

case, out = sys.argv[1:]
plans = PlansManager(os.path.join(case, "plan", "plans.json"))
logits = torch.from_numpy(numpy.load(os.path.join(case, "logits_half.npy")))
shape = [2 * extent for extent in logits.shape[1:]]
properties = {
    "spacing": [1.0, 1.0, 1.0],
    "sitk_stuff": {
        "spacing": (1.0, 1.0, 1.0),
        "origin": (0.0, 0.0, 0.0),
        "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    },
    "shape_before_cropping": shape,
    "bbox_used_for_cropping": [[0, extent] for extent in shape],
    "shape_after_cropping_and_before_resampling": shape,
}
configuration = plans.get_configuration("3d_fullres")
description = os.path.join(case, "dataset.json")
export_prediction_from_logits(logits, properties, configuration, plans, description, out)
