"""What a figure draws of a model, through evaluation/sampling.py, and what these draws are conditioned on."""

from __future__ import annotations

import numpy as np

from vaeflow.data import Split
from vaeflow.evaluation import sampling
from vaeflow.evaluation.information import evenly
from vaeflow.figures.figure import Subject


def draw_x(subject: Subject, given: dict[str, np.ndarray], n: int) -> np.ndarray:
    """x [n, *event] of n samples with the subject's key; `given` as `conditions` returns it."""
    own = {name: value for name, value in given.items() if name != "label"}
    return sampling.prepare_draw(subject.run.model, n, own, ("x",))(subject.run.params, subject.key)["x"]


def conditions(subject: Subject, n: int, in_turn: bool = False) -> dict[str, np.ndarray]:
    """What n samples are conditioned on: the context and x0 of evenly spaced examples of the split, as far as there are such.

    Args:
        n: number of samples.
        in_turn: the contexts are all classes in turn, where the context is the label.

    Returns:
        {context, x0}, to which the class that was asked for (`Subject.label`) and classes in turn add their `label` [n].
    """
    split, classes = subject.run.split, count_classes(subject.run.split)
    found = sampling.given_of(evenly(split, n))
    if subject.label < 0 and not (in_turn and classes):
        return found
    label = np.full(n, subject.label) if subject.label >= 0 else np.arange(n) % classes
    return found | {"context": np.eye(classes, dtype=np.float32)[label], "label": label}


def count_classes(split: Split) -> int:
    """The number of classes where the context is the label, one-hot; 0 where it is not."""
    if split.context is None or split.label is None:
        return 0
    context = np.asarray(split.context)
    return context.shape[-1] if (context == (np.asarray(split.label)[:, None] == np.arange(context.shape[-1]))).all() else 0
