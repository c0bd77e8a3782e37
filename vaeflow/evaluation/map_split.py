"""One function of one example over a whole split, exactly: what every number of evaluation is made of.

The function sees a batch of one and a key that is fold_in(key, the example's index in the split); a vmap makes batches of
it, one jit with a scan over stacked batches runs them in a few dispatches. So a result depends neither on the batch size nor
on the number of devices, and the padding of the last batch is cut off, not averaged.

Dynamic binarization is drawn here, once per (seed, example index): the same picture for every draw and every k.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vaeflow.data import Split, binarize_batch
from vaeflow.model import Array, Batch, Params
from vaeflow.runs import progress
from vaeflow.training.devices import Devices

# fn: (params, key, batch of one) -> {name: array of one example, no batch axis}
Example = Callable[[Params, Array, Batch], dict[str, Array]]
Pass = Callable[..., Iterator[dict[str, np.ndarray]]]  # (params, another key in place of its own or None)

# One dispatch: at most this much data, and about a second of work, so that Ctrl-C is answered between dispatches.
DISPATCH_BYTES = 64 << 20
DISPATCH_DRAWS = 1 << 18
RESIDENT_BYTES = 1 << 30
_NARROWEST = 32  # examples at once, however many draws each needs

# What is folded into the run's evaluation key: pictures and estimators never share a key.
_PICTURE, _DRAW = 0, 1


def map_split(
    fn: Example,
    split: Split,
    key: Array,
    *,
    batch: int,
    levels: int = 0,
    devices: Devices | None = None,
    draws: int = 1,
    resident: bool = False,
) -> Pass:
    """Compile `fn` over `split`, whose leaves are those of its batch; params -> the outputs, dispatch by dispatch, [n, ...].

    batch     examples at once (rounded up to a multiple of the devices)
    levels    grey values of x when it is to be binarized dynamically, else 0
    devices   over which a batch is divided; None: the default device
    draws     draws of the model per example: sizes the dispatches, so that progress shows between them
    resident  keep the split on the device between calls (up to 1 GiB), for a pass that is run many times
    """
    size = len(split.x)
    width = min(batch, size)
    if (most := max(DISPATCH_DRAWS // draws, _NARROWEST)) < width:
        width = math.ceil(size / math.ceil(size / most))
    if devices is not None:
        width = -(-width // devices.count) * devices.count
    batches = -(-size // width)
    split_bytes = sum(a.nbytes for a in split.arrays().values())
    row_bytes = max(split_bytes // max(size, 1), 1)
    most = max(min(DISPATCH_BYTES // (row_bytes * width), DISPATCH_DRAWS // (draws * width)), 1)
    depth = math.ceil(batches / math.ceil(batches / most))  # equal dispatches: one compilation, little padding
    starts = range(0, size, depth * width)

    compiled = _program(fn, levels, devices)

    def load(start: int) -> dict[str, Array]:
        index = np.arange(start, start + depth * width, dtype=np.uint32)
        rows = np.minimum(index, size - 1)  # padding repeats the last example, whose numbers are finite
        arrays = {name: np.asarray(a[rows]) for name, a in split.arrays().items()} | {"index": index}
        arrays = {name: a.reshape(depth, width, *a.shape[1:]) for name, a in arrays.items()}
        return jax.device_put(arrays) if devices is None else devices.spread(arrays, 1)

    kept: dict[int, dict[str, Array]] = {}

    own = key

    def evaluate(params: Params, key: Array | None = None) -> Iterator[dict[str, np.ndarray]]:
        key = own if key is None else key
        params = params if devices is None else devices.place(params)
        for start in starts:
            data = kept[start] if start in kept else load(start)
            if resident and split_bytes <= RESIDENT_BYTES:
                kept[start] = data
            out = compiled(params, key, data)
            count = min(depth * width, size - start)
            found = {name: np.asarray(a).reshape(depth * width, *a.shape[2:])[:count] for name, a in out.items()}
            progress.advance(start + count, size)
            yield found

    return evaluate


@functools.lru_cache(maxsize=16)
def _program(fn: Example, levels: int, devices: Devices | None) -> Callable[[Params, Array, dict[str, Array]], dict[str, Array]]:
    """(params, key, rows [depth, width, ...]) -> the outputs of `fn`; of one function one program, so that its second split of a size
    compiles nothing."""

    def run(params: Params, key: Array, data: dict[str, Array]) -> dict[str, Array]:
        def example(row: dict[str, Array]) -> dict[str, Array]:
            one = {name: value[None] for name, value in row.items() if name != "index"}
            if levels:
                one["x"] = binarize_batch(jax.random.fold_in(key, _PICTURE), one["x"], levels, row["index"][None])
            return fn(params, jax.random.fold_in(jax.random.fold_in(key, _DRAW), row["index"]), one)

        return jax.lax.map(jax.vmap(example), data)

    return jax.jit(run, out_shardings=None if devices is None else NamedSharding(devices.mesh, PartitionSpec()))


def gather(parts: Iterator[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs of a pass for the whole split, [N, ...]."""
    parts_list = list(parts)
    return {name: np.concatenate([part[name] for part in parts_list]) for name in parts_list[0]}
