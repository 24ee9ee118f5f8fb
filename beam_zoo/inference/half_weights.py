"""Convert an encoder's weights to autocast's type once, instead of at every forward pass."""

import copy

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.Linear)
"""Layers whose weights autocast converts; not their subclasses, which may use the weights otherwise."""


def with_half_weights(encoder: nn.Module, dtype: torch.dtype, image: torch.Tensor) -> nn.Module:
    """A copy of an encoder for use under autocast, with `dtype` weights in convolutions and linear layers.

    With few images at a time the conversion of all weights is up to a tenth of a forward pass.

    Args:
        encoder: in float32.
        dtype: of autocast.
        image: the encoder's input for one image, on its device.

    Returns:
        The copy, if its features for that image are the same bits; else the encoder itself.
    """
    half = copy.deepcopy(encoder)
    for layer in half.modules():
        if type(layer) in LAYERS:
            layer.to(dtype)
    with torch.inference_mode(), torch.autocast(image.device.type, dtype):
        expected = encoder(image)
        try:
            found = half(image)
        except RuntimeError:  # another layer uses such a weight together with float32
            return encoder
    return half if torch.equal(found, expected) else encoder
