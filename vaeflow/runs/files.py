"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LONGEST = 200  # bytes of a name: file systems accept 255, and temporary files append to it


def text_of(value: Any) -> str:
    """A plain value as a folder's or file's name has it: lists and groups without brackets."""
    if isinstance(value, dict):
        return ",".join(f"{key}:{text_of(own)}" for key, own in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def with_values(name: str, values: Sequence[str]) -> str:
    """The name of a file or folder whose content has other values than `name`'s: NAME+KEY=VALUE+..., for example `digits_vae+seed=1`.

    A name that is too long for a file system is cut and ends in a hash of the whole.
    """
    whole = "+".join([name, *(text.replace("/", "_") for text in values)])
    if len(whole.encode()) <= _LONGEST:
        return whole
    return f"{whole.encode()[: _LONGEST - 17].decode(errors='ignore')}+{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def no_follow(path: str, flags: int) -> int:
    """An `opener` for `open` that does not follow a link: OSError (ELOOP) if `path` is one."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError of the block names `path`: a failed write names no file at all, a failed rename the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def append(file: io.FileIO, path: Path, content: bytes) -> None:
    """Add all of `content` to an unbuffered file: a killed process loses nothing, and a full disk is an OSError (that names
    `path`) here, never a second one in `close`."""
    with naming(path):
        while content:
            content = content[file.write(content) :]


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a kill or a power cut leaves the old one or the new one: temporary file, fsync, rename, fsync.

    OSError, with the file's name: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with open(temporary, "w", opener=no_follow) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, by `write_atomic`."""
    write_atomic(path, json.dumps(value, indent=2) + "\n")


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays by name, compressed, whole or not at all. OSError, with the file's name: the disk refuses."""
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with open(temporary, "wb", opener=no_follow) as file:
                np.savez_compressed(file, **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
