"""vaeflow: variational autoencoders and normalizing flows in JAX.

    import jax, vaeflow
    model, params, config = vaeflow.load("runs/digits_vae")      # a run's workdir is all that is needed
    x = model.sample(params, jax.random.key(0), 16)["x"]

`python -m experiments.train --help` is the command line. Importing the package imports neither jax nor anything slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vaeflow.model import Model, Params

__all__ = ["load"]


def load(directory: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> tuple[Model, Params, ConfigDict]:
    """(model, params, config) of a run: pure functions (vaeflow/model.py), the parameters that it is evaluated with, its config.

    overrides: ("eval.params", "last"), ("sample.temperature", "0.8"), ... in the sections eval and sample, and data.dir, data.path,
    data.cache_dir. UserError: this is no workdir, nothing was saved in it, or a key is another one.
    """
    from vaeflow import run

    return run.load_run(Path(directory).expanduser(), overrides)
