"""Draws of a model, all of them through one function, and what they are conditioned on.

A conditional model is drawn given contexts, a model of pairs (`Model.paired`) given the other halves x0, and one that edits examples
(`Model.edits`) given those, the `reference`. Rows are used in turn; a context without the leading axis is used for every draw.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaeflow import data
from vaeflow.data import Split, named_split
from vaeflow.errors import UserError
from vaeflow.model import Array, Batch, Model, Params, SampleFn
from vaeflow.runs import workdir

# Draws at a time: a constant, so that samples do not depend on eval.batch.
_DRAWS = 250
# What `Model.sample` may be given, and the leaf of a batch that it is.
_GIVEN = {"context": "context", "x0": "x0", "reference": "x"}
# Draws of each reference, one after the other.
EDITED = 8

Drawn = dict[str, np.ndarray]


def draw(model: Model, params: Params, key: Array, n: int, given: Mapping[str, Any] | None = None) -> Drawn:
    """n draws of a model as a batch of numpy arrays, [n, ...] a leaf: `x` [n, *event] and what the family knows of them.

    Args:
        n: number of draws.
        given: {context: [C] or [N, C], x0: [N, *event0], reference: [N, *event]}, see the module's docstring. What the model does not
            take is ignored.

    Raises:
        UserError: the model draws nothing.

    Example:
        draw(model, params, jax.random.key(0), 16)["x"]
    """
    return prepare_draw(model, n, given)(params, key)


def prepare_draw(
    model: Model, n: int, given: Mapping[str, Any] | None = None, leaves: Sequence[str] = ()
) -> Callable[[Params, Array], Drawn]:
    """(params, key) -> what `draw` returns; a second call compiles nothing.

    Args:
        n: number of draws.
        given: see `draw`.
        leaves: the leaves that are wanted; the others are not computed. (): all.

    Raises:
        UserError: the model draws nothing.
    """
    if (sample := model.sample) is None:
        raise UserError("this model draws no samples")
    size = min(_DRAWS, n)
    rows = {name: _rows(name, value) for name, value in (given or {}).items() if value is not None and _takes(model, name)}

    some = _program(sample, size, tuple(leaves))

    def run(params: Params, key: Array) -> Drawn:
        parts = []
        for i, start in enumerate(range(0, n, size)):
            own = {name: value[np.arange(start, start + size) % len(value)] for name, value in rows.items()}
            parts.append(jax.device_get(some(params, jax.random.fold_in(key, i), own)))
        return {name: np.concatenate([part[name] for part in parts])[:n] for name in parts[0]}

    return run


@functools.lru_cache(maxsize=16)
def _program(sample: SampleFn, n: int, leaves: tuple[str, ...]) -> Callable[[Params, Array, Mapping[str, Any]], Batch]:
    """(params, key, what is given) -> n draws; of one function and number one program."""

    @jax.jit
    def some(params: Params, key: Array, own: Mapping[str, Any]) -> dict[str, Array]:
        found = sample(params, key, n, **own)
        return {name: found[name] for name in leaves or found}

    return some


def _rows(name: str, value: Any) -> np.ndarray:
    """[N, ...]: one context as an array of one row."""
    value = np.asarray(value)
    return value[None] if name == "context" and value.ndim == 1 else value


def _takes(model: Model, name: str) -> bool:
    """Whether the model's `sample` takes this leaf of _GIVEN."""
    return {"x0": model.paired, "reference": model.edits}.get(name, True)


def given_of(split: Split) -> dict[str, np.ndarray]:
    """What draws of a model of these data may be given: the contexts, the x0 and x of the split's examples, in turn."""
    return {name: value for name, leaf in _GIVEN.items() if (value := getattr(split, leaf)) is not None}


def given_classes(model: Model, split: Split | None, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """What draws of these classes are given: one-hot contexts, and of examples of the class, in turn, what else the model takes.

    Args:
        split: the examples; None: of a model that needs none. For a class without examples, all are used.
        labels: [n] the class of each draw.
        classes: number of classes.
    """
    found = {"context": np.eye(classes, dtype=np.float32)[labels]}
    if split is None or split.label is None:
        return found
    rows = np.empty(len(labels), int)
    for label in np.unique(labels):
        own = np.flatnonzero(split.label == label)
        rows[labels == label] = np.resize(own if len(own) else np.arange(len(split.x)), np.count_nonzero(labels == label))
    others = {name: value for name, value in given_of(split).items() if name != "context" and _takes(model, name)}
    return found | {name: np.asarray(value[rows]) for name, value in others.items()}


def conditions(
    directory: Path, config: Any, model: Model, n: int, label: int = -1, *, load: Callable[[], data.Source]
) -> dict[str, np.ndarray]:
    """{context [n, C], label [n], x0 [n, *event0], reference [n, *event]} of a run's draws, as far as the model is given them.

    Args:
        load: the run's data, called only for contexts that are not classes, for x0 and for references: those of the run's own split, in
            turn; EDITED draws of each reference.
        label: the class of all draws; -1: all classes in turn.

    Raises:
        UserError: a label of a run that is not conditioned on labels, or of a class that does not exist.
    """
    kind = config.data.context
    if kind != "label" and label != -1:
        raise UserError(f"--label={label} needs a model that is conditioned on labels; this run has data.context={kind!r}")
    split = None
    if kind == "array" or model.paired or model.edits:
        source = load()
        split = source.split(named_split(source))
    each = EDITED if model.edits else 1
    rows = np.arange(n) // each
    if kind != "label":
        own = {} if split is None else given_of(split)
        return {name: value[rows % len(value)] for name, value in own.items() if _takes(model, name)}
    classes = workdir.read_json(directory / "data.json")["context"]
    if not -1 <= label < classes:
        raise UserError(f"--label={label} is invalid; known: 0 to {classes - 1}, or -1 for all in turn")
    labels = np.full(-(-n // each), label) if label >= 0 else np.arange(-(-n // each)) % classes
    found = given_classes(model, split, labels, classes) | {"label": labels}
    return {name: value[rows] for name, value in found.items()}
