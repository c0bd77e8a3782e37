"""Arrays of a file that torch.save wrote before PyTorch 1.6, read without torch and without running anything that the file names.

The file is a sequence of pickles, followed by the numbers:

    magic number 0x1950a86a20f9469cfc6c; protocol 1001; {"little_endian": ..., ...}
    state dict    OrderedDict of _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks), all four in elements; `storage`
                  is a persistent id ("storage", FloatStorage or LongStorage, key, device, elements, None)
    keys          list of the storages' keys, in the order in which their numbers follow
    per key       the number of elements (int64), then the elements; little-endian

Unpickling calls what the file names, so a pickle can run any code. Here the four globals above have stand-ins that record their
arguments. Any other global is an error.
"""

from __future__ import annotations

import math
import pickle
from typing import Any, BinaryIO

import numpy as np

from vaeflow.errors import UserError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Dict(dict):
    """An OrderedDict. Its attributes (`_metadata`) are ignored."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Tensor:
    """The arguments of _rebuild_tensor_v2."""

    __slots__ = ("args",)
    args: tuple[Any, ...]

    def __new__(cls, *args: Any) -> _Tensor:
        self = object.__new__(cls)
        self.args = args
        return self

    def __setstate__(self, state: Any) -> None:
        raise UserError("it changes a tensor after it was built")


# Text as the stand-in for a storage type: it cannot be called.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _TorchUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers, text and the stand-ins, nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The stand-in for a global. UserError: a state dict does not need it."""
        if (module_name, global_name) not in _STAND_INS:
            raise UserError(f"it names {f'{module_name}.{global_name}'!r}, which a state dict does not need; nothing of it was run")
        return _STAND_INS[module_name, global_name]

    def persistent_load(self, pid: Any) -> tuple[Any, ...]:
        """The description of a storage: ("storage", dtype, key, device, elements, None)."""
        return pid


def read(file: BinaryIO) -> dict[str, np.ndarray]:
    """Arrays of a state dict in PyTorch's legacy format.

    Args:
        file: open at the start of the file. Read to its end.

    Returns:
        {name: array}, float32 or int64, in the order of the file.

    Raises:
        UserError: one line. The file is damaged, has another format, or names a global that a state dict does not need.

    Example:
        with path.open("rb") as file:
            weights = read(file)
    """
    try:
        return _read(file)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises any of a dozen kinds
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"it is not a state dict in PyTorch's legacy format: {why}") from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    magic, protocol, system = (_TorchUnpickler(file).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise UserError("it does not start with the magic number and the protocol of PyTorch's legacy format")
    if system["little_endian"] is not True:
        raise UserError("its numbers are big-endian")
    state, keys = _TorchUnpickler(file).load(), _TorchUnpickler(file).load()
    if type(state) is not _Dict or not all(isinstance(name, str) and type(tensor) is _Tensor for name, tensor in state.items()):
        raise UserError("it is not a dict of tensors")
    described = {storage[2]: _described(storage) for storage in (tensor.args[0] for tensor in state.values())}
    if sorted(keys) != sorted(described):
        raise UserError("its list of storages does not match its tensors")
    storages = {key: _storage(file, *described[key]) for key in keys}
    if file.read(1):
        raise UserError("it continues after its last storage")
    return {name: _tensor(storages[tensor.args[0][2]], *tensor.args[1:4]) for name, tensor in state.items()}


def _described(storage: Any) -> tuple[str, int]:
    """(dtype, elements) of a persistent id."""
    kind, dtype, key, _, elements, view = storage
    if kind != "storage" or dtype not in ("<f4", "<i8") or not isinstance(key, str) or not _counts([elements]) or view is not None:
        raise UserError("it has a storage of an unknown kind")
    return dtype, elements


def _storage(file: BinaryIO, dtype: str, elements: int) -> np.ndarray:
    raw = file.read(8)
    if len(raw) < 8 or int.from_bytes(raw, "little") != elements:
        raise UserError("a storage's length differs from its description")
    content = file.read(elements * np.dtype(dtype).itemsize)
    return np.frombuffer(content, dtype, elements)  # ValueError if the file is cut off


def _tensor(storage: np.ndarray, offset: Any, size: Any, stride: Any) -> np.ndarray:
    """A contiguous copy of a strided view of `storage` [elements]; all sizes in elements."""
    if not (_counts([offset, *size, *stride]) and len(size) == len(stride)):
        raise UserError("a tensor's sizes are not counts")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > storage.size or (0 not in size and last >= storage.size):
        raise UserError("a tensor is larger than its storage")
    bytes_per_step = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, bytes_per_step).copy()


def _counts(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)
