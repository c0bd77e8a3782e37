"""fit: the training loop. Start it again with the same workdir and it goes on where the newest good checkpoint is.

Every number of a run is a function of (config, seed, step): the rows of a batch, the noise, the log. How many steps share a
dispatch is only a matter of time, so a run that was killed ends bit-equal to one that was not.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import data, evaluate, train
from vaeflow.checkpoint import Checkpoints
from vaeflow.errors import RunFailed, Stopped
from vaeflow.experiment import Experiment
from vaeflow.report import Metrics, Progress
from vaeflow.start import begin


class Finished(NamedTuple):
    """What fit returns: steps done, seconds in the loop by what they went to, and why it ended."""

    step: int
    seconds: dict[str, float]  # steps, compile, eval, save
    reason: str


class Book(NamedTuple):
    """What the host knows beside the State; JSON in the checkpoint's `progress`."""

    sums: dict[str, float]  # of the metrics since the last row
    summed: int  # steps in them
    best: float | None
    worse: int  # evaluations since the best one
    position: int  # bytes of metrics.jsonl
    seconds: float
    done: str  # why training has ended, or ""


def fit(x: Experiment, directory: str | Path) -> Finished:
    """Train `x` in the workdir `directory`, which the caller holds (workdir.lock), until train.steps, early stopping or a signal."""
    loop = _Loop(x, Path(directory).resolve())
    try:
        return loop.run()
    finally:
        loop.close()


class _Loop:
    """One run of fit: the open files, the compiled programs, the state."""

    def __init__(self, x: Experiment, directory: Path):
        self.x, self.directory = x, directory
        self.bar = Progress(x.train.steps, enabled=x.devices.primary)
        self.last = Checkpoints(directory / "checkpoints" / "last", keep=2)
        self.best = Checkpoints(directory / "checkpoints" / "best", keep=2)
        self.seconds = dict(steps=0.0, compile=0.0, eval=0.0, save=0.0)
        self._copy = jax.jit(_copied)
        self.signal = 0

    def run(self) -> Finished:
        x = self.x
        state, fixed, progress = begin(x, self.directory, self.last, self.best, self.bar.say)
        book = Book(**progress) if progress else Book({}, 0, None, 0, 0, 0.0, "")
        feed, shared, dispatch = self.program(fixed)
        validate = self._validator()
        metrics = Metrics(self.directory, book.position, enabled=x.devices.primary)
        step, rate, fresh = int(state.step), 0.0, True
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with feed, metrics, self.bar as bar:
                bar.start(step)
                while not book.done:
                    count = self._count(step, rate, feed.capacity)
                    stop, count = x.devices.agree(bool(self.signal), count)
                    if stop:
                        self._save(self.last, step, state, book)
                        self._commit(wait=True)
                        raise Stopped(
                            self.signal or signal.SIGTERM,
                            f"stopped at step {step}, saved in {self.directory}; the same command goes on from there",
                        )
                    began = time.perf_counter()
                    state, log = dispatch(state, shared._replace(count=x.devices.replicate(np.int32(count))), feed.chunk(step, count))
                    log = {name: np.asarray(value) for name, value in jax.device_get(log).items()}
                    took = time.perf_counter() - began
                    self.seconds["compile" if fresh else "steps"] += took
                    book = book._replace(seconds=book.seconds + took)
                    rate, fresh = (0.0 if fresh else count / took), False
                    self._check(step, log)
                    book = self._write(metrics, book, step, count, log, rate)
                    step += count
                    bar.update(step, float(log["loss"][count - 1]), rate)
                    book = self._boundary(step, state, shared.fixed, book, metrics, validate)
                    self._commit()
                self._commit(wait=True)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return Finished(step, self.seconds, book.done)

    def program(self, fixed: Any) -> tuple[data.Feed, train.Shared, Any]:
        """The feed, what every dispatch reads, and the compiled dispatch."""
        x = self.x
        slots, most = x.devices.slots(x.batch), x.train.max_dispatch
        feed = data.make_feed(x.source.train, x.config.data, x.config.seed, slots=slots, steps=x.train.steps, capacity=most)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(x.config.seed), 2))
        shared = train.Shared(*x.devices.replicate((fixed, feed.arrays, keys[0], keys[1], np.int32(0))))
        return feed, shared, train.make_dispatch(x.model, x.tx, x.optim.ema, x.devices, self._take(), feed.capacity)

    def _take(self) -> Any:
        config, source, devices = self.x.config.data, self.x.source, self.x.devices
        share = config.batch // devices.count

        def take(arrays, chunk, i, key):
            batch = dict(data.select(arrays, chunk, i))
            if config.binarize == "dynamic":
                slots = devices.index() * share + jnp.arange(share)
                batch["x"] = data.binarize_batch(key, batch["x"], source.levels, slots)
            return batch

        return take

    def _validator(self) -> Any:
        x = self.x
        if x.source.val is None:
            return None
        return evaluate.make_validate(
            x.model, x.source.val, x.source.levels, x.config.data.binarize, x.config.seed, x.eval.batch, x.devices
        )

    def _count(self, step: int, rate: float, capacity: int) -> int:
        """Steps of the next dispatch: about train.dispatch_seconds, and never past a boundary. The first one compiles."""
        t = self.x.train
        ends = [t.steps, (step // t.eval_every + 1) * t.eval_every, (step // t.checkpoint_every + 1) * t.checkpoint_every]
        wanted = max(1, int(rate * t.dispatch_seconds)) if rate else 8
        return min(wanted, capacity, min(ends) - step)

    def _check(self, step: int, log: dict[str, np.ndarray]) -> None:
        """Stop at a non-finite loss, gradient or parameter, before anything of it is written."""
        if bool(log["finite"]):
            return
        at = step + int(log["done"])  # the last step taken, counted from 1
        bad = [f"{k}={v[int(log['done']) - 1]}" for k, v in log.items() if v.ndim and not np.isfinite(v[int(log["done"]) - 1])]
        self._fail(at, bad)

    def _fail(self, at: int, bad: list[str]) -> NoReturn:
        self._commit(wait=True)
        good = self.last.latest()
        where = f"the last good checkpoint is step {good} in {self.last.directory}" if good is not None else "there is no checkpoint yet"
        raise RunFailed(f"non-finite at step {at}: {', '.join(bad) or 'a parameter'}; {where}. Lower optim.learning_rate or set optim.clip")

    def _write(self, metrics: Metrics, book: Book, step: int, count: int, log: dict[str, np.ndarray], rate: float) -> Book:
        """Rows of metrics.jsonl: means over log_every steps, summed in step order whatever the dispatches were."""
        values = {name: v[:count].tolist() for name, v in log.items() if v.ndim}
        sums, summed = dict(book.sums), book.summed
        for i in range(count):
            for name, v in values.items():
                sums[name] = sums.get(name, 0.0) + v[i]
            summed += 1
            now = step + i + 1
            if now % self.x.train.log_every == 0 or now == self.x.train.steps:
                row = {name: total / summed for name, total in sums.items()}
                metrics.write(now, "train", row, seconds=book.seconds, steps_per_second=rate)
                sums, summed = {}, 0
        return book._replace(sums=sums, summed=summed, position=metrics.position())

    def _boundary(self, step: int, state: train.State, fixed: Any, book: Book, metrics: Metrics, validate: Any) -> Book:
        """Evaluation and checkpoints, where they are due."""
        t = self.x.train
        end, better = step >= t.steps, False
        if validate is not None and (end or step % t.eval_every == 0):
            began = time.perf_counter()
            result = validate(train.eval_params(state, fixed))
            self.seconds["eval"] += time.perf_counter() - began
            if not np.isfinite(result["loss"]):
                self._fail(step, [f"validation loss={result['loss']}"])
            metrics.write(step, "val", result, seconds=book.seconds)
            book = book._replace(position=metrics.position())
            better = book.best is None or result["loss"] < book.best
            book = book._replace(best=result["loss"], worse=0) if better else book._replace(worse=book.worse + 1)
            if t.patience and book.worse >= t.patience and not end:
                book = book._replace(done=f"early stopping at step {step}: no better validation loss in {t.patience} evaluations")
        if end:
            book = book._replace(done=f"finished all {t.steps} steps")
        if better:
            self._save(self.best, step, state, book)
            self.best.wait()  # `last` remembers this loss, so it may not be there without the checkpoint that has it
        if better or book.done or step % t.checkpoint_every == 0:
            self._save(self.last, step, state, book)
        return book

    def _save(self, where: Checkpoints, step: int, state: train.State, book: Book) -> None:
        """Start a checkpoint of a copy (the next dispatch donates the state); nobody says "saved" before `_commit`."""
        began = time.perf_counter()
        where.save(step, self.x.devices.replicate(self._copy(state)), book._asdict())
        self.seconds["save"] += time.perf_counter() - began

    def close(self) -> None:
        """End the checkpoints' threads, after what is under way."""
        self.last.close()
        self.best.close()

    def _commit(self, wait: bool = False) -> None:
        began = time.perf_counter()
        for checkpoints in (self.last, self.best):
            saved = checkpoints.wait() if wait else checkpoints.poll()
            if saved is not None and checkpoints is self.last:
                self.bar.saved(saved)
        self.seconds["save"] += time.perf_counter() - began

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait
        self.signal = number


def _copied(state: train.State) -> train.State:
    return jax.tree.map(jnp.copy, state)  # under one jit: one program, not one a leaf
