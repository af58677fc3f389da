"""Networks that nnU-Net builds from plans, forth and back."""

from pathlib import Path

import numpy as np

from real import write_array, write_json

PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESIDUAL = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"

# Name, class, features, kernels, strides, units, decoder, input (b, c, spatial...), classes.
KINDS = [
    ("plain2d_deep", PLAIN, [4, 8, 12, 16], [[3, 3]] * 4, [[1, 1], [2, 2], [2, 2], [2, 1]], [2] * 4, [2] * 3, (2, 3, 24, 16), 4),
    ("plain3d_flat_kernels", PLAIN, [4, 6, 8], [[1, 3, 3], [3, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
     [2, 2, 2], [2, 2], (1, 2, 8, 12, 16), 3),
    ("plain3d_uneven_units", PLAIN, [4, 8, 8], [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 1]], [1, 2, 3], [1, 2],
     (2, 1, 8, 8, 10), 2),
    ("resenc2d", RESIDUAL, [4, 8, 8], [[3, 3]] * 3, [[1, 1], [2, 2], [2, 2]], [1, 2, 2], [1, 1], (2, 1, 16, 20), 3),
    ("resenc3d_aniso", RESIDUAL, [4, 6, 6], [[1, 3, 3], [3, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [1, 3, 2],
     [1, 1], (1, 2, 6, 12, 8), 2),
]


def make(target: Path, seed: int, cases: int):
    for number, (name, *rest) in enumerate(KINDS):
        (target / name).mkdir(exist_ok=True)
        one(target / name, seed * 100 + number, *rest)


def one(folder, seed, network_class, features, kernels, strides, units, decoder, shape, classes):
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    rank = len(shape) - 2
    keywords = {
        "n_stages": len(features), "features_per_stage": features,
        "conv_op": f"torch.nn.modules.conv.Conv{rank}d", "kernel_sizes": kernels, "strides": strides,
        ("n_conv_per_stage" if network_class == PLAIN else "n_blocks_per_stage"): units,
        "n_conv_per_stage_decoder": decoder, "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
    }
    imports = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    torch.manual_seed(seed)
    network = get_network_from_plans(network_class, keywords, imports, shape[1], classes, deep_supervision=True)
    statistics = {name: {"mean": float(values.mean()), "std": float(values.std()) if values.numel() > 1 else None}
                  for name, values in network.named_parameters()}
    with torch.no_grad():
        for values in network.parameters():
            # Biases that are 0 would hide a mistake with them.
            values.add_(0.05 * torch.randn_like(values))
    image = torch.randn(*shape)
    outputs = network(image)
    loss = sum((output * torch.cos(torch.arange(output.numel(), dtype=torch.float64)).float().view_as(output)).mean()
               for output in outputs)
    loss.backward()
    size = network.compute_conv_feature_map_size(shape[2:])
    np.save(folder / "input.npy", image.numpy())
    np.savez(folder / "state_dict.npz", **{name: values.numpy() for name, values in network.state_dict().items()})
    np.savez(folder / "gradients.npz", **{name: values.grad.numpy() for name, values in network.named_parameters() if values.grad is not None})
    write_json(folder / "network.json", {
        "architecture": {"network_class_name": network_class, "arch_kwargs": keywords, "_kw_requires_import": imports},
        "input_channels": shape[1], "output_channels": classes,
        "outputs": [write_array(folder, f"output_{index}.npy", output.detach().numpy()) for index, output in enumerate(outputs)],
        "state_dict_keys": list(network.state_dict()),
        "parameters": {name: list(values.shape) for name, values in network.named_parameters()},
        "n_parameters": sum(values.numel() for values in network.parameters()),
        "initialisation_statistics": statistics, "loss_for_gradients": float(loss),
        "conv_feature_map_size": int(size),
    })
