"""What samples are drawn with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaeflow import data
from vaeflow.data import named_split
from vaeflow.errors import UserError
from vaeflow.runs import workdir


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
