"""What lies on disk below `checkpoints/`: which steps are committed, and reading one without the run that wrote it.

    workdir/checkpoints/last/<step>     the newest states, for going on
    workdir/checkpoints/best/<step>     the states with the best validation metric
    workdir/checkpoints/fixed/0         the "fixed" leaves, once per workdir

Nothing here writes, so it is safe beside a run that trains.
"""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from vaeflow.errors import UserError
from vaeflow.runs import checksums

# What Orbax and the file system raise on a full, read-only or vanished disk (TensorStore: ValueError; JAX: RuntimeError).
FAILURES = (OSError, ValueError, RuntimeError)
# Orbax logs every phase of a save, and the traceback of errors that it raises as well and that we print as one line.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)

Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Where the lines about damaged checkpoints go by default."""
    print(line, file=sys.stderr, flush=True)


def all_steps(directory: Path) -> list[int]:
    """The steps below a directory, committed or not, the newest first."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def committed_steps(directory: Path) -> list[int]:
    """The steps whose list of hashes was written, the newest first."""
    return [step for step in all_steps(directory) if checksums.exists(directory / str(step))]


class StoredCheckpoint(NamedTuple):
    """A checkpoint as it lies on disk: `state` is a nested dict of numpy arrays with the State's fields as keys."""

    step: int
    state: dict[str, Any]
    progress: dict[str, Any]
    path: Path


def load_newest(directory: str | Path, warn: Say = to_stderr) -> StoredCheckpoint | None:
    """The newest step below `directory` that verifies, on the host whatever devices wrote it; None where there is none."""
    directory = Path(directory).absolute()
    for step in committed_steps(directory):
        path = directory / str(step)
        what = checksums.fault(path)
        if not what:
            try:
                progress, orbax = checksums.progress(path), _reader()
                on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _metadata(path))
                return StoredCheckpoint(step, orbax.restore(path, ocp.args.PyTreeRestore(restore_args=on_host)), progress, path)
            except FAILURES as error:  # a run that trains deletes old steps while we read
                what = reason(error)
        warn(f"checkpoint {path} is damaged: {what}; trying the one before")
    return None


def must_fit(path: Path, like: Any) -> None:
    """UserError naming the first leaf that a checkpoint and `like` do not share. (Orbax casts types in silence.)"""
    saved, wanted = by_path(_metadata(path)), by_path(like)
    for name in [*saved, *wanted]:
        there, here = (f"{np.dtype(x.dtype)}{list(x.shape)}" if x is not None else "nothing" for x in (saved.get(name), wanted.get(name)))
        if there != here:
            raise UserError(f"checkpoint {path} does not fit this model: it has {there} at {name}, the model has {here}")


def by_path(tree: Any) -> dict[str, Any]:
    """{"trained/net/kernel": leaf}; named tuples and the dicts that Orbax makes of them have the same paths."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def reason(error: BaseException) -> str:
    """The system's own words, out of TensorStore's: `No space left on device`."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    words = re.search(r"([^:\[\]]+) \[os_error_code", text)
    return words.group(1).strip() if words else text[:200]


def _reader() -> ocp.Checkpointer:
    """A checkpointer of this process alone: it meets no other one at a barrier."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader{me}")
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


def _metadata(path: Path) -> Any:
    metadata: Any = _reader().metadata(path).item_metadata
    if metadata is None:
        raise FileNotFoundError(errno.ENOENT, "it was deleted while it was read")
    return metadata.tree
