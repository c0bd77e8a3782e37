"""A run read back from its workdir."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vaeflow import models
from vaeflow.config import check_sections, override
from vaeflow.errors import UserError
from vaeflow.runs import workdir
from vaeflow.training import setup
from vaeflow.training.warm_start import load_params


def load_run(directory: str | Path, overrides: Sequence[tuple[str, str]] = (), allowed: Sequence[str] = ()) -> tuple[Any, Any, ConfigDict]:
    """(model, params, config) of a run, from its workdir alone; `config.eval.params` says which checkpoint.

    overrides: ("eval.k", "5000"), in the sections and keys `allowed` only: what was trained stays as it was.
    """
    config: Any = workdir.read_config(directory)
    for key, text in overrides:
        if key not in allowed and key.partition(".")[0] not in allowed:
            known = ", ".join(f"config.{name}" if "." in name else f"config.{name}.*" for name in allowed) or "none"
            raise UserError(f"config.{key} cannot be changed in a run that is trained; known: {known}")
        override(config, key, text)
    check_sections(config, str(Path(directory) / "config.json"))

    setup.after_training(config)
    with workdir.import_hint(directory):
        model = models.build_model(config)
    setup.platform()
    params = load_params(directory, config.eval.params)
    return model, params if config.devices.mapping == "fsdp" else jax.device_put(params), config  # what is divided may not fit one
