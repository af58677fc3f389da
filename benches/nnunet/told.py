"""Figures that a program tells of a part of itself, in the last line of its output."""

import json
import time


def tell(wall_seconds):
    """Says how long the part took that is compared."""
    print(json.dumps({"wall_seconds": wall_seconds}))


def mean_seconds(step, count, synchronize=lambda: None):
    """The mean time of `count` calls after one that nobody times."""
    step()
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return (time.perf_counter() - start) / count
