"""Files in PyTorch's legacy format, written without torch, and objects that run code when they are unpickled."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import numpy as np

from vaeflow.evaluation import torch_file


class Attack:
    """Unpickled, it calls function(*args)."""

    def __init__(self, function: Any, *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


# A writer of PyTorch's legacy format, opcode by opcode: pickle itself would import torch to name its classes.
def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def count(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def counts(values: Any) -> bytes:
    return tuple_of(*[count(value) for value in values])


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


ORDERED = named("collections", "OrderedDict") + b")R"


def tensor(key: str, array: np.ndarray, elements: int | None = None, kind: bytes | None = None, hooks: bytes = ORDERED) -> bytes:
    """A tensor with the strides of `array`, whose memory is the storage `key`."""
    kind = kind or named("torch", {"float32": "FloatStorage", "int64": "LongStorage"}[str(array.dtype)])
    elements = array.size if elements is None else elements
    storage = tuple_of(text("storage"), kind, text(key), text("cpu"), count(elements), b"N") + b"Q"
    strides = [step // array.itemsize for step in array.strides]
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + tuple_of(storage, count(0), counts(array.shape), counts(strides), b"\x89", hooks)
        + b"R"
    )


def head(magic: int = torch_file.MAGIC, little_endian: bool = True) -> bytes:
    return b"".join(pickle.dumps(part, 2) for part in (magic, 1001, {"little_endian": little_endian}))


def legacy(arrays: dict[str, np.ndarray], tensors: dict[str, bytes] | None = None) -> bytes:
    """The file that torch.save writes for a state dict, with OrderedDict's attribute _metadata."""
    keys = {name: str(1000 + i) for i, name in enumerate(arrays)}
    described = {name: tensor(keys[name], array) for name, array in arrays.items()} | (tensors or {})
    state = b"\x80\x02" + ORDERED + b"(" + b"".join(text(name) + value for name, value in described.items()) + b"u"
    state += b"}" + text("_metadata") + ORDERED + b"sb."
    raw = [struct.pack("<q", a.size) + a.ravel("K").tobytes() for a in arrays.values()]
    return head() + state + pickle.dumps(list(keys.values()), 2) + b"".join(raw)
