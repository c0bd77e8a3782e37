"""The sections of a config, and a whole config from a file: vaeflow/schema.py knows the keys of all of them after this import."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from vaeflow.build import Count, Natural, Seed
from vaeflow.config import Overrides, read_file
from vaeflow.data import DataConfig
from vaeflow.flows import FLOWS
from vaeflow.models import MODELS
from vaeflow.override import overridden
from vaeflow.schema import complete, section
from vaeflow.training.devices import DevicesConfig
from vaeflow.training.optimizer import OptimConfig
from vaeflow.training.step import TrainConfig


class EvalConfig(NamedTuple):
    """The section `config.eval`."""

    params: Literal["auto", "best", "last"] = "auto"  # auto: best where there is one, else last
    batch: Count = 200  # examples at a time
    k: Count = 100  # draws of IWAE-k
    chunk: Count = 10  # draws at a time: fewer need less memory
    measures: tuple[str, ...] = ()  # names of measures (experiments.diagnose --list); (): the likelihood, the ELBO's terms, ... that apply
    settings: Mapping[str, Any] = {}  # of measures, where they differ from the defaults: dict(ais=dict(chains=32))
    examples: Natural = 0  # of the split, in a fixed shuffled order; 0: all
    select: str = "loss"  # criterion for `best` on the validation split: loss, or "measure.finding"
    validate: Mapping[str, Any] = {}  # settings of that measure during training, where they differ from the final ones


class SampleConfig(NamedTuple):
    """What no model checks in the section `config.sample`."""

    n: Count = 64  # samples that are drawn


class RunConfig(NamedTuple):
    """The values of a config that stand in no section."""

    seed: Seed = 0  # of parameters, batches and noise
    profile: bool = False  # write a jax.profiler trace of steps 10 to 20 into the workdir
    init_from: str = ""  # workdir whose parameters this run starts from, wherever path and shape agree
    fixed_from: str = ""  # workdir whose parameters this run keeps fixed, wherever paths agree


for _name, _schema in {
    **{"": RunConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig, "eval": EvalConfig},
    **{"sample": SampleConfig, "devices": DevicesConfig},
}.items():
    section(_name, _schema)


__all__ = ["EvalConfig", "RunConfig", "SampleConfig", "complete", "load"]


def load(path_and_row: str, overrides: Overrides = ()) -> ConfigDict:
    """The complete, locked config of `path.py` or `path.py:row`.

    Args:
        path_and_row: a config file, which is executed, and one of its rows.
        overrides: ("optim.learning_rate", "3e-4"), ...; keys that another kind does not have are dropped, with a line each.

    Raises:
        UserError: there is no such file or row, the file raises an exception, or an override does not fit.

    Example:
        >>> load("configs/digits_vae.py:conv", [("train.steps", "1e4")]).train.steps
        10000
    """
    assert MODELS and FLOWS  # registered by the import
    config, lines = overridden(read_file(path_and_row), overrides)
    for line in lines:
        print(line, file=sys.stderr)
    return config
