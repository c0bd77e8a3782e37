"""The recorder of one run on the host: metrics.jsonl, the two series of checkpoints, and the counts that are restored on resume.

Rows are means over log_every steps, summed in step order whatever the dispatches were; `best` is chosen by the validation loss. All of it
is saved with the state, so a run that was killed writes the rows again that it lost, and the same ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.errors import RunFailed
from vaeflow.model import Params
from vaeflow.runs.checkpoint_writer import Checkpoints
from vaeflow.runs.metrics import Metrics
from vaeflow.training.resume import restore_or_init
from vaeflow.training.setup import Experiment
from vaeflow.training.step import State

Say = Callable[[str], None]


class Validation(NamedTuple):
    """One evaluation of the validation split.

    values  {name: number}, the row of metrics.jsonl
    score   the number that selects `best` (lower is better), or None: `last` alone is kept
    se      its standard error, if the score has noise of its own: early stopping counts gains that are larger; else 0
    """

    values: Mapping[str, float]
    score: float | None
    se: float = 0.0


class Counts(NamedTuple):
    """What the host knows beside the State; JSON in the checkpoint's `progress`."""

    sums: dict[str, float]  # of the metrics since the last row
    summed: int  # steps in them
    best: float | None
    worse: int  # evaluations since the best one
    position: int  # bytes of metrics.jsonl
    seconds: float
    done: str  # why training has ended, or ""
    gained: float | None = None  # the score at the last gain above its standard error


class Recorder:
    """One run's files and counts. A context manager, entered after `begin`; `close` ends the checkpoints' threads."""

    def __init__(self, x: Experiment, directory: Path):
        self.x, self.directory = x, directory
        self.last = Checkpoints(directory / "checkpoints" / "last", keep=2)
        self.best = Checkpoints(directory / "checkpoints" / "best", keep=2)
        self.counts = Counts({}, 0, None, 0, 0, 0.0, "")
        self.saving = 0.0  # seconds
        self._copy = jax.jit(_copied)

    def restore_or_init(self, say: Say) -> tuple[State, Params]:
        """(state, fixed leaves): of the newest checkpoint, or the initial ones."""
        state, fixed, progress = restore_or_init(self.x, self.directory, self.last, self.best, say)
        self.counts = Counts(**progress) if progress else self.counts
        self.metrics = Metrics(self.directory, self.counts.position, enabled=self.x.devices.primary)
        return state, fixed

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.metrics.close()

    def close(self) -> None:
        """End the checkpoints' threads, after what is under way."""
        self.last.close()
        self.best.close()

    def add(self, step: int, count: int, log: Mapping[str, np.ndarray], took: float, rate: float) -> None:
        """The rows of steps step .. step + count - 1, which took that many seconds. RunFailed, before anything of it is written, at a
        non-finite loss, gradient or parameter."""
        if not log["finite"]:
            last = int(log["done"]) - 1  # the last step taken
            self.fail(step + last + 1, [f"{k}={v[last]}" for k, v in log.items() if v.ndim and not np.isfinite(v[last])])
        values = {name: v[:count].tolist() for name, v in log.items() if v.ndim}
        sums, summed, seconds = dict(self.counts.sums), self.counts.summed, self.counts.seconds + took
        for i in range(count):
            for name, v in values.items():
                sums[name] = sums.get(name, 0.0) + v[i]
            summed += 1
            now = step + i + 1
            if now % self.x.train.log_every == 0 or now == self.x.train.steps:
                row = {name: total / summed for name, total in sums.items()}
                self.metrics.write(now, "train", row, seconds=seconds, steps_per_second=rate)
                sums, summed = {}, 0
        self.counts = self.counts._replace(sums=sums, summed=summed, position=self.metrics.position(), seconds=seconds)

    def fail(self, at: int, bad: list[str]) -> NoReturn:
        """RunFailed: names what was not finite at a step, and the checkpoint to resume from."""
        self.commit(wait=True)
        good = self.last.latest()
        where = f"the last good checkpoint is step {good} in {self.last.directory}" if good is not None else "there is no checkpoint yet"
        raise RunFailed(f"non-finite at step {at}: {', '.join(bad) or 'a parameter'}; {where}. Lower optim.learning_rate or set optim.clip")

    def evaluates(self, step: int) -> bool:
        """True if a validation is due after `step` steps."""
        t = self.x.train
        return self.x.validates and (step >= t.steps or step % t.eval_every == 0)

    def boundary(self, step: int, state: State, result: Validation | None) -> None:
        """What is due after `step` steps: the row of a validation (`result`, where `evaluates`), the end, checkpoints."""
        t, end, better = self.x.train, step >= self.x.train.steps, False
        if result is not None:
            shown = dict(result.values) if result.score is None else {self.x.config.eval.select: result.score}
            if bad := [f"validation {name}={value}" for name, value in shown.items() if not np.isfinite(value)]:
                self.fail(step, bad)
            self.metrics.write(step, "val", result.values, seconds=self.counts.seconds)
            counts = self.counts._replace(position=self.metrics.position())
            if result.score is not None:
                better = counts.best is None or result.score < counts.best
                last = counts.best if counts.gained is None else counts.gained
                gained = last is None or result.score < last - result.se
                counts = counts._replace(best=result.score if better else counts.best, worse=0 if gained else counts.worse + 1)
                counts = counts._replace(gained=result.score if gained else last)
            if t.patience and counts.worse >= t.patience and not end:
                counts = counts._replace(
                    done=f"early stopping at step {step}: no better validation {self.x.eval.select} in {t.patience} evaluations"
                )
            self.counts = counts
        if end:
            self.counts = self.counts._replace(done=f"finished all {t.steps} steps")
        if better:
            self._save(self.best, step, state)
            self.best.wait()  # `last` remembers this loss, so it may not be there without the checkpoint that has it
        if result is not None or self.counts.done or step % t.checkpoint_every == 0:  # an evaluation is never made twice
            self.save(step, state)

    def save(self, step: int, state: State) -> None:
        """Start a checkpoint in `last`."""
        self._save(self.last, step, state)

    def _save(self, where: Checkpoints, step: int, state: State) -> None:
        # Of a copy, as the next dispatch donates the state; nobody says "saved" before `commit`.
        began = time.perf_counter()
        where.save(step, self.x.devices.place(self._copy(state)), self.counts._asdict())
        self.saving += time.perf_counter() - began

    def commit(self, wait: bool = False) -> int | None:
        """The step that `last` has committed since the last call, or None. wait: for what is under way."""
        began, done = time.perf_counter(), None
        for checkpoints in (self.last, self.best):
            saved = checkpoints.wait() if wait else checkpoints.poll()
            done = saved if checkpoints is self.last else done
        self.saving += time.perf_counter() - began
        return done


def _copied(state: State) -> State:
    return jax.tree.map(jnp.copy, state)  # under one jit: one program, not one a leaf
