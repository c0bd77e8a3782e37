"""The process of torchcfm (PyTorch), in its own environment: `continuous WORK` (process.py).

Its training loop: sample_location_and_conditional_flow, squared error, Adam; draws by Euler steps in a loop, without a solver's own cost.
"""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch
from torchcfm import ConditionalFlowMatcher
from torchcfm.models.unet.unet import UNetModel

from benchmarks.peers import process, with_torch, works

VERSIONS = {name: metadata.version(name) for name in ("torchcfm", "torch")}


class Mlp(torch.nn.Module):
    """The network of vaeflow's work: random Fourier features of the time beside x [B, D], SiLU between layers."""

    def __init__(self, w: dict[str, Any]):
        super().__init__()
        (d,) = w["event"]
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(w["features"] // 2))
        sizes = (d + w["features"], *w["hidden"], d)
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.SiLU())]
        self.net = torch.nn.Sequential(*layers[:-1])

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The velocity [B, D] at times t [B]."""
        angle = t[:, None] * self.frequencies
        return self.net(torch.cat([x, torch.sin(angle), torch.cos(angle)], -1))


def network(name: str) -> Any:
    """The MLP, or the library's U-Net with the sizes of vaeflow's; both are called with (t, x)."""
    w = works.CONTINUOUS[name]
    if name == "mlp":
        return Mlp(w)
    height, width, channels = w["event"]
    assert height == width
    return UNetModel(
        image_size=height,
        in_channels=channels,
        model_channels=w["channels"],
        out_channels=channels,
        num_res_blocks=w["blocks"],
        attention_resolutions=(),
        channel_mult=w["multipliers"],
        use_scale_shift_norm=True,
        resblock_updown=True,
    )


def continuous(words: list[str]) -> Iterator[process.Answer]:
    """One of works.CONTINUOUS: a training step with Adam, draws."""
    w = works.CONTINUOUS[words[0]]
    torch.manual_seed(0)
    model, matcher = network(words[0]), ConditionalFlowMatcher(sigma=0.0)
    shape = w["event"] if len(w["event"]) == 1 else (w["event"][-1], *w["event"][:2])
    data = torch.randn(works.ROWS, *shape)

    def loss(x):
        t, x_t, velocity = matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        return torch.mean((model(t, x_t) - velocity) ** 2)

    def draw():
        x, n = torch.randn(works.POINTS, *shape), w["evaluations"]
        for i in range(n):
            x = x + model(torch.full((works.POINTS,), i / n), x) / n
        return x

    yield from with_torch.timed(w["batch"], model, data, loss, {"sample": draw}, VERSIONS)


if __name__ == "__main__":
    process.serve(continuous=continuous)
