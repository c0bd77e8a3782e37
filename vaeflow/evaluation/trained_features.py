"""Features of x for Frechet distances from the `encode` of a model that was trained here: a classifier's last hidden layer, a flow's z.

Any run is an extractor if its model has `encode`, gives vectors of real numbers [B, F] of x alone (no context, no pairs), and has the
event and the grey values of the data. Distances of different extractors are not comparable; `name` and `sha256` identify one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.config import plain
from vaeflow.errors import UserError
from vaeflow.evaluation.features import Extractor
from vaeflow.model import Array, Model, Params
from vaeflow.run import load_run
from vaeflow.runs import workdir
from vaeflow.training.frozen import fingerprint

# Examples at a time.
CHUNK = 500
_DIGITS = 12  # of a sha256, in names


def of_run(directory: str | Path, event: tuple[int, ...], levels: int) -> Extractor:
    """The features of a trained run, by the checkpoint that its evaluation uses. Nothing is compiled before features are asked for.

    Args:
        directory: the run's workdir.
        event, levels: the shape of one example of the data that are compared, and their number of grey values (0: continuous).

    Returns:
        An `Extractor` with its name: number of features, the run's config, folder and checkpoint, the first digits of the sha256.

    Raises:
        UserError: the directory is not the workdir of a trained run, or that is not an extractor of these data, see the module's docstring.

    Example:
        own = of_run("runs/digits_classifier", (8, 8, 1), 17)
        distance = frechet(own.features(samples / 16), own.features(held / 16))
    """
    directory = Path(directory).expanduser()
    loaded: tuple[Model, Params, Any] = load_run(directory)
    model, params, config = loaded
    if model.encode is None:
        raise UserError("its model has no `encode`, which gives features")
    if model.paired or config.data.context != "none":
        raise UserError(f"its features are not of x alone: data.kind={config.data.kind!r}, data.context={config.data.context!r}")
    if model.event is not None and tuple(model.event) != tuple(event):
        raise UserError(f"its examples have the shape {tuple(model.event)}, those that are compared {tuple(event)}")
    if model.levels is not None and model.levels != levels:
        raise UserError(f"its examples have {model.levels} grey values, those that are compared {levels} (0: continuous)")
    found = jax.eval_shape(model.encode, params, jax.random.key(0), {"x": jnp.zeros((1, *event))})
    if found.ndim != 2 or not jnp.issubdtype(found.dtype, jnp.floating):
        raise UserError(f"its features must be vectors of real numbers; those of an example are {found.dtype} of shape {found.shape[1:]}")
    which = workdir.provenance(directory, config)
    sha256 = digest({"model": plain(config.model), "parts": plain(config.parts)}, params)
    checkpoint = f"{which['params']} parameters of step {which['params_step']:,}"
    name = f"{which['config'] or 'a run'} in {directory.absolute().name}, {checkpoint}, sha256 {sha256[:_DIGITS]}"
    return Extractor(f"{found.shape[1]} features of {name}", sha256, features_of(model, params, levels), found.shape[1])


def features_of(model: Model, params: Params, levels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Intensities x [N, *event] (values of continuous data, levels = 0) -> what the model's `encode` gives, [N, F] float64.

    A model with noise of its own (a flow's dequantisation) draws the same for the same row in every call.
    """
    encode, top = model.encode, max(levels - 1, 1)
    assert encode is not None

    def one(row: tuple[Array, Array], params: Params) -> Array:
        i, x = row
        return encode(params, jax.random.fold_in(jax.random.key(0), i), {"x": x[None] * top})[0]

    @jax.jit
    def outputs(params: Params, x: Array) -> Array:
        return jax.lax.map(lambda row: one(row, params), (jnp.arange(len(x)), x), batch_size=CHUNK)

    return lambda x: np.asarray(outputs(params, jnp.asarray(x, jnp.float32)), np.float64)


def digest(described: Any, params: Params) -> str:
    """The sha256 of a model, 64 hexadecimal digits: of what describes it, as JSON, and of its parameters with their paths and types."""
    return hashlib.sha256((json.dumps(described, sort_keys=True) + fingerprint(params)).encode()).hexdigest()
