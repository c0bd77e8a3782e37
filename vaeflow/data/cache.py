"""Decoded examples on disk as memory-mapped .npy files: written once, atomically, and read back in milliseconds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from vaeflow.errors import UserError

# What `Cache.array` is filled from: called once for each attempt, gives consecutive rows.
Chunks = Callable[[], Iterable[np.ndarray]]


class Cache(NamedTuple):
    """A folder of arrays; without a folder, arrays are kept in memory."""

    folder: Path | None
    required: bool  # by data.cache_dir: then a folder that cannot be written is an error

    def array(self, name: str, shape: tuple[int, ...], dtype: type | np.dtype, chunks: Chunks) -> np.ndarray:
        """The array `name`, a read-only memory map; filled from `chunks` unless a file with this shape and type exists."""
        if self.folder is None:
            return np.concatenate(list(chunks()))
        path = self.folder / f"{name}.npy"
        found = _read(path, shape, np.dtype(dtype))
        if found is not None:
            return found
        try:
            _write(path, shape, np.dtype(dtype), chunks)
        except OSError as error:
            if self.required:
                raise UserError(f"data.cache_dir={str(self.folder)!r} cannot be written: {error.strerror or error}") from None
            logging.warning("%s cannot be written (%s): decoding into memory, without a cache", self.folder, error.strerror or error)
            return np.concatenate(list(chunks()))
        written = _read(path, shape, np.dtype(dtype))
        if written is None:
            raise UserError(f"the cache file {str(path)!r} does not read back; its disk may be damaged")
        return written


def open_cache(cache_dir: str, *parts: str) -> Cache:
    """The cache folder `parts` under data.cache_dir, or under the user's cache folder when that is ""."""
    root = Path(cache_dir).expanduser() if cache_dir else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaeflow"
    folder = root.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK) and not any(folder.glob("*.npy")):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        if cache_dir:
            raise UserError(f"data.cache_dir={cache_dir!r} cannot be written: {error.strerror}") from None
        logging.warning("%s cannot be written (%s): decoding into memory, without a cache; or set data.cache_dir", root, error.strerror)
        return Cache(None, False)
    return Cache(folder, bool(cache_dir))


def _read(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or cut off: numpy checks the length
        return None
    return array if array.shape == shape and array.dtype == dtype else None


def _write(path: Path, shape: tuple[int, ...], dtype: np.dtype, chunks: Chunks) -> None:
    # Plain writes, not a memory map: on a full disk a write raises OSError, a store into a mapped page kills the process.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            rows = 0
            for chunk in chunks():
                if chunk.shape[1:] != shape[1:] or chunk.dtype != dtype:
                    raise ValueError(f"{path.name}: a chunk of {chunk.dtype} {chunk.shape} in an array of {dtype} {shape}")
                file.write(np.ascontiguousarray(chunk).data)
                rows += len(chunk)
            if rows != shape[0]:
                raise ValueError(f"{path.name}: {rows} rows where {shape[0]} were expected")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
