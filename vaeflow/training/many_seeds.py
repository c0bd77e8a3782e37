"""Cells together: runs of one shape of work, trained in one compiled step.

    states [G]  --vmap-->  states [G]        for each structure of config, G its cells: one program for all structures of a group

Cells of a group take the same number of steps and evaluate at the same ones. Within it, cells of one structure differ in their seed and in
numbers alone and train under one vmap (stacked.py); a config that differs in anything else (k, a switch, a size) is another structure of
the same program. Small models leave a device idle between their operations: wider ones fill it.

Every cell has its own workdir, with the same files as a run by itself, and the same numbers to rounding: seeds, batches and noise are
functions of its config. It can be evaluated, gone on with or taken up by itself. A cell that stops (patience) or fails (a number that is
not finite) stops, and the others continue.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow import data
from vaeflow.errors import RunFailed, UserError
from vaeflow.runs import progress
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import Progress
from vaeflow.training import stacked
from vaeflow.training.loop import Validator, signals, steps_to_take, stopped
from vaeflow.training.recorder import Recorder
from vaeflow.training.setup import Experiment
from vaeflow.training.step import State, eval_params

_LOOP = ("steps", "eval_every", "checkpoint_every")
_MOST = 16  # cells of a group: what is lost where one program does not fit the memory, and what compiles at once


class Member(NamedTuple):
    """A checked config and its workdir, which the caller holds (workdir.lock)."""

    x: Experiment
    directory: Path


class Ended(NamedTuple):
    """Why the training of a cell ended; failed: it could not continue."""

    reason: str
    failed: bool


def groups(configs: Sequence[Any], directories: Sequence[Path]) -> list[list[int]]:
    """Which of the runs can train together: those of one loop, from the step where they all are. (After a kill between the checkpoints of
    one boundary the cells are at two steps: two groups.)"""
    found: dict[str, list[int]] = {}
    for i, (config, directory) in enumerate(zip(configs, directories, strict=True)):
        at = max(committed_steps(directory / "checkpoints" / "last"), default=0)
        found.setdefault(json.dumps([at, *(config.train[key] for key in _LOOP)]), []).append(i)
    return [group[i : i + _MOST] for group in found.values() for i in range(0, len(group), _MOST)]


def fit_together(cells: Sequence[Member], validator: Validator) -> list[Ended]:
    """Train all cells; of each, why it ended. Raises Stopped at a signal, after all are saved."""
    for cell in cells:
        if cell.x.devices.mapping != "jit":
            raise UserError(f"devices.mapping={cell.x.devices.mapping!r}: cells train together on one device; set it to 'jit'")
        if cell.x.config.profile:
            raise UserError("profile=True is of a run by itself; cells that train together write no trace: set it to False")
        if any(cell.x.config.train[key] != cells[0].x.config.train[key] for key in _LOOP):
            raise UserError(f"cells train together where {', '.join(f'train.{key}' for key in _LOOP)} are the same")
    run = _Together(cells, validator)
    try:
        return run.run()
    finally:
        for recorder in run.recorders:
            recorder.close()


class _Together:
    """The books of the cells, in the order of their structures."""

    def __init__(self, cells: Sequence[Member], validator: Validator):
        self.validator = validator
        of = {}
        for i, cell in enumerate(cells):
            of.setdefault(stacked.structure(cell.x.config), []).append(i)
        self.order = list(itertools.chain.from_iterable(of.values()))
        self.ends = np.cumsum([len(which) for which in of.values()])
        # Cells of one structure begin by the model and the optimiser of its first one: what is the same is compiled once.
        alike = {i: cells[which[0]].x for which in of.values() for i in which}
        self.cells = [cells[i]._replace(x=cells[i].x._replace(model=alike[i].model, tx=alike[i].tx)) for i in self.order]
        self.recorders = [Recorder(cell.x, cell.directory.resolve()) for cell in self.cells]
        self.train = cells[0].x.train
        self.bar = Progress(self.train.steps)
        self.reasons = [""] * len(cells)

    def by_structure(self, values: Sequence[Any]) -> list[Any]:
        """A list over the cells as one of lists over the structures."""
        starts = [0, *self.ends]
        return [values[a:b] for a, b in itertools.pairwise(starts)]

    def run(self) -> list[Ended]:
        with progress.phase(f"initial parameters of {len(self.cells)} cells"):
            began = [recorder.restore_or_init(self.bar.say if i == 0 else _silent) for i, recorder in enumerate(self.recorders)]
        steps = {int(state.step) for state, _ in began}
        if len(steps) > 1:
            raise UserError(f"cells train together from one step, and these are at {sorted(steps)}: see together.groups")
        step, rate, fresh = steps.pop(), 0.0, True
        feeds = [_feed(cell.x) for cell in self.cells]
        xs, fixed = self.by_structure([cell.x for cell in self.cells]), self.by_structure([fixed for _, fixed in began])
        states = [stacked.stack(some) for some in self.by_structure([state for state, _ in began])]
        shared = [stacked.make_stack(*some) for some in zip(xs, fixed, self.by_structure(feeds), strict=True)]
        capacity = min(feed.capacity for feed in feeds)
        dispatch, validate = stacked.make_dispatch(xs, capacity), [stacked.make_validate(some, self.validator) for some in xs]
        with contextlib.ExitStack() as files, signals() as received:
            for one in (*feeds, *self.recorders, self.bar):
                files.enter_context(one)
            self.bar.start(step)
            while any(active := self.active()):
                if received:
                    self._for_each(lambda i, cell, at=step: self._save(i, at, cell), self._states(states, shared))
                    raise stopped(received, step, self.recorders[0].directory.parent)
                count = steps_to_take(self.train, step, rate, capacity)
                start = time.perf_counter()
                chunks = [jax.tree.map(lambda *a: np.stack(a), *(f.chunk(step, count) for f in some)) for some in self.by_structure(feeds)]
                with progress.phase("compiling the training step of all cells") if fresh else contextlib.nullcontext():
                    states, logs = dispatch(states, shared, chunks, [np.array(on) for on in self.by_structure(active)], np.int32(count))
                    rows = _rows(jax.device_get(logs))
                took = time.perf_counter() - start
                rate, fresh = (0.0 if fresh else count / took), False
                known = (count, took / sum(active), rate)  # seconds of the group, divided among its cells
                self._for_each(lambda i, log, at=step, k=known: self.recorders[i].add(at, k[0], log, *k[1:]), rows)
                step += count
                self.bar.update(step, float(np.mean([log["loss"][count - 1] for log, on in zip(rows, active, strict=True) if on])), rate)
                if step == self.train.steps or not step % self.train.eval_every or not step % self.train.checkpoint_every:
                    of = [(validate[s], n) for s, some in enumerate(xs) for n in range(len(some))]
                    due = list(zip(self._states(states, shared), of, strict=True))
                    self._for_each(lambda i, value, at=step: self._boundary(i, at, *value), due)
        ended = [Ended(reason or recorder.counts.done, bool(reason)) for reason, recorder in zip(self.reasons, self.recorders, strict=True)]
        return [ended[self.order.index(i)] for i in range(len(ended))]

    def active(self) -> list[bool]:
        """Of each cell, whether it still trains."""
        return [not reason and not recorder.counts.done for reason, recorder in zip(self.reasons, self.recorders, strict=True)]

    def _for_each(self, act: Callable[[int, Any], None], values: Sequence[Any]) -> None:
        """act(i, value) for every cell that trains; one that fails keeps the reason and is held."""
        for i, (on, value) in enumerate(zip(self.active(), values, strict=True)):
            if on:
                try:
                    act(i, value)
                except RunFailed as error:
                    self.reasons[i] = str(error)
                    self.bar.say(f"{self.recorders[i].directory.name}: {error}")

    def _states(self, states: list[State], shared: list[stacked.Stack]) -> list[tuple[int, Any, Any]]:
        """Of every cell: its place in its stack, the stack's states, and its fixed leaves."""
        return [
            (n, state, own.fixed)
            for state, own, some in zip(states, shared, self.by_structure(self.cells), strict=True)
            for n in range(len(some))
        ]

    def _boundary(self, i: int, step: int, cell: tuple[int, Any, Any], of: tuple[Any, int]) -> None:
        """Evaluation and checkpoints, where they are due."""
        n, states, fixed = cell
        state, recorder, validate = stacked.at(states, n), self.recorders[i], of[0]
        result = None
        if validate is not None and recorder.evaluates(step):
            result = validate(eval_params(state, stacked.at(fixed, n)), n)
        recorder.boundary(step, state, result)
        recorder.commit(wait=bool(recorder.counts.done))

    def _save(self, i: int, step: int, cell: tuple[int, Any, Any]) -> None:
        self.recorders[i].save(step, stacked.at(cell[1], cell[0]))
        self.recorders[i].commit(wait=True)


def _rows(logs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """The logs of the structures, [G, ...] a leaf, as one of every cell."""
    return [{name: np.asarray(a[n]) for name, a in log.items()} for log in logs for n in range(len(log["done"]))]


def _feed(x: Experiment) -> data.Feed:
    return data.make_feed(x.source.train, x.config.data, x.config.seed, steps=x.train.steps, capacity=x.train.max_dispatch)


def _silent(_line: str) -> None:
    """Of the cells after the first one."""
