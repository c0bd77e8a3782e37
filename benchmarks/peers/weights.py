"""The file that `agreement` writes and the libraries read: a flow of vaeflow, points, and what vaeflow says of them (numpy alone).

    case      JSON: {"layers": [a description of each layer, from the data to the latent], "hidden", "size": numbers per dimension}
    i/...     the weights of layer i: dense_0/kernel [inputs, units], dense_0/bias, dense_1/..., head/..., context/kernel, order [D]
    z, x, log_prob, context     noise [N, D], its image [N, D], the image's log-densities [N], features [N, C] or none

An autoregressive net of vaeflow orders its hidden units by degree, the other libraries deal the degrees out in turn; its head
has the numbers of a dimension on the leading axis: row p * D + i is number p of dimension i.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Case(NamedTuple):
    """See the module's docstring; weights: by layer, {name: array}."""

    layers: list[dict[str, Any]]
    weights: list[dict[str, Array]]
    hidden: list[int]
    size: int
    x: Array
    log_prob: Array
    z: Array
    context: Array | None


def read(file: str | Path) -> Case:
    """The case of a file; weights in the dtype of x."""
    with np.load(file) as found:
        arrays = dict(found)
    case = json.loads(str(arrays["case"]))
    weights: list[dict[str, Array]] = [{} for _ in case["layers"]]
    for name, array in arrays.items():
        layer, _, rest = name.partition("/")
        if rest:
            weights[int(layer)][rest] = array if array.dtype.kind == "i" else array.astype(arrays["x"].dtype)
    points = {name: arrays[name] for name in ("x", "log_prob", "z")}
    return Case(case["layers"], weights, case["hidden"], case["size"], **points, context=arrays.get("context"))


def names(case: Case) -> list[str]:
    """The weights' names from the first hidden layer to the head."""
    return [*(f"dense_{i}" for i in range(len(case.hidden))), "head"]


def kept(layer: dict[str, Any], d: int) -> Array:
    """[d] bool: the numbers that a coupling keeps. half: the first d // 2; alternating: 0, 2, 4, ...; flip: the others."""
    index = np.arange(d)
    return (index < d // 2 if layer["mask"] == "half" else index % 2 == 0) != layer["flip"]


def by_dimension(head: Array, size: int) -> Array:
    """Rows p * D + i -> rows i * size + p."""
    return head.reshape(size, -1, *head.shape[1:]).swapaxes(0, 1).reshape(head.shape)


def masked(case: Case, i: int, masks: Sequence[Array], place: Array) -> list[tuple[Array, Array]]:
    """By layer of net i, (weight [units, inputs], bias) as the library of these masks [units, inputs] orders its units, head by dimension.

    The degree of a unit is the number of x's entries that reach it through the masks. Context columns come after those of x.
    place [d]: where vaeflow's order has the dimensions that the library's net sees.
    """
    own, inputs = case.weights[i], place
    reach, found = np.eye(len(place)), []
    for name, mask in zip(names(case), masks, strict=True):
        weight, bias = own[f"{name}/kernel"].T, own[f"{name}/bias"]
        extra = own["context/kernel"].T if name == "dense_0" and case.context is not None else weight[:, :0]
        reach = (mask[:, : len(reach)].astype(float) @ reach > 0).astype(float)
        if name == "head":
            weight, bias = by_dimension(weight, case.size), by_dimension(bias, case.size)
            units = (place[:, None] * case.size + np.arange(case.size)).ravel()
        else:
            units = np.argsort(np.argsort(reach.sum(1), kind="stable"))
        found.append((np.concatenate([weight[:, inputs], extra], axis=1)[units], bias[units]))
        inputs = units
    return found


def difference(case: Case, log_prob: Array, x: Array) -> dict[str, float]:
    """From vaeflow: the largest differences of log-densities and of samples relative to 1 + |x|; the `most` of log-densities."""
    apart = np.abs(x - case.x) / (1 + np.abs(case.x))
    return {
        "log_prob": float(np.abs(log_prob - case.log_prob).max()),
        "sample": float(apart.max()),
        "most": most(log_prob, case.log_prob),
    }


def most(log_prob: Array, exact: Array) -> float:
    """The absolute difference that 99% of the points stay below: the largest is decided by the one point that is conditioned worst."""
    return float(np.quantile(np.abs(log_prob - exact), 0.99))
