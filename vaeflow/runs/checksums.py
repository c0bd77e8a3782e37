"""A SHA-256 list of a directory's files: what tells a whole checkpoint from a damaged one.

Orbax restores a flipped bit without an error. So after Orbax has finalised a step's directory, `write` puts one JSON file
into it, with the size and the SHA-256 of every other file, what the caller wants to remember (`progress`), and its own
SHA-256. It is written last and atomically: a directory without it was never committed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vaeflow.runs.files import write_atomic

NAME = "sha256.json"


def write(directory: Path, progress: dict[str, Any]) -> None:
    """Hash every file below `directory` and write the list into it (temporary file, fsync, rename)."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path != directory / NAME:
            files[path.relative_to(directory).as_posix()] = [path.stat().st_size, of_file(path)]
    content = json.loads(json.dumps({"files": files, "progress": progress}))
    write_atomic(directory / NAME, json.dumps({"sha256": _own(content), **content}, indent=1) + "\n")


def exists(directory: Path) -> bool:
    """Whether `directory` was committed."""
    return (directory / NAME).is_file()


def is_ours(directory: Path) -> bool:
    """True if `write` committed this directory: its list has its own SHA-256. (The other files may be damaged.)"""
    try:
        content = json.loads((directory / NAME).read_bytes())
        return content.pop("sha256") == _own(content) and not directory.is_symlink()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def progress(directory: Path) -> dict[str, Any]:
    """The `progress` that `write` was given. Call it on a directory without a `fault`."""
    return json.loads((directory / NAME).read_bytes())["progress"]


def fault(directory: Path) -> str:
    """What is wrong with the directory: one phrase that names the file, or "" when every file is as it was written."""
    try:
        content = json.loads((directory / NAME).read_bytes())
        own = content.pop("sha256")
        files = content["files"]
    except FileNotFoundError:
        return f"{NAME} is missing"
    except (ValueError, KeyError, AttributeError, TypeError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        return f"{NAME} is unreadable"
    if own != _own(content):
        return f"{NAME} does not have its own SHA-256"
    for name, (size, digest) in files.items():
        path = directory / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found} bytes instead of {size}"
            if of_file(path) != digest:
                return f"{name} does not have its SHA-256"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def of_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
