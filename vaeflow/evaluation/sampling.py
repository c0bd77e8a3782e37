"""What samples are drawn with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaeflow import data
from vaeflow.data import named_split
from vaeflow.errors import UserError
from vaeflow.model import Array, Model, Params
from vaeflow.runs import workdir

# Draws at a time: a constant, so that samples do not depend on eval.batch.
_DRAWS = 250


def prepare_draw(model: Model, n: int, context: np.ndarray | None) -> Callable[[Params, Array], np.ndarray]:
    """(params, key) -> n draws of the model, [n, *event] float32; a second call compiles nothing.

    Args:
        n: number of draws.
        context: [N, C] of a conditional model, repeated in turn; None of another one.
    """
    size = min(_DRAWS, n)
    draw = jax.jit(model.sample, static_argnums=2)

    def run(params: Params, key: Array) -> np.ndarray:
        parts = []
        for i, start in enumerate(range(0, n, size)):
            own = None if context is None else np.asarray(context[np.arange(start, start + size) % len(context)])
            parts.append(np.asarray(draw(params, jax.random.fold_in(key, i), size, own), np.float32))
        return np.concatenate(parts)[:n]

    return run


def conditions(directory: Path, config: Any, n: int, label: int) -> dict[str, np.ndarray]:
    """{context [n, C], label [n]} of a conditional model: the class `label`, or all classes in turn; contexts that are no
    classes are those of the data."""
    kind = config.data.context
    if kind != "label" and label != -1:
        raise UserError(f"--label={label} needs a model that is conditioned on labels; this run has data.context={kind!r}")
    if kind == "none":
        return {}
    if kind == "array":
        source = data.load(config.data, config.seed)
        context = np.asarray(source.split(named_split(source)).context)
        return {"context": np.resize(context, (n, context.shape[-1]))}
    classes = workdir.read_json(directory / "data.json")["context"]
    if not -1 <= label < classes:
        raise UserError(f"--label={label} is invalid; known: 0 to {classes - 1}, or -1 for all in turn")
    labels = np.full(n, label) if label >= 0 else np.arange(n) % classes
    return {"context": np.eye(classes, dtype=np.float32)[labels], "label": labels}
