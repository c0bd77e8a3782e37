"""What the processes of the two PyTorch libraries share: a training step, a batch's log_prob and draws, timed when they are asked for."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from benchmarks.peers import process, works

STEPS = 4  # of one call of `train`


def speed(
    name: str, model: Any, data: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], draw: Callable[[], Any], versions: Any
) -> Iterator[process.Answer]:
    """The task `speed`: steps with Adam on batches of data; log_prob (vae: the ELBO) of a batch and draws without gradients."""
    batch = works.WORKS[name]["batch"]
    yield from timed(batch, model, data, loss, {"log_prob": lambda: loss(data[:batch]), "sample": draw}, versions)


def timed(
    batch: int,
    model: Any,
    data: torch.Tensor,
    loss: Callable[[torch.Tensor], torch.Tensor],
    others: Mapping[str, Callable[[], Any]],
    versions: Any,
) -> Iterator[process.Answer]:
    """Steps with Adam on batches of data, and `others`, which run without gradients."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = data.split(batch)

    def train():
        for x in batches[:STEPS]:
            optimizer.zero_grad()
            value = loss(x)
            value.backward()
            optimizer.step()
            value.item()

    def without(run: Callable[[], Any]) -> Callable[[], Any]:
        def call():
            with torch.inference_mode():
                return run()

        return call

    runs = {"train": train} | {name: without(run) for name, run in others.items()}
    for run in runs.values():
        run()
    parameters = sum(p.numel() for p in model.parameters())
    yield {"compile": {}, "versions": versions, "threads": torch.get_num_threads(), "parameters": parameters}
    yield from process.requests(runs, {"train": STEPS})
