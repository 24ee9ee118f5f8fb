"""Weights that are converted once give autocast's own numbers."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from beam_zoo.inference.half_weights import with_half_weights


def features(encoder: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return encoder(images)


@pytest.mark.parametrize("name", ["convnext_atto", "test_resnet", "efficientnet_lite0", "test_vit"])
def test_the_same_bits(name):
    torch.manual_seed(3)
    encoder = timm.create_model(name, num_classes=0).eval()
    size = encoder.pretrained_cfg["input_size"][1:]
    images = torch.rand(5, 3, *size)
    half = with_half_weights(encoder, torch.bfloat16, images[:1])
    assert half is not encoder
    assert any(weight.dtype == torch.bfloat16 for weight in half.parameters())
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(features(half, images), features(encoder, images), rtol=0, atol=0)


class Scaled(nn.Linear):
    """Uses its weight in another way before it multiplies."""

    def forward(self, x):
        return functional.linear(x, self.weight * 1.7, self.bias)


class Borrows(nn.Module):
    """Uses the weight of another layer in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return functional.linear(x, self.layer.weight * 1.7)


class Refuses(Borrows):
    """Multiplies without autocast."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.layer(x)


@pytest.mark.parametrize("kind", [Borrows, Refuses])
def test_a_layer_that_is_used_otherwise(kind):
    encoder = kind().eval()
    assert with_half_weights(encoder, torch.bfloat16, torch.rand(1, 8)) is encoder


def test_a_layer_of_another_class_is_left_alone():
    encoder = nn.Sequential(Scaled(8, 8), nn.Linear(8, 4)).eval()
    half = with_half_weights(encoder, torch.bfloat16, torch.rand(1, 8))
    assert [layer.weight.dtype for layer in half] == [torch.float32, torch.bfloat16]
