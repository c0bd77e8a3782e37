"""Training speed of the streamed feed (data.place=stream) over that of the resident one (data.place=device).

    python -m benchmarks.feed --data_dir=~/tensorflow_datasets --output=results/speed_feed.md

Both train the same model from the same numbers in one process and take turns of equally many steps: rows or examples of the
batches, copy to the device, dispatch, log to the host, as `fit` does it. A ratio of 1 says that streaming costs nothing. MNIST
is left out where --data_dir does not have it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks import common
from vaeflow.training import loop, setup
from vaeflow.training.step import init_state

CONFIGS = ("configs/digits_vae.py", "configs/digits_vae.py:conv", "configs/mnist_vae.py", "configs/mnist_vae.py:conv")
PLACES = ("device", "stream")
GOAL = ("configs/mnist_vae.py:conv", 0.9)  # the least ratio of a config
STEPS = 10_000_000  # of the run that the feed believes in


def feeding(config: str, place: str, changes: dict[str, object], folder: str) -> Callable[[int], tuple[float, float]]:
    """A function of a number of steps that takes them: (seconds in all, seconds until the batches are on the host)."""
    x = setup.make_experiment(common.load(config, {**changes, "data.place": place, "train.steps": STEPS}))
    params, frozen, _ = setup.init_params(x)
    state, fixed = init_state(params, x.tx, x.optim.ema, frozen)
    state = x.devices.replicate(state)
    feed, shared, dispatch = loop._Loop(x, Path(folder)).program(fixed)
    step = 0

    def turn(count: int) -> tuple[float, float]:
        nonlocal state, step
        count = min(count, feed.capacity)
        began = time.perf_counter()
        chunk = feed.chunk(step, count)
        fed = time.perf_counter()
        state, log = dispatch(state, shared._replace(count=x.devices.replicate(np.int32(count))), chunk)
        jax.device_get(log)
        step += count
        return (time.perf_counter() - began) / count, (fed - began) / count

    return turn


def measure(config: str, turns: int, changes: dict[str, object]) -> list[object]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        feeds = [feeding(config, place, changes, folder) for place in PLACES]
        for turn in feeds:
            turn(2)  # compiles
        count = max(4 * 16, int(0.5 / feeds[0](8)[0]))  # many times the batches that are read ahead in the other feed's turn
        pairs = [[turn(count) for turn in feeds] for _ in range(turns)]
    ratio, low, high = common.middle([device[0] / stream[0] for device, stream in pairs])
    device, stream, fed = (statistics.median(pair[i][j] for pair in pairs) for i, j in ((0, 0), (1, 0), (1, 1)))
    return [config, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", round(1e6 * device), round(1e6 * stream), round(1e6 * fed), turns]


def main() -> None:
    """Measure, print, write; exit 1 where the goal is missed."""
    p = common.parser(__doc__)
    p.add_argument("--data_dir", type=Path, default=Path("~/tensorflow_datasets"), help="TFDS datasets, for MNIST")
    p.add_argument("--config", action="append", help=f"default: {', '.join(CONFIGS)}")
    p.add_argument("--turns", type=int, default=20, help="turns of each feed per config, of half a second or 64 steps")
    flags = p.parse_args()
    directory, rows = flags.data_dir.expanduser(), []
    for config in flags.config or CONFIGS:
        mnist = "mnist" in config
        if mnist and not (directory / "mnist").is_dir():
            print(f"{config} is left out: {directory} has no mnist (--data_dir, or python -m experiments.prepare --dataset=mnist)")
            continue
        rows.append(measure(config, flags.turns, {"data.dir": directory} if mnist else {}))
    titles = ["config", "stream / device", "quartiles", "device [us/step]", "stream [us/step]", "of it batches [us]", "turns"]
    notes = "stream / device is the ratio of steps per second, the median over pairs of turns: above 1 streaming is faster."
    missed = [row for row in rows if row[0] == GOAL[0] and float(str(row[1])) < GOAL[1]]
    notes += f" Goal for {GOAL[0]}: {GOAL[1]}{', MISSED' * bool(missed)}."
    common.sheet("Steps per second of the streamed feed over the resident one", titles, rows, notes, flags.output, "benchmarks.feed")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
