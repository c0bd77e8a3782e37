"""What the processes of the two PyTorch libraries share: a training step, a batch's log_prob and draws, timed when they are asked for."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.peers import process, works

STEPS = 4  # of one call of `train`


def speed(
    name: str, model: Any, data: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], draw: Callable[[], Any], versions: Any
) -> Iterator[process.Answer]:
    """The task `speed`: steps with Adam on batches of data; log_prob (vae: the ELBO) of a batch and draws without gradients."""
    batch = works.WORKS[name]["batch"]
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

    runs = {"train": train, "log_prob": without(lambda: loss(batches[0])), "sample": without(draw)}
    for run in runs.values():
        run()
    parameters = sum(p.numel() for p in model.parameters())
    yield {"compile": {}, "versions": versions, "threads": torch.get_num_threads(), "parameters": parameters}
    yield from process.requests(runs, {"train": STEPS})
