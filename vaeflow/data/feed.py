"""The training batches of a run: which rows, and how they reach the device.

The rows of step t are a pure function of (seed, t): epoch e = t // (n // B) is a permutation of its own of the n examples, its
last n % B examples are left out. With data.pairing=shuffle, x0 has permutations of its own. A feed hands over many steps at once, a
`chunk`:

    on the device   `arrays` holds the whole split; a chunk is {x: rows}, or {x: rows, x0: rows}, and `select` gathers the examples on
                    the device. Leaves without rows of their own have those of x
    streamed        `arrays` is None; a chunk is {x: examples, ...}, gathered from the (memory-mapped) split by grain's threads

Both give the same batches for the same seed and step. A process that holds only some slots of the global batch asks for those.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vaeflow.data.source import DataConfig, Split, parse
from vaeflow.errors import UserError
from vaeflow.model import Array, Batch

# data.place=auto keeps a training split of at most this many bytes on the device.
RESIDENT_BYTES = 1 << 30
# A streamed chunk, with its unused room, is copied to the device whole: this bounds the memory and the time of a copy.
CHUNK_BYTES = 1 << 26
# Tells the permutations of a leaf from those of others, and from other draws with the run's seed.
SALTS = {"x": 0xFEED, "x0": 0xFEED0}


@functools.lru_cache(maxsize=8)
def _permutation(salt: int, seed: int, epoch: int, n: int) -> np.ndarray:
    # In numpy on the host: 0.7 ms for 60,000, where jax inside a jit takes 22 ms.
    order = np.random.default_rng((salt, seed, epoch)).permutation(n).astype(np.int32)
    order.setflags(write=False)
    return order


def indices(seed: int, step: int, count: int, n: int, batch: int, leaf: str = "x") -> np.ndarray:
    """Rows [count, batch] int32 of the steps step .. step + count - 1 from n examples; leaf: whose permutations, of SALTS."""
    if batch > n:
        raise UserError(f"data.batch={batch} is larger than the training split, which has {n} examples")
    per_epoch = n // batch
    epoch, place = np.divmod(np.arange(step, step + count), per_epoch)
    out = np.empty((count, batch), np.int32)
    for e in np.unique(epoch):
        order = _permutation(SALTS[leaf], seed, int(e), n)[: per_epoch * batch].reshape(per_epoch, batch)
        out[epoch == e] = order[place[epoch == e]]
    return out


def select(arrays: Mapping[str, Array] | None, chunk: Mapping[str, Array], i: Array | int) -> Batch:
    """Step i of a chunk of one device as a batch {x [B, *event], ...} with the leaves of the split; a pure function, for use inside jit."""
    own = jax.tree.map(lambda a: a[i], chunk)
    if arrays is None:
        return own
    return {name: a.at[own.get(name, own["x"])].get(mode="promise_in_bounds") for name, a in arrays.items()}


class Feed:
    """Chunks of training batches. `with feed:` closes the threads of a streamed one.

    arrays    {x, ...}, the leaves of the whole split as host arrays for the device, or None when streamed
    capacity  steps that a chunk has room for
    """

    def __init__(self, split: Split, config: DataConfig, seed: int, slots: np.ndarray, steps: int, capacity: int):
        """See `make_feed`."""
        self._data = split.arrays()
        self._n, self._batch, self._seed, self._slots, self._steps = len(split.x), config.batch, seed, slots, steps
        self._shuffled = ("x", "x0") if config.pairing == "shuffle" and split.x0 is not None else ("x",)  # leaves with rows of their own
        self._workers, self._prefetch = config.workers, config.prefetch
        self._iterator: Any = None
        self._next = -1  # the step that the iterator gives next
        indices(seed, 0, 0, self._n, self._batch)  # checks the batch
        size = sum(a.nbytes for a in self._data.values())
        resident = config.place == "device" or (config.place == "auto" and size <= RESIDENT_BYTES)
        self.arrays = self._data if resident else None
        step_bytes = slots.size * (np.dtype(np.int32).itemsize * len(self._shuffled) if resident else size // self._n)
        self.capacity = max(1, min(capacity, steps, CHUNK_BYTES // step_bytes))

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads of a streamed feed; a later `chunk` starts them again."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator, self._next = None, -1

    def chunk(self, step: int, count: int) -> dict[str, np.ndarray]:
        """Steps step .. step + count - 1, count <= capacity, with the rest of the room zero.

        For slots [..., b] the leaves are [..., capacity, b, ...]: int32 rows of `arrays`, or else examples.
        """
        if not 1 <= count <= self.capacity or not 0 <= step <= self._steps - count:
            raise ValueError(f"steps {step} to {step + count} of {self._steps} in a chunk of {self.capacity}")
        if self.arrays is not None:
            room = {leaf: self._room((), np.dtype(np.int32)) for leaf in self._shuffled}
            for leaf, rows in self._rows(step, count).items():
                room[leaf][1][:count] = rows
            return {leaf: out for leaf, (out, _) in room.items()}
        if step != self._next:
            self._start(step)
        room = {name: self._room(a.shape[1:], a.dtype) for name, a in self._data.items()}
        for i in range(count):
            for name, rows in next(self._iterator).items():
                room[name][1][i] = rows
        self._next = step + count
        return {name: out for name, (out, _) in room.items()}

    def _room(self, event: tuple[int, ...], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """A new array [..., capacity, b, *event] (a used one may still be read by the device) and its view [capacity, ..., b, *event].

        At an address that is a multiple of 64, where a CPU device reads it in place: a copy of CHUNK_BYTES takes 30 ms.
        """
        *devices, share = self._slots.shape
        shape = (*devices, self.capacity, share, *event)
        size = math.prod(shape) * dtype.itemsize
        raw = np.zeros(size + 64, np.uint8)
        first = -raw.ctypes.data % 64
        out = raw[first : first + size].view(dtype).reshape(shape)
        return out, np.moveaxis(out, len(devices), 0)

    def _rows(self, step: int, count: int) -> dict[str, np.ndarray]:
        """{leaf: rows [count, ..., b]} of the leaves with rows of their own."""
        return {leaf: indices(self._seed, step, count, self._n, self._batch, leaf)[:, self._slots] for leaf in self._shuffled}

    def _gather(self, step: int) -> dict[str, np.ndarray]:
        rows = {leaf: some[0] for leaf, some in self._rows(int(step), 1).items()}
        return {name: a[rows.get(name, rows["x"])] for name, a in self._data.items()}

    def _start(self, step: int) -> None:
        import grain

        self.close()
        # Fewer than one batch ahead for each thread would leave threads idle; no threads, nothing ahead.
        ahead = max(self._prefetch, self._workers) if self._workers and self._prefetch else 0
        options = grain.ReadOptions(num_threads=self._workers if ahead else 0, prefetch_buffer_size=ahead)
        dataset = grain.MapDataset.range(self._steps).map(self._gather)[step:]
        self._iterator = iter(dataset.to_iter_dataset(options))


def make_feed(
    split: Split, data: Mapping[str, Any] | DataConfig, seed: int, *, steps: int, capacity: int, slots: np.ndarray | None = None
) -> Feed:
    """The feed of a training split.

    data      the section config.data: batch, pairing, place, workers, prefetch
    steps     of the whole run
    capacity  steps per chunk at the most; a chunk is also bounded by CHUNK_BYTES
    slots     [..., b]: the places in the global batch that this process holds, by device; None: all, [batch]
    """
    config = parse(data)
    slots = np.arange(config.batch) if slots is None else np.asarray(slots)
    return Feed(split, config, seed, slots, steps, capacity)
