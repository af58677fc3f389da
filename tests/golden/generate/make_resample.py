"""resample_data_or_seg_to_shape on random images, scores and label maps."""

from pathlib import Path

import numpy as np

from real import write_array, write_json

# Kind, shape [c, z, y, x], current and new spacing, order, whether it is a label map, force_separate_z.
KINDS = [
    ("data_iso", (2, 11, 13, 12), (1.0, 0.9, 1.1), (1.6, 0.7, 1.3), 3, False, None),
    ("data_sepz_cur", (1, 5, 15, 16), (5.0, 0.8, 0.9), (3.1, 1.0, 0.7), 3, False, None),
    ("data_sepz_last", (1, 14, 15, 5), (0.8, 0.9, 4.5), (1.0, 0.7, 3.0), 3, False, None),
    ("data_sepz_new", (1, 12, 14, 13), (1.0, 1.1, 0.9), (4.0, 0.8, 1.2), 3, False, None),
    ("data_tied_max", (1, 9, 8, 10), (0.3, 1.3, 1.3), (0.5, 0.9, 0.9), 3, False, None),
    ("data_forced", (1, 9, 12, 11), (1.2, 1.0, 1.0), (0.8, 0.7, 1.4), 3, False, True),
    ("data_unforced", (1, 5, 12, 11), (5.0, 1.0, 1.0), (3.0, 1.4, 0.8), 3, False, False),
    ("data_single_slice", (2, 1, 17, 19), (999.0, 1.0, 1.0), (999.0, 0.7, 1.3), 3, False, None),
    ("data_one_voxel", (1, 1, 1, 9), (1.0, 1.0, 1.0), (0.5, 0.5, 0.7), 3, False, None),
    ("prob_iso", (3, 8, 9, 7), (1.3, 1.3, 1.3), (0.8, 1.0, 1.1), 1, False, None),
    ("prob_sepz", (3, 5, 11, 9), (4.0, 1.0, 1.0), (2.3, 0.6, 0.9), 1, False, None),
    ("seg_iso", (1, 13, 9, 12), (1.0, 1.0, 1.0), (1.37, 0.83, 1.71), 1, True, None),
    ("seg_sepz", (1, 5, 13, 15), (5.0, 0.9, 0.9), (2.2, 1.3, 0.7), 1, True, None),
    ("seg_half_ties", (1, 8, 6, 10), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 1, True, None),
    ("seg_up_ties", (1, 5, 6, 4), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0), 1, True, None),
]


def make(target: Path, seed: int, cases: int):
    entries = []
    for number, (kind, shape, current, new, order, is_seg, forced) in enumerate(KINDS):
        random = np.random.RandomState([seed, number])
        case = f"case_{number:02d}_{kind}"
        (target / case).mkdir(exist_ok=True)
        entries.append({"case": case, **one(target / case, random, shape, current, new, order, is_seg, forced)})
    write_json(target / "cases.json", entries)


def one(folder, random, shape, current, new, order, is_seg, forced) -> dict:
    from nnunetv2.preprocessing.resampling.default_resampling import (
        compute_new_shape, determine_do_sep_z_and_axis, resample_data_or_seg_to_shape)

    new_shape = [max(1, int(extent)) for extent in compute_new_shape(shape[1:], current, new)]
    if is_seg:
        image = random.randint(-1, 4, shape).astype(np.int16)
    else:
        image = (random.normal(size=shape) * random.uniform(0.5, 300) + random.uniform(-50, 50)).astype(np.float32)
    keywords = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": forced}
    result = resample_data_or_seg_to_shape(image, new_shape, current, new, **keywords)
    separate, axis = determine_do_sep_z_and_axis(forced, current, new)
    return {
        "current_spacing": current, "new_spacing": new, "new_shape": new_shape, "kwargs": keywords,
        "separate_z": bool(separate), "axis": None if axis is None else int(np.atleast_1d(axis)[0]),
        "input": write_array(folder, "input.npy", image),
        "output": write_array(folder, "output.npy", np.asarray(result).astype(image.dtype)),
        "near_tie": write_array(folder, "near_tie.npy", near_ties(image, new_shape, separate, axis)) if is_seg else None,
    }


def near_ties(labels, new_shape, separate, axis):
    """Where the two best labels have nearly the same score, so that the last bit decides."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    scores = []
    for label in np.unique(labels):
        one_hot = (labels == label).astype(np.float64)
        scores.append(resample_data_or_seg(one_hot, new_shape, is_seg=False, axis=axis, order=1,
                                           do_separate_z=separate, order_z=0, dtype_out=np.float64)[0])
    best = np.sort(np.stack(scores), 0)
    return ((best[-1] - best[-2]) < 1e-6).astype(np.uint8)[None]
