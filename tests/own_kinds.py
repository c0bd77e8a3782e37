"""A file of a user for --import, of which tests/test_import.py makes copies: one kind for every registry.

Annotations are text, a network is a dataclass, the settings of the check are a NamedTuple: all of them look up names in their module.
Every execution is counted in a file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from vaeflow.bijectors import BIJECTORS, BijectorEntry
from vaeflow.bijectors.affine import affine_coupling
from vaeflow.build import Count
from vaeflow.data import SOURCES
from vaeflow.data.source import Source, Split
from vaeflow.evaluation.measures import MEASURES, Finding, Measure, once
from vaeflow.models import MODELS, ModelEntry
from vaeflow.models.flow import flow
from vaeflow.models.parts.bases import BASES
from vaeflow.nets import NETS
from vaeflow.nets.mlp import mlp


class Settings(NamedTuple):
    """Of the check."""

    n: Count = 2


class Unused(nn.Module):
    """A network."""

    width: int


def wide(*, hidden: tuple[Count, ...], activation: str = "relu", dtype: str = "float32"):
    """A network."""
    return mlp(hidden=hidden, activation=activation, dtype=dtype)


def points(config, seed):
    """Two-dimensional data."""
    x = np.random.default_rng(seed).normal(size=(config.size, 2)).astype(np.float32)
    return Source(Split(x), Split(x[:100]), Split(x[:100]), 0, seeded=True)


def needs(run, settings):
    """Nothing."""


def check(run, settings):
    """One number."""
    return {"largest": Finding(float(np.abs(run.split.x).max()), f"of {settings.n}")}


with Path(__file__).with_suffix(".ran").open("a") as counted:
    counted.write("x")
MODELS["my_flow"] = ModelEntry(flow, ())
BIJECTORS["my_coupling"] = BijectorEntry(affine_coupling, ())
NETS["my_net"] = wide
BASES["my_base"] = BASES["logistic"]
SOURCES["my_points"] = points
MEASURES["my_measure"] = Measure(once(check), needs, "a measure of my own", Settings())
