"""Weights that autocast would make smaller at every forward pass, made so once: the same numbers, sooner."""

import copy

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.Linear)
"""Layers (no subclasses, which may do something else with their weights) whose weights autocast converts."""


def with_half_weights(encoder: nn.Module, dtype: torch.dtype, image: torch.Tensor) -> nn.Module:
    """An encoder for use under autocast, whose convolutions and linear layers have their weights in `dtype` already.

    With few images at a time the conversion of all weights is up to a tenth of a forward pass.

    Args:
        encoder: in float32.
        dtype: of autocast.
        image: what the encoder takes, of one image, on its device.

    Returns:
        A copy with such weights if its features are the same bits, for that image; else the encoder as it is: some layer
        uses a weight in another way.
    """
    half = copy.deepcopy(encoder)
    for layer in half.modules():
        if type(layer) in LAYERS:
            layer.to(dtype)
    with torch.inference_mode(), torch.autocast(image.device.type, dtype):
        expected = encoder(image)
        try:
            found = half(image)
        except RuntimeError:  # two types in one operation
            return encoder
    return half if torch.equal(found, expected) else encoder
