"""A run read back from its workdir."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vaeflow import models
from vaeflow.config import Overrides, check_sections
from vaeflow.errors import UserError
from vaeflow.model import Model
from vaeflow.runs import workdir
from vaeflow.runs.overrides import read_overridden
from vaeflow.training import setup
from vaeflow.training.warm_start import load_params

BY_HAND = "by_hand"  # model.kind of a run of a notebook whose model no registered function made


def load_run(directory: str | Path, overrides: Overrides = (), model: Model | None = None) -> tuple[Any, Any, ConfigDict]:
    """(model, params, config) of a run, from its workdir alone; `config.eval.params` says which checkpoint.

    model: of a run whose model was made by hand; None: the config describes it.

    overrides: ("eval.k", "5000"), ("sample.temperature", "0.7"): the keys of runs/overrides.py only, as what was trained stays as it was.
    """
    config: Any = read_overridden(directory, overrides)
    check_sections(config, str(Path(directory) / "config.json"))

    setup.after_training(config)
    if model is None and str(config.model.get("kind", "")).startswith(BY_HAND):
        raise UserError(f"workdir={directory}: this model was made by hand in a notebook; load it there: vaeflow.load(..., model=...)")
    with workdir.import_hint(directory):
        model = model or models.build_model(config)
    setup.platform()
    params = load_params(directory, config.eval.params)
    return model, params if config.devices.mapping == "fsdp" else jax.device_put(params), config  # what is divided may not fit one
