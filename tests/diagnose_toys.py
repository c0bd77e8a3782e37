"""A run without a workdir, for the tests of what `experiments.diagnose` does."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tests.toys import sections
from vaeflow.data import Source, Split
from vaeflow.evaluation.measures import Evaluation, Finding
from vaeflow.model import Model


def run(model: Model, test: Split, train: Split | None = None, levels: int = 0, name: str = "test", **data: Any) -> Evaluation:
    """A run with the examples `test` of the split `name`; `data`: values of config.data."""
    config: Any = sections()
    config.model.kind = "toy"
    config.data.update(**{"kind": "digits", "name": "toy", **data})
    config.eval.update(chunk=8, batch=100)
    labels = None if test.label is None else tuple(str(i) for i in range(int(np.max(test.label)) + 1))
    source = Source(test if train is None else train, None, test, levels, labels)
    options = dict(batch=100, levels=levels if config.data.binarize == "dynamic" else 0, devices=None)
    return Evaluation(model, {}, config, source, test, name, jax.random.key(5), options)


def number(finding: Finding) -> tuple[float, float]:
    """(value, standard error) of a finding that has one."""
    assert finding.se is not None
    return finding.value, finding.se
