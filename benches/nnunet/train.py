"""nnU-Net's training, shortened: `train.py DATASET CONFIGURATION`, from preprocessed cases to the last checkpoint."""

import sys

from trainer import ShortTrainer, make, use_all_processors

use_all_processors()
make(sys.argv[1], sys.argv[2], ShortTrainer).run_training()
