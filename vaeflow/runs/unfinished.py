"""The record of the steps that are being saved or deleted: a restart deletes what is named in it, and nothing else.

A kill during a save or a deletion leaves folders without a list of hashes (vaeflow/runs/checksums.py). A checkpoint that another program
wrote, or that a user copied, looks the same. So a step is recorded before its folders are written or deleted:

    claim   entries that already have the names to be used are not ours and are renamed; then the steps are written to RECORD
    ...     Orbax writes <step>.orbax-checkpoint-tmp and renames it to <step>, manifest.write commits it; a step that is to be deleted
            is renamed to <step>.deleting
    clear   the folders of recorded steps that are not committed are deleted, then RECORD

`clear` never deletes a committed step, so a step recorded for deletion stays whole until it is renamed. Runs of earlier versions have no
record: their unfinished folders stay, and are renamed if a save needs their name. Process 0 alone calls these functions.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from vaeflow.runs import checksums
from vaeflow.runs.files import naming, no_follow

RECORD = ".vaeflow-unfinished"


def claim(folder: Path, steps: Sequence[int], warn: Callable[[str], None]) -> None:
    """Record that `steps` will be saved or deleted in `folder`, on disk before this returns. OSError: the disk refuses.

    warn: is called with one line per entry of another program that has a name of these steps; the entry is renamed.
    """
    clear(folder)
    for path in (path for step in steps for path in _uncommitted(folder, step)):
        warn(f"{path} is not recorded as an unfinished checkpoint of this run: renamed to {set_aside(path, 'aside').name}, not deleted")
    record = folder / RECORD
    content = json.dumps([*_read(record), *steps]) + "\n"
    with naming(record):
        # Written in place: a record that a kill cuts off has no newline and is ignored, as the save has not started.
        with open(record, "w", opener=no_follow) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def clear(folder: Path) -> None:
    """Delete the recorded steps that are not committed, then the record. It stays if something cannot be deleted."""
    record, left = folder / RECORD, False
    for path in (path for step in _read(record) for path in _uncommitted(folder, step)):
        shutil.rmtree(path, ignore_errors=True)  # it does not follow links
        left = left or os.path.lexists(path)
    if not left:
        with contextlib.suppress(OSError):  # a read-only disk; a record that stays names nothing that is needed
            record.unlink()


def set_aside(path: Path, prefix: str) -> Path:
    """Rename `path` (a link itself, not its target) to PREFIX-NAME, or PREFIX-NAME-2, ... where that exists. Returns the new path."""
    free, number = path.with_name(f"{prefix}-{path.name}"), 1
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{prefix}-{path.name}-{number}")
    return path.rename(free)


def _uncommitted(folder: Path, step: int) -> list[Path]:
    """The entries with a name that saving or deleting this step uses, without the committed step."""
    found = [folder / str(step), folder / f"{step}.deleting", *folder.glob(f"{step}.orbax-checkpoint-tmp*")]
    return [path for path in found if os.path.lexists(path) and not (path == found[0] and checksums.exists(path))]


def _read(record: Path) -> list[int]:
    """The recorded steps, [] without a whole record."""
    try:
        with open(record, opener=no_follow) as file:
            text = file.read()
        return [int(step) for step in json.loads(text)] if text.endswith("\n") else []
    except (OSError, ValueError, TypeError):
        return []
