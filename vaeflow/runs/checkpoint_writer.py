"""Checkpoints by Orbax: asynchronous, verified on restore, announced only when they are committed.

A step's life: Orbax writes `<step>.orbax-checkpoint-tmp` in the background and renames it; then our background thread
hashes its files and writes the list (vaeflow/runs/checksums.py). Only now is the step committed, older ones are deleted, and `poll` or
`wait` returns it: "saved" may be said. Orbax alone restores flipped bits in silence and reports a full disk only when asked.

Only what this program has made is deleted: committed steps, and steps recorded as unfinished (vaeflow/runs/unfinished.py).

This drives Orbax's AsyncCheckpointer, not its CheckpointManager: that one deletes old steps before our list is written,
and answers a save at or below its latest step with a mere False.

Several processes share the directory; process 0 alone verifies, writes the lists and deletes, and its choice of a step is
broadcast. Arrays must be global there (jax.make_array_from_process_local_data).
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from vaeflow.errors import RunFailed, UserError
from vaeflow.runs import checksums, unfinished
from vaeflow.runs.checkpoint_reader import FAILURES, Say, all_steps, committed_steps, load_newest, must_fit, reason, to_stderr

__all__ = ["Checkpoints", "load_newest", "restore_fixed", "save_fixed", "stored_fixed"]


class Checkpoints:
    """The steps below one directory, of which the newest `keep` committed ones stay. Steps must grow from save to save."""

    def __init__(self, directory: str | Path, keep: int = 2):
        self.directory = Path(directory).absolute()  # Orbax refuses relative paths
        self._keep = keep
        self._pending: tuple[int, Future[None]] | None = None
        self._last = self._newest()
        self._barrier = ocp.multihost.get_barrier_sync_fn()  # by the coordination service: allowed in a thread
        self._orbax = self._open()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")

    def latest(self) -> int | None:
        """The newest committed step, or None."""
        newest = self._newest()
        return None if newest < 0 else newest

    def save(self, step: int, state: Any, progress: dict[str, Any]) -> int | None:
        """Start to save `state` (a tree of arrays; copied to the host before this returns) and `progress` (JSON).

        The save before is finished first; its step is returned if `poll` has not returned it yet. A step that is already
        saved or on its way is left as it is. RunFailed: the disk refuses.
        """
        before = self.wait()
        if step == self._last:
            return before
        if step < self._last:
            raise ValueError(f"step {step} cannot be saved in {self.directory} after step {self._last}")
        path = self.directory / str(step)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            old = committed_steps(self.directory)[self._keep - 1 :]
            if _primary():
                unfinished.claim(self.directory, [step, *old], to_stderr)  # Orbax would delete what has the name of its temporary folder
            self._orbax.save(path, ocp.args.PyTreeSave(state))
        except FAILURES as error:
            raise self._failed(step, error) from error
        self._last = step
        self._pending = step, self._thread.submit(self._commit, path, progress, old)
        return before

    def poll(self) -> int | None:
        """The step that was committed since the last call, or None. Does not wait. RunFailed: its save failed."""
        return self.wait() if self._pending and self._pending[1].done() else None

    def wait(self) -> int | None:
        """`poll`, after the end of the save that is under way."""
        if self._pending is None:
            return None
        step, future = self._pending
        try:
            future.result()
        except FAILURES as error:
            self._pending = None
            raise self._failed(step, error) from error
        self._pending = None
        return step

    def restore(self, like: Any, warn: Say = to_stderr) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, progress) of the newest step that verifies, or None where nothing was ever committed.

        like: a tree of arrays or ShapeDtypeStructs; the state gets its structure, types and shardings (one device where a
        leaf has none), whatever devices wrote it. Damaged steps above it are renamed, uncommitted ones that this program did
        not leave unfinished stay as they are, each with a line. UserError: every step is damaged, or the state does not fit `like`.
        """
        self.wait()
        step, error = -1, None
        if _primary():
            try:
                step = self._choose(warn)
            except UserError as refusal:
                step, error = -2, refusal
        if jax.process_count() > 1:
            step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        if step == -2:
            raise error or UserError(f"no checkpoint in {self.directory} verifies; see process 0")
        self._last = step
        if step < 0:
            return None
        path = self.directory / str(step)
        must_fit(path, like)
        here = SingleDeviceSharding(jax.local_devices()[0])

        def abstract(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here)

        target = jax.tree.map(abstract, like)
        args = ocp.args.PyTreeRestore(target, restore_args=ocp.checkpoint_utils.construct_restore_args(target))
        return step, self._orbax.restore(path, args), checksums.progress(path)

    def delete_after(self, step: int) -> None:
        """Delete the committed steps above `step`, and what a killed run has left unfinished: they will be computed again."""
        self.wait()
        if _primary():
            unfinished.clear(self.directory)
            if above := [other for other in committed_steps(self.directory) if other > step]:
                unfinished.claim(self.directory, above, to_stderr)
                self._delete(above)
        self._last = max((s for s in committed_steps(self.directory) if s <= step), default=-1)

    def close(self) -> int | None:
        """`wait`, then end the threads."""
        try:
            return self.wait()
        finally:
            self._thread.shutdown()
            self._orbax.close()

    def _open(self) -> ocp.AsyncCheckpointer:
        # The prefix keeps the barriers of `last` and `best` apart when both save the same step.
        options = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self.directory.name)
        return ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options)

    def _newest(self) -> int:
        return max(committed_steps(self.directory), default=-1)

    def _commit(self, path: Path, progress: dict[str, Any], old: list[int]) -> None:
        """In the background thread: the end of Orbax's save, the list of hashes, then the deletion of the steps `old`."""
        self._orbax.wait_until_finished()
        try:
            if _primary():
                checksums.write(path, progress)
                self._delete(old)
        finally:  # no process says "saved", or reads, before the list is there
            self._barrier(key=f"{self.directory.name}_committed.{path.name}", timeout_ms=600_000)

    def _delete(self, steps: list[int]) -> None:
        """Delete steps that are recorded by unfinished.claim; one whose list is damaged may be anything, and is renamed."""
        for path in (self.directory / str(step) for step in steps):
            if checksums.is_ours(path):  # renamed first: a kill in the middle leaves no half-deleted step behind
                path.rename(self.directory / f"{path.name}.deleting")
            elif checksums.exists(path):
                to_stderr(f"checkpoint {path} is damaged: {checksums.fault(path)}; renamed to {unfinished.set_aside(path, 'damaged').name}")
        unfinished.clear(self.directory)

    def _failed(self, step: int, error: BaseException) -> RunFailed:
        """Free what the failed save has written, and say it in one line."""
        if _primary():
            unfinished.clear(self.directory)
        with contextlib.suppress(*FAILURES):  # the old one would raise the same error again in the next save
            self._orbax.close()
        self._orbax = self._open()
        self._last = self._newest()
        kept = f"the checkpoint of step {self._last} is intact" if self._last >= 0 else "there is none before it"
        return RunFailed(f"could not save the checkpoint of step {step} in {self.directory}: {reason(error)}; {kept}")

    def _choose(self, warn: Say) -> int:
        """In process 0: the newest step that verifies (-1: none), after renaming the damaged ones above it."""
        unfinished.clear(self.directory)
        damaged, chosen = [], -1
        for step in all_steps(self.directory):
            path = self.directory / str(step)
            if not checksums.exists(path):
                warn(f"checkpoint {path} was not committed ({checksums.NAME} is missing): left as it is; trying the one before")
            elif what := checksums.fault(path):
                warn(f"checkpoint {path} is damaged: {what}; trying the one before")
                damaged.append(path)
            else:
                chosen = step
                break
        if damaged and chosen < 0:
            raise UserError(f"no checkpoint in {self.directory} verifies; delete this directory to start again from step 0")
        for path in damaged:
            unfinished.set_aside(path, "damaged")
        return chosen


def save_fixed(workdir: str | Path, tree: Any) -> None:
    """Save the "fixed" leaves of a new run, in place of what an earlier one may have left; where there are none, nothing is kept.

    They may be each process's own arrays: they are the same everywhere, and process 0 writes its copy.
    """
    checkpoints = Checkpoints(_fixed(workdir), keep=1)
    try:
        checkpoints.delete_after(-1)
        if jax.tree.leaves(tree):
            checkpoints.save(0, jax.tree.map(np.asarray, tree), {})
    finally:
        checkpoints.close()


def stored_fixed(workdir: str | Path, warn: Say = to_stderr) -> Any:
    """The "fixed" leaves that lie in a workdir as numpy arrays, {} where there are none."""
    found = load_newest(_fixed(workdir), warn)
    return {} if found is None else found.state


def restore_fixed(workdir: str | Path, like: Any, warn: Say = to_stderr) -> Any:
    """The "fixed" leaves of a workdir as numpy arrays. UserError: they are missing, damaged, or not those of `like`."""
    if not jax.tree.leaves(like):
        return like
    found = load_newest(_fixed(workdir), warn)
    if found is None:
        raise UserError(f"the fixed leaves of this run cannot be read from {_fixed(workdir)}; delete {workdir} to start again from step 0")
    must_fit(found.path, like)
    return found.state


def _fixed(workdir: str | Path) -> Path:
    return Path(workdir) / "checkpoints" / "fixed"


def _primary() -> bool:
    return jax.process_index() == 0
