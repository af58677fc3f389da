"""Makes golden vectors with the real nnU-Net: `python generate.py --help`.

Which versions of what, and what each folder holds, stands in ../README.md.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

COMPONENTS = ["preprocess", "fingerprint", "resample", "splits", "infer", "evaluate", "postprocess", "planner", "loss",
              "network", "schedule", "export", "model"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("components", nargs="+", choices=COMPONENTS)
    parser.add_argument("--output", type=Path, required=True, help="the folder that takes one folder a component")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=3, help="how many cases a dataset has")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        # nnU-Net reads these when it is imported.
        for name in ["raw", "preprocessed", "results"]:
            os.environ[f"nnUNet_{name}"] = str(Path(work) / name)
            (Path(work) / name).mkdir()
        import torch

        torch.set_num_threads(1)
        for component in arguments.components:
            target = arguments.output / component
            target.mkdir(parents=True, exist_ok=True)
            module = __import__(f"make_{component}")
            module.make(target, arguments.seed, arguments.cases)
            for cache in target.rglob("__pycache__"):
                shutil.rmtree(cache)
            print(f"wrote {target}")


if __name__ == "__main__":
    main()
