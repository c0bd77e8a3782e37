"""What is made from a finished run's workdir: samples and encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from vaeflow import figures
from vaeflow.build import SEEDS
from vaeflow.config import Overrides
from vaeflow.data import named_split
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate, sampling
from vaeflow.evaluation.store import load_data, restore
from vaeflow.figures.canvas import captioned
from vaeflow.figures.images import is_image
from vaeflow.run import load_run
from vaeflow.runs import guard, workdir
from vaeflow.runs.files import write_npz
from vaeflow.runs.overrides import artifact_name
from vaeflow.runs.progress import phase
from vaeflow.training import devices

_PRINTED = 8  # samples of text


def draw_samples(directory: Path, seed: int = 0, label: int = -1, overrides: Overrides = ()) -> None:
    """experiments.sample: samples.npz and samples_drawn.png of c.sample.n draws, and what they are conditioned on; of text
    samples_drawn.txt, the first lines of which are printed too."""
    if seed not in SEEDS:
        raise UserError(f"--seed={seed} is invalid; it must be {SEEDS}")
    guard.check_links(directory, ("samples.npz", "figures"))
    model, params, config = load_run(directory, overrides)
    n = config.sample.n
    given = sampling.conditions(directory, config, model, n, label, load=lambda: load_data(directory, config))
    with phase(f"drawing {n:,} samples"):
        drawn = sampling.draw(model, params, jax.random.key(seed), n, {name: a for name, a in given.items() if name != "label"})
    x, path = drawn["x"], directory / "samples.npz"
    _write_npz(path, {**given, **drawn})
    known = workdir.read_json(directory / "data.json")
    names = known["labels"] if "label" in given else ()
    options = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in sampling_options(config)]
    told = ", ".join([*options, f"seed {seed}", f"{workdir.which_params(directory, config)} checkpoint"])
    with captioned(f"{directory.absolute().name}, seed {config.seed}; samples: {told}"):
        to = directory / "figures" / "samples_drawn.png"
        if alphabet := known.get("alphabet"):
            lines = figures.lines_of(x, alphabet)
            print(*lines[:_PRINTED], sep="\n")
            figure = figures.write_text(to.with_suffix(".txt"), lines)
        elif model.edits and is_image(x.shape[1:]):
            each = min(n, sampling.EDITED)
            rows = n // each  # of the last example there may be fewer draws, which stay in the file
            pictures = (a[: rows * each].reshape(rows, each, *x.shape[1:]) for a in (given["reference"], drawn["known"], x))
            reference, known, edited = pictures
            figure = figures.edit_table(reference[:, 0], known[:, 0], edited, to, max((model.levels or 0) - 1, 0))
        else:
            what = figures.what_samples(model, params, given.get("context"))
            figure = figures.draw_samples(x, model.levels, to, given.get("label"), names, what)
    print(f"{n} samples, {told}:\n  {path}\n  {figure}")


def sampling_options(config: Any) -> list[tuple[str, Any]]:
    """(key, value) of config.sample without the number of samples and what is off: what this model's `sample` reads."""
    return [(key, value) for key, value in sorted(config.sample.items()) if key != "n" and value != ""]


def encode(directory: Path, split: str = "", output: Path | None = None, overrides: Overrides = ()) -> None:
    """experiments.encode: the latents and log-probabilities of a split, one row an example."""
    if output is None:
        guard.check_links(directory, ("encoded_*.npz",))
    else:
        if output.suffix != ".npz":
            raise UserError(f"--output={str(output)!r} must be an .npz file")
        _make_folder(output)
    model, params, config, source, *_ = restore(directory, overrides=overrides)
    split = named_split(source, split)
    if model.latent is None and model.encode is None and model.log_prob is None:
        raise UserError(f"model.kind={config.model.kind!r} has no latents and no density: there is nothing to encode")
    with phase(f"encoding the {split} split"):
        arrays = evaluate.encode(model, params, source.split(split), source, config, devices.for_evaluation(config.devices.mapping))
    path = output or directory / f"{artifact_name(f'encoded_{split}', workdir.read_config(directory), config)}.npz"
    _write_npz(path, arrays)
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    print(f"{len(source.split(split).x)} examples of the {split} split: {shapes}\n  {path}")


def _write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Arrays in a file that the command names."""
    try:
        write_npz(path, arrays)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}") from None


def _make_folder(path: Path) -> None:
    """The folder of a file, before the work that the file is for."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be written: {error.strerror}") from None
