"""What is made from a finished run's workdir: samples and encodings."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import data, evaluate, figures, workdir
from vaeflow.errors import UserError
from vaeflow.launch import Overrides


def draw_samples(directory: Path, seed: int = 0, label: int = -1, overrides: Overrides = ()) -> None:
    """experiments.sample: samples.npz and samples.png of c.sample.n draws."""
    model, params, config = workdir.load(directory, overrides, allowed=("sample",))
    n, context, names = config.sample.n, None, None
    if config.data.context == "label":
        classes = _context_size(config)
        if not -1 <= label < classes:
            raise UserError(f"--label={label} is impossible; known: 0 to {classes - 1}, or -1 for all in turn")
        names = np.full(n, label) if label >= 0 else np.arange(n) % classes
        context = jnp.asarray(np.eye(classes, dtype=np.float32)[names])
    elif label >= 0:
        raise UserError(f"--label={label} needs a conditional model; this run has data.context={config.data.context!r}")
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(params, jax.random.key(seed), n, context))
    np.savez_compressed(directory / "samples.npz", x=x, **({} if names is None else {"label": names}))
    figure = figures.draw_samples(x, config, directory / "figures" / "samples_drawn.png")
    print(f"{n} samples, temperature {config.sample.temperature:g}, seed {seed}:\n  {directory / 'samples.npz'}\n  {figure}")


def _context_size(config) -> int:
    context = data.load(config.data, config.seed).train.context
    assert context is not None  # data.load has checked it: data.context is "label"
    return context.shape[-1]


def encode(directory: Path, split: str = "test", output: str = "", overrides: Overrides = ()) -> None:
    """experiments.encode: the latents and log-probabilities of a split, one row an example."""
    model, params, config = workdir.load(directory, overrides, allowed=("eval",))
    source = data.load(config.data, config.seed)
    chosen = getattr(source, split)
    if chosen is None:
        raise UserError(f"--split={split!r}: this run has no such split; data.{split} is empty")
    arrays = evaluate.encode(model, params, chosen, source, config)
    path = Path(output) if output else directory / f"encoded_{split}.npz"
    np.savez_compressed(path, **arrays)
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    print(f"{len(chosen.x)} examples of the {split} split: {shapes}\n  {path}")
