"""PolyLRScheduler, and torch.optim.SGD with clip_grad_norm_."""

from pathlib import Path

import numpy as np

from real import write_json


def make(target: Path, seed: int, cases: int):
    import torch
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    tables = []
    for rate, epochs, exponent in [(0.01, 250, 0.9), (0.003, 77, 0.9)]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        scheduler = PolyLRScheduler(optimizer, rate, epochs, exponent)
        rates = []
        for epoch in range(epochs):
            scheduler.step(epoch)
            rates.append(optimizer.param_groups[0]["lr"])
        tables.append({"initial_lr": rate, "epochs": epochs, "exponent": exponent, "lr_at_epoch_start": rates})
    write_json(target / "poly_lr.json", tables)

    random = np.random.RandomState(seed)
    parameter = torch.nn.Parameter(torch.from_numpy(random.normal(size=9).astype(np.float32)))
    start, steps = parameter.detach().tolist(), []
    optimizer = torch.optim.SGD([parameter], lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    for step in range(6):
        gradient = (random.normal(size=9) * 10.0 ** (step % 3)).astype(np.float32)
        parameter.grad = torch.from_numpy(gradient.copy())
        norm = torch.nn.utils.clip_grad_norm_([parameter], 12)
        clipped = parameter.grad.tolist()
        optimizer.step()
        steps.append({"gradient": gradient.tolist(), "norm": float(norm), "clipped": clipped,
                      "parameter_after": parameter.detach().tolist(),
                      "momentum_buffer": optimizer.state[parameter]["momentum_buffer"].tolist()})
    write_json(target / "sgd_steps.json", {"start": start, "lr": 0.01, "momentum": 0.99, "nesterov": True,
                                           "weight_decay": 3e-5, "clip_norm": 12, "steps": steps})
