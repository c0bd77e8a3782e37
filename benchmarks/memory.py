"""Memory and time of a training step by what `repeat` keeps for the backward pass: store, remat, invert.

    python -m benchmarks.memory --output=results/speed_memory.md

Stacks of couplings on noise: RealNVP (ActNorm, two affine couplings with networks 256x2; vectors of 64, batch 512) and Glow
(ActNorm, LU linear map of the channels, affine coupling with a ConvNet of 64 channels; images 8x8x12, batch 32). The program is
step.make_step with Adam. Memory is what XLA plans for temporary arrays beside arguments and results: it does not depend on the
machine's load. Times are ratios: the three programs of a row take turns, each turn is divided by that of store, and the median
is printed. Exit status 1 when invert takes more than LIMIT of store's memory at the greatest depth.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, get_args

import jax

from benchmarks import common
from configs.base import affine, base, mlp, repeat
from vaeflow import models
from vaeflow.bijectors.core.layer import Memory
from vaeflow.build import call
from vaeflow.training import optimizer
from vaeflow.training.configure import complete
from vaeflow.training.step import init_state, make_step

LIMIT = 1 / 3
MODES = get_args(Memory)
CONV = dict(kind="convnet", channels=(64, 64))
NORM, LINEAR = dict(kind="actnorm"), dict(kind="lu_linear")
STACKS: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {  # event, batch, parts; `unit` is the repeated one
    "RealNVP": (
        (64,),
        512,
        dict(
            unit=dict(kind="chain", of=("norm", "first", "second")),
            norm=NORM,
            first=affine("net", "half", False),
            second=affine("net", "half", True),
            net=mlp(256, 256),
        ),
    ),
    "Glow": (
        (8, 8, 12),
        32,
        dict(
            unit=dict(kind="chain", of=("norm", "linear", "coupling")),
            norm=NORM,
            linear=LINEAR,
            coupling=affine("net", "channel", False),
            net=CONV,
        ),
    ),
}


def program(name: str, depth: int, memory: str) -> tuple[int, Callable[[], float]]:
    """(bytes of temporary memory of a training step, a function that takes a step and returns its seconds)."""
    event, batch, parts = STACKS[name]
    c: Any = base()
    c.model = dict(kind="flow", event=event, layer="steps", flatten=False)
    c.parts = {"steps": repeat("unit", depth, memory), **parts}
    c = complete(c)
    chosen = call(optimizer.OptimConfig, c.optim.to_dict(), "optim")
    model, tx = models.build_model(c), optimizer.make_optimizer(chosen, c.train.steps)
    data = {"x": jax.random.normal(jax.random.key(0), (batch, *event))}
    state, fixed = init_state(jax.jit(model.init)(jax.random.key(1), data), tx, chosen.ema)
    compiled = jax.jit(make_step(model, tx, chosen.ema)).lower(state, fixed, data, jax.random.key(2)).compile()

    def step() -> float:
        began = time.perf_counter()
        jax.block_until_ready(compiled(state, fixed, data, jax.random.key(2)))
        return time.perf_counter() - began

    step()
    return compiled.memory_analysis().temp_size_in_bytes, step  # type: ignore[union-attr]


def main() -> None:
    """Measure, print, write; exit 1 above LIMIT."""
    p = common.parser(__doc__)
    p.add_argument("--depth", type=int, action="append", help="layers; default: 8 and 32")
    p.add_argument("--turns", type=int, default=15, help="steps of every program")
    flags = p.parse_args()
    depths = sorted(flags.depth or [8, 32])
    rows, over = [], []
    for name in STACKS:
        for depth in depths:
            programs = {memory: program(name, depth, memory) for memory in MODES}
            turns = [{memory: step() for memory, (_, step) in programs.items()} for _ in range(flags.turns)]
            for memory, (size, _) in programs.items():
                share = size / programs["store"][0]
                ratio, low, high = common.middle([turn[memory] / turn["store"] for turn in turns])
                rows.append([name, depth, memory, f"{size / 2**20:.1f}", f"{share:.3f}", f"{ratio:.2f}", f"{low:.2f} to {high:.2f}"])
                if memory == "invert" and depth == depths[-1] and share > LIMIT:
                    over.append(name)
    titles = ["stack", "depth", "memory", "temporary [MiB]", "of store's", "time / store", "quartiles"]
    notes = (
        "Temporary memory of one training step, beside parameters, optimiser state and data; what fits into the space of the results"
        " (the new state) before they are written does not count. Time: the median over turns."
    )
    common.sheet("What the backward pass of repeat keeps", titles, rows, notes, flags.output, "benchmarks.memory")
    if over:
        print(f"invert is above {LIMIT:.2f} of store's memory: {', '.join(over)}", file=sys.stderr)
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
