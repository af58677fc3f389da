"""nnU-Net's augmentation: `augment.py ZxYxX SAMPLES`, with the transforms of its trainer, in one thread as in its workers."""

import sys

import numpy
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from told import mean_seconds, tell

torch.set_num_threads(1)
patch = tuple(int(extent) for extent in sys.argv[1].split("x"))
angles = (-numpy.pi / 6, numpy.pi / 6)
initial = [int(extent) for extent in get_patch_size(patch, angles, angles, angles, (0.85, 1.25))]
scales = [[1.0] * 3, [0.5] * 3, [0.25] * 3]
transforms = nnUNetTrainer.get_training_transforms(patch, angles, scales, (0, 1, 2), False)
numpy.random.seed(1)
torch.manual_seed(1)
image = torch.randn(1, *initial)
# Two balls, one within the other, as organs and lesions are: regions, not noise.
axes = [torch.linspace(-1, 1, extent) for extent in initial]
distance = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij")).sqrt()
labels = ((distance < 0.6).short() + (distance < 0.3).short())[None]
tell(mean_seconds(lambda: transforms(image=image.clone(), segmentation=labels.clone()), int(sys.argv[2])))
