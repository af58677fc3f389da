"""A model with nnU-Net's initial weights, for both programs to predict with: `model.py DATASET CONFIGURATION OUT`.

Its weights say nothing about images, and cost as much as any others.
"""

import os
import shutil
import sys

import torch

from trainer import FOLD, make

dataset, configuration, out = sys.argv[1:]
torch.manual_seed(1)
trainer = make(dataset, configuration)
# nnU-Net decides this when a training starts.
trainer.inference_allowed_mirroring_axes = tuple(range(len(trainer.configuration_manager.patch_size)))
fold = os.path.join(out, f"fold_{FOLD}")
os.makedirs(fold)
trainer.save_checkpoint(os.path.join(fold, "checkpoint_final.pth"))
shutil.copy(os.path.join(dataset, "nnUNetPlans.json"), os.path.join(out, "plans.json"))
shutil.copy(os.path.join(dataset, "dataset.json"), out)
