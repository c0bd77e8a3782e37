"""What a run may write and delete: files inside its workdir, in a workdir that is its own.

A link below the workdir that leads out of it (`checkpoints -> /elsewhere`) would redirect writes and deletions to files of others, so
commands check the names they write before they start. The workdir itself may be a link. A hard link cannot be told from a file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from vaeflow.errors import UserError
from vaeflow.runs import checksums

EVALUATED = ("results*.json", "results*.npz", "figures", "figures+*")  # names that evaluation writes
TRAINED = (  # names that training writes, to the evaluation at its end
    *(".lock", "config.json", "env.json", "data.json", "metrics.jsonl", "tensorboard", "checkpoints", "profile"),
    *("failed*.txt", "cost.json", "arrays.npz", *EVALUATED),
)
_LATER = ("checkpoints", "metrics.jsonl", "env.json", "data.json", "results.json")  # a run writes them after its config.json


def make_workdir(directory: Path) -> None:
    """Create a directory for a run, or check the existing one. UserError: it cannot be created, or see `check_workdir`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"workdir={directory} cannot be made: {error.strerror}") from None
    check_workdir(directory)


def check_workdir(directory: Path) -> None:
    """UserError: a run in this directory would write through a link, or overwrite or delete files of another program."""
    check_links(directory, TRAINED)
    found = [directory / name for name in _LATER if _has_content(directory / name)]
    # config.json is read last: another process may be creating this workdir.
    if found and not (directory / "config.json").exists() and not _has_commit(directory / "checkpoints"):
        raise UserError(
            f"workdir={directory} has {found[0].name} but no config.json of a run, so another program made it: it is not overwritten or "
            "deleted; use another workdir"
        )


def check_links(directory: Path, names: Sequence[str]) -> None:
    """UserError naming the first link below a workdir that leads out of it.

    names: patterns of the entries that will be written; everything below them is checked, too.
    """
    root = os.path.realpath(directory)
    for path in _links(directory, names):
        target = os.path.realpath(path)
        if not Path(target).is_relative_to(root):
            raise UserError(
                f"{path} is a link to {target}, outside workdir={directory}; nothing is written or deleted through a link: remove the link "
                "(the workdir itself may be one)"
            )


def _links(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """The links among the entries of a folder that match `names`, and below these entries. No link is followed."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a run that trains may delete it while it is read
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if any(fnmatch(e.name, name) for name in names)), key=lambda e: e.name)
        for entry in found:
            if entry.is_symlink():
                yield folder / entry.name
            elif entry.is_dir(follow_symlinks=False):
                yield from _links(folder / entry.name, ("*",))


def _has_content(path: Path) -> bool:
    """True for a file, and for a folder with anything but empty folders in it."""
    return path.is_file() or (path.is_dir() and any(not entry.is_dir() or any(entry.iterdir()) for entry in path.iterdir()))


def _has_commit(checkpoints: Path) -> bool:
    """True if a step below `checkpoints` was committed by this program."""
    return any(checksums.is_ours(path.parent) for path in checkpoints.glob(f"*/*/{checksums.NAME}"))
