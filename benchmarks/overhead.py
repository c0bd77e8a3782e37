"""What the training loop adds to a step: time per step through `fit` over that of the bare scanned step.

    python -m benchmarks.overhead --output=results/speed_overhead.md

bare   jitted lax.scan over the step function that `fit` itself uses (step.make_step): the data and the rows of every step are
       on the device already, one fold_in a step, the losses come out; nothing is written, checked, drawn or read
fit    whole turns of the loop of vaeflow/training/loop.py, from the choice of the dispatch's length to the look at the checkpoints: rows
       of the batches, dynamic dispatch length, log of every metric, the test for non-finite values, metrics.jsonl, TensorBoard,
       progress. Evaluation and saving are left out (none is due), and the first two turns: they compile

Both alternate in one process: a bare scan before and after every turn, so that a busy machine slows both. The ratio is the
median over turns of fit / mean of its two neighbours. Exit status 1 when a ratio is above LIMIT.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import common
from vaeflow import data
from vaeflow.errors import Stopped
from vaeflow.training import setup
from vaeflow.training.loop import _Loop
from vaeflow.training.step import State, init_state, make_step

CONFIGS = ("configs/digits_vae.py", "configs/densities.py")
LIMIT = 1.10
WARM = 2  # turns that compile or have no rate yet
STEPS = 10_000_000  # never reached: the benchmark stops the run


def bare_scan(x: setup.Experiment, steps: int) -> Callable[[], float]:
    """A function that runs `steps` scanned steps, continuing from its last state, and returns the seconds of one."""
    params, frozen, _ = setup.init_params(x)
    state, fixed = init_state(params, x.tx, x.optim.ema, frozen)
    split = x.source.train
    arrays = {"x": jnp.asarray(split.x)} | ({} if split.context is None else {"context": jnp.asarray(split.context)})
    rows = jnp.asarray(data.indices(0, 0, steps, len(split.x), x.batch))
    step = make_step(x.model, x.tx, x.optim.ema)

    def scan(state: State, fixed: Any, arrays: Any, rows: Any, key: Any) -> tuple[State, Any]:
        def body(state: State, row: Any) -> tuple[State, Any]:
            batch = {name: a[row] for name, a in arrays.items()}
            state, metrics = step(state, fixed, batch, jax.random.fold_in(key, state.step))
            return state, metrics["loss"]

        return jax.lax.scan(body, state, rows)

    compiled = jax.jit(scan, donate_argnums=0).lower(state, fixed, arrays, rows, jax.random.key(0)).compile()

    def run() -> float:
        nonlocal state
        began = time.perf_counter()
        state, losses = jax.block_until_ready(compiled(state, fixed, arrays, rows, jax.random.key(0)))
        return (time.perf_counter() - began) / losses.size

    run()
    return run


class Timed(_Loop):
    """The loop of fit with a bare scan between its turns, stopped after `turns` of them."""

    def __init__(self, x: setup.Experiment, directory: Path, bare: Callable[[], float], turns: int):
        """The scan runs first after turn 0, and so before turn 1."""
        super().__init__(x, directory)
        self.bare, self.left = bare, turns + WARM
        self.scans: list[float] = []  # seconds a step, one after every turn
        self.turns: list[tuple[float, float, float, int]] = []  # seconds a step in all, in the dispatch, in the recorder's rows; steps
        self.steps, self.wrote = 0, 0.0
        self.began, self.before = time.perf_counter(), 0.0
        self.add, self.recorder.add = self.recorder.add, self._add  # type: ignore[method-assign]

    def _add(self, step: int, count: int, *args: Any) -> None:
        began = time.perf_counter()
        self.add(step, count, *args)
        self.steps, self.wrote = count, time.perf_counter() - began

    def _committed(self, wait: bool) -> None:
        super()._committed(wait)
        if self.left:
            whole, dispatch = time.perf_counter() - self.began, self._dispatched() - self.before
            self.turns.append((whole / self.steps, dispatch / self.steps, self.wrote / self.steps, self.steps))
            self.scans.append(self.bare())
            self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGTERM)
        self.began, self.before = time.perf_counter(), self._dispatched()

    def _dispatched(self) -> float:
        return self.seconds["steps"] + self.seconds["compile"]


def measure(config: str, turns: int) -> list[Any]:
    """One row of the table."""
    x = setup.make_experiment(common.load(config, {f"train.{name}": STEPS for name in ("steps", "eval_every", "checkpoint_every")}))
    length = max(1, min(1024, int(x.train.dispatch_seconds / bare_scan(x, 64)())))
    with tempfile.TemporaryDirectory() as folder:
        loop = Timed(x, Path(folder), bare_scan(x, length), turns)
        with contextlib.suppress(Stopped):
            loop.run()
    bare = [(a + b) / 2 for a, b in zip(loop.scans[WARM - 1 :], loop.scans[WARM:], strict=False)]
    found = loop.turns[WARM:]
    ratio, low, high = common.middle([whole / b for (whole, *_), b in zip(found, bare, strict=True)])
    parts = [(dispatch, wrote, whole - dispatch - wrote) for whole, dispatch, wrote, _ in found]
    shares = (statistics.median(part[i] / b for part, b in zip(parts, bare, strict=True)) for i in range(3))
    steps = round(statistics.median(steps for *_, steps in found))
    times = [f"{share:.4f}" for share in shares]
    return [config, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", *times, round(1e6 * statistics.median(bare)), steps, len(found)]


def main() -> None:
    """Measure, print, write; exit 1 above LIMIT."""
    p = common.parser(__doc__)
    p.add_argument("--config", action="append", help=f"default: {' and '.join(CONFIGS)}")
    p.add_argument("--turns", type=int, default=40, help="turns of the loop per config, about a second each with its scan")
    flags = p.parse_args()
    rows = [measure(config, flags.turns) for config in flags.config or CONFIGS]
    titles = ["config", "fit / bare", "quartiles", "dispatch", "rows written", "rest", "bare [us/step]", "steps/turn", "turns"]
    notes = (
        "fit / bare is the median over turns. Its parts, over the bare step too: the dispatch (rows of the batches, program, log to the"
        " host), the rows of metrics.jsonl and TensorBoard, the rest of the loop. Evaluation and saving are excluded."
    )
    sheet = "Time per step through fit over the bare scanned step"
    common.sheet(sheet, titles, rows, notes, flags.output, "benchmarks.overhead")
    over = [row[0] for row in rows if float(row[1]) > LIMIT]
    if over:
        print(f"above {LIMIT}: {', '.join(over)}", file=sys.stderr)
    sys.exit(bool(over))


if __name__ == "__main__":
    main()
