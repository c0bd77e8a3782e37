"""fit: the training loop. Started again with the same workdir, it resumes from the newest good checkpoint.

Every number of a run is a function of (config, seed, step): the rows of a batch, the noise, the log. How many steps share a
dispatch is only a matter of time, so a run that was killed ends bit-equal to one that was not. What is kept of it: recorder.py.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import data, rng
from vaeflow.errors import Stopped
from vaeflow.runs import progress
from vaeflow.runs.metrics import Progress
from vaeflow.training.devices import Devices
from vaeflow.training.recorder import Recorder, Validation
from vaeflow.training.setup import Experiment
from vaeflow.training.step import StepInputs, TrainConfig, eval_params, make_dispatch

PROFILED = (10, 20)  # the steps of config.profile: after compilation, few enough to look at


class Finished(NamedTuple):
    """What fit returns: steps done, seconds in the loop by what they went to, and why it ended."""

    step: int
    seconds: dict[str, float]  # steps, compile, eval, save
    reason: str


# What makes a run's validation: Experiment -> ((params, another key or None) -> Validation), compiled once.
Validator = Callable[[Experiment], Callable[..., Validation]]


def fit(x: Experiment, directory: str | Path, validator: Validator | None) -> Finished:
    """Train `x` in the workdir `directory`, which the caller holds (workdir.lock), until train.steps, early stopping or a signal.

    validator: makes the function that is evaluated every train.eval_every steps (evaluation.evaluate.validator); it is not called for a run
    that has nothing to validate. None: no validation.
    """
    loop = _Loop(x, Path(directory).resolve(), validator)
    try:
        return loop.run()
    finally:
        loop.recorder.close()


class _Loop:
    """One run of fit: its books, the compiled programs, the state."""

    def __init__(self, x: Experiment, directory: Path, validator: Validator | None = None):
        self.x, self.directory, self.validator = x, directory, validator
        self.bar = Progress(x.train.steps, enabled=x.devices.primary)
        self.recorder = Recorder(x, directory)
        self.trace = contextlib.ExitStack()
        self.seconds = dict(steps=0.0, compile=0.0, eval=0.0, save=0.0)

    def run(self) -> Finished:
        x, recorder = self.x, self.recorder
        with progress.phase("initial parameters, or the newest checkpoint"):
            state, fixed = recorder.restore_or_init(self.bar.say)
        feed, shared, dispatch = self.program(fixed)
        validate = self.validator(x) if self.validator is not None and x.validates else None
        step, rate, fresh = int(state.step), 0.0, True
        with signals() as received, feed, recorder, self.trace, self.bar as bar:
            bar.start(step)
            while not recorder.counts.done:
                count = steps_to_take(x.train, step, rate, feed.capacity, PROFILED if x.config.profile else ())
                stop, count = x.devices.agree(bool(received), count)
                if stop:
                    recorder.save(step, state)
                    recorder.commit(wait=True)
                    raise stopped(received, step, self.directory)
                self.profile(step)
                began = time.perf_counter()
                with progress.phase("compiling the training step") if fresh else contextlib.nullcontext():
                    state, log = dispatch(state, shared._replace(count=x.devices.replicate(np.int32(count))), feed.chunk(step, count))
                    log = {name: np.asarray(value) for name, value in jax.device_get(log).items()}
                took = time.perf_counter() - began
                self.seconds["compile" if fresh else "steps"] += took
                rate, fresh = (0.0 if fresh else count / took), False
                recorder.add(step, count, log, took, rate)
                step += count
                bar.update(step, float(log["loss"][count - 1]), rate)
                result = None
                if validate is not None and recorder.evaluates(step):
                    began = time.perf_counter()
                    with progress.phase(f"validation at step {step:,}"):
                        result = validate(eval_params(state, shared.fixed))
                    self.seconds["eval"] += time.perf_counter() - began
                recorder.boundary(step, state, result)
                self._committed(wait=bool(recorder.counts.done))
        return Finished(step, self.seconds | {"save": recorder.saving}, recorder.counts.done)

    def profile(self, step: int) -> None:
        """Begin or end the trace of the steps PROFILED, where the config asks for it, in the workdir's folder `profile`."""
        first, last = PROFILED
        if step == first and self.x.config.profile and self.x.devices.primary:
            self.trace.enter_context(jax.profiler.trace(str(self.directory / "profile")))
        elif step >= last:
            self.trace.close()

    def _committed(self, wait: bool) -> None:
        saved = self.recorder.commit(wait)
        if saved is not None:
            self.bar.saved(saved)

    def program(self, fixed: Any) -> tuple[data.Feed, StepInputs, Any]:
        """The feed, what every dispatch reads, and the compiled dispatch."""
        x = self.x
        slots, most = x.devices.slots(x.batch), x.train.max_dispatch
        feed = data.make_feed(x.source.train, x.config.data, x.config.seed, slots=slots, steps=x.train.steps, capacity=most)
        shared = StepInputs(*x.devices.replicate((fixed, feed.arrays, *rng.run_keys(x.config.seed), np.int32(0))))
        return feed, shared, make_dispatch(x.model, x.tx, x.optim.ema, x.devices, make_take(x), feed.capacity, x.train.accumulate)


def make_take(x: Experiment) -> Callable[..., Any]:
    """take(arrays, chunk, i, key): the batch of a dispatch's i-th step on this device, see step.make_dispatch."""
    config = x.config.data
    levels = x.source.levels if config.binarize == "dynamic" else 0
    return _take(x.devices, config.batch // x.devices.shares, tuple(config.get("augment", ())), levels)


@functools.lru_cache(maxsize=16)
def _take(devices: Devices, share: int, augment: tuple[str, ...], levels: int) -> Callable[..., Any]:
    """`make_take` of a share of the batch. levels: of grey values that are binarized in every step; 0: they are not."""

    def slots():  # places of this device's share in the global batch
        return devices.index() * share + jnp.arange(share)

    def take(arrays, chunk, i, key):
        batch = dict(data.select(arrays, chunk, i))
        if augment:
            batch["x"] = data.augment_batch(rng.augmentation_key(key), batch["x"], augment, slots())
        if levels:
            batch["x"] = data.binarize_batch(key, batch["x"], levels, slots())
        return batch

    return take


def steps_to_take(t: TrainConfig, step: int, rate: float, capacity: int, more: Sequence[int] = ()) -> int:
    """Steps of the next dispatch: about train.dispatch_seconds, and never past a boundary, of which there may be `more`. The first one
    compiles."""
    ends = [t.steps, (step // t.eval_every + 1) * t.eval_every, (step // t.checkpoint_every + 1) * t.checkpoint_every]
    ends += [end for end in more if end > step]
    wanted = max(1, int(rate * t.dispatch_seconds)) if rate else 8
    return min(wanted, capacity, min(ends) - step)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """The list of the SIGTERM and SIGINT that have come; the second Ctrl-C does not wait. Other threads than the main one get none."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def on_signal(number: int, _frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    previous = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stopped(received: list[int], step: int, where: Path) -> Stopped:
    """What ends a run that a signal (its own, or another process's) has reached."""
    number = received[0] if received else signal.SIGTERM
    return Stopped(number, f"stopped at step {step}, saved in {where}; the same command resumes it")
