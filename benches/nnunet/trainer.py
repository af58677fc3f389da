"""nnU-Net's trainer, as the scripts beside this one use it."""

import json
import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

FOLD = 0


class ShortTrainer(nnUNetTrainer):
    """As many batches as a benchmark has the time for, and no whole images at the end."""

    # nnU-Net looks its own arguments up by their names, in subclasses as well.
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = 5
        self.num_val_iterations_per_epoch = 2

    def perform_actual_validation(self, save_probabilities=False):
        pass


def device():
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_all_processors():
    """As nnU-Net's own commands do before they train or predict on a CPU."""
    torch.set_num_threads(int(os.environ["nnUNet_def_n_proc"]))


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make(dataset, configuration, trainer_class=nnUNetTrainer):
    """A trainer of the dataset's folder among nnU-Net's preprocessed ones, ready to train."""
    read = lambda name: json.load(open(os.path.join(dataset, name), encoding="utf-8"))
    plans = {**read("nnUNetPlans.json"), "continue_training": False}
    trainer = trainer_class(plans, configuration, FOLD, read("dataset.json"), device())
    trainer.initialize()
    return trainer
