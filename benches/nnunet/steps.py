"""nnU-Net's network by itself: `steps.py train|predict DATASET CONFIGURATION COUNT`.

`train` makes training steps on a batch of noise, `predict` predicts an image of noise that two patches
cover, with all mirrored forms. DATASET is a folder that nnU-Net has preprocessed.
"""

import sys

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from told import mean_seconds, tell
from trainer import make, synchronize, use_all_processors


def train(trainer):
    configuration = trainer.configuration_manager
    shape = (configuration.batch_size, trainer.num_input_channels, *configuration.patch_size)
    labels = trainer.label_manager.num_segmentation_heads
    extents = lambda scale: [round(size * part) for size, part in zip(configuration.patch_size, scale)]
    targets = [
        torch.randint(0, labels, (shape[0], 1, *extents(scale)), dtype=torch.int16)
        for scale in trainer._get_deep_supervision_scales()
    ]
    batch = {"data": torch.randn(shape), "target": targets}
    return lambda: trainer.train_step(batch)


def predict(trainer):
    patch = trainer.configuration_manager.patch_size
    trainer.set_deep_supervision_enabled(False)
    mirrored = tuple(range(len(patch)))
    predictor = nnUNetPredictor(use_mirroring=True, device=trainer.device, allow_tqdm=False)
    plans, network = trainer.plans_manager, trainer.network
    predictor.manual_initialization(
        network, plans, trainer.configuration_manager, None, trainer.dataset_json, "nnUNetTrainer", mirrored
    )
    extents = [*patch[:-1], 3 * patch[-1] // 2]
    image = torch.randn(trainer.num_input_channels, *([8] if len(patch) == 2 else []), *extents)
    return lambda: predictor.predict_sliding_window_return_logits(image)


what, dataset, configuration, count = sys.argv[1:]
use_all_processors()
step = {"train": train, "predict": predict}[what](make(dataset, configuration))
tell(mean_seconds(step, int(count), synchronize))
