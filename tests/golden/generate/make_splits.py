"""generate_crossval_split and the random 80:20 folds of nnUNetTrainer.do_split."""

from pathlib import Path

import numpy as np

from real import write_json


def make(target: Path, seed: int, cases: int):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    random = np.random.RandomState(seed)
    entries = []
    for n in [5, 7, 10, 23, 64, 210]:
        names = [f"{prefix}_{number}" for prefix in ["case", "Case", "pat"] for number in range(n)]
        keys = [str(name) for name in random.permutation(names)[:n]]
        folds = generate_crossval_split(np.sort(keys), seed=12345, n_splits=5)
        entries.append({"n": n, "keys_unsorted": keys,
                        "splits": [{part: [str(key) for key in fold[part]] for part in ["train", "val"]} for fold in folds],
                        "random_80_20": {str(fold): random_fold(keys, fold) for fold in [5, 6, 11]}})
    write_json(target / "splits.json", entries)


def random_fold(keys, fold: int) -> dict:
    """As do_split draws it where a fold is not among those of the file."""
    random = np.random.RandomState(seed=12345 + fold)
    keys = np.sort(list(keys))
    train = random.choice(len(keys), int(len(keys) * 0.8), replace=False)
    val = [index for index in range(len(keys)) if index not in train]
    return {"train": [str(keys[index]) for index in train], "val": [str(keys[index]) for index in val]}
