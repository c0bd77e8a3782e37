"""What a figure is: its type, its subject (a run and what is shown of it), and the needs that several figures share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow import rng
from vaeflow.data import Source, named_split
from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid, evaluate, latent_space
from vaeflow.evaluation.density_grid import GridDensity
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.latent_space import Space
from vaeflow.evaluation.measures import Evaluation
from vaeflow.evaluation.measures.measure import first, latent
from vaeflow.figures.curves import Rows
from vaeflow.figures.images import is_image
from vaeflow.model import Latent, Model, Params
from vaeflow.runs import overrides, workdir
from vaeflow.runs.progress import phase

POINTS = 5000  # examples or draws in one scatter plot, at most


class Subject(NamedTuple):
    """What a figure is drawn of: a run, some examples of it, and the folder that the picture is written to.

    run       the model, its parameters, config and data; the split that is shown
    called    the run's name in captions
    stored    the checkpoint that the parameters are of, best or last, and sampling options that are not the run's own
    output    the folder of the figures
    rows      those of metrics.jsonl
    examples  rows of the split that were asked for; (): none, a figure chooses its own
    seed      of samples and of the choice of examples
    label     the class of samples of a conditional model; -1: all classes
    space     () -> the latent space as the split shows it; computed once
    density   () -> the density of two-dimensional data on a grid; computed once
    """

    run: Evaluation
    called: str
    stored: tuple[str, ...]
    output: Path
    rows: Rows
    examples: tuple[int, ...]
    seed: int
    label: int
    space: Callable[[], Space]
    density: Callable[[], GridDensity]

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.run.split.x.shape[1:]

    @property
    def top(self) -> float:
        """The largest grey value of a picture; 0 for continuous data."""
        return grey_top(self.run.model.levels)

    @property
    def key(self) -> jax.Array:
        """The key of samples."""
        return rng.figure_key(self.seed)

    @property
    def parameters(self) -> str:
        """Which parameters the model has, as captions say it."""
        average = self.run.config.optim.ema
        averaged = f"parameters averaged over training (EMA {average:g})" if average else "parameters of one step"
        return ", ".join([averaged, *self.stored])

    @property
    def caption(self) -> str:
        """The line below a figure of the model."""
        return f"{self.called}, seed {self.run.seed}; {self.run.name} split; {self.parameters}"

    def path(self, name: str) -> Path:
        """The file of the picture `name`."""
        return self.output / f"{name}.png"


class Figure(NamedTuple):
    """A registered figure, the only way to a picture of a run; of text, the file that takes a picture's place.

    draw      (Subject) -> the files that it wrote, one or more: `Subject.path` of the figure's name, `NAME_MORE` of further ones
    needs     (Subject): raises a UserError of one line if the figure does not apply; compiles nothing
    title     what it shows, one line
    default   whether training draws it, in WORKDIR/figures; `explore` draws every figure
    several   ({run: rows of metrics.jsonl}, path) -> path: the same of several runs in one picture; None where no run recorded what it
              shows. Figures without it show one run
    """

    draw: Callable[[Subject], list[Path]]
    needs: Callable[[Subject], Any]
    title: str
    default: bool = False
    several: Callable[[Mapping[str, Rows], Path], Path | None] | None = None


def look_at(
    directory: Path,
    output: Path,
    model: Model,
    params: Params,
    config: Any,
    source: Source,
    rows: Rows,
    *,
    split: str = "",
    examples: tuple[int, ...] = (),
    seed: int | None = None,
    label: int = -1,
    density: GridDensity | None = None,
) -> Subject:
    """The subject of a run's figures.

    Args:
        directory: the run's workdir, whose name the captions have.
        output: the folder of the figures.
        rows: those of metrics.jsonl.
        split: "": the test split, without one the validation split, else the training split.
        examples: rows of the split; (): none in particular.
        seed: of samples and of the choice of examples; None: the run's own.
        label: the class of samples of a conditional model; -1: all classes.
        density: that of two-dimensional data on a grid, where it is computed already.

    Raises:
        UserError: the run has no such split, or the split has no such example.
    """
    name = named_split(source, split)
    chosen, key, options = source.split(name), rng.eval_key(config.seed), evaluate.map_options(source, config)
    for i in examples:
        if not 0 <= i < len(chosen.x):
            raise UserError(f"--examples={i} is invalid; the {name} split has the examples 0 to {len(chosen.x) - 1}")

    @functools.cache
    def space() -> Space:
        with phase("encoding for the figures of the latent space"):
            return latent_space.space(model, params, evenly(chosen, POINTS), key, **options)

    @functools.cache
    def grid() -> GridDensity:
        return density_grid.density(model, params, chosen, key) if density is None else density

    return Subject(
        run=Evaluation(model, params, config, source, chosen, name, key, options),
        called=directory.absolute().name,
        stored=_stored(directory, config),
        output=output,
        rows=rows,
        examples=examples,
        seed=config.seed if seed is None else seed,
        label=label,
        space=space,
        density=grid,
    )


def _stored(directory: Path, config: Any) -> tuple[str, ...]:
    """See `Subject.stored`; () outside a workdir."""
    if not (directory / "config.json").is_file():
        return ()
    return f"{workdir.which_params(directory, config)} checkpoint", *overrides.drawn_with(workdir.read_config(directory), config)


def grey_top(levels: int | None) -> float:
    """The largest of `levels` grey values (None or 0: continuous), 0 for continuous data."""
    return float(max((levels or 0) - 1, 0))


def latent_of(subject: Subject) -> Latent:
    """The model's latent. UserError: it has none."""
    return latent(subject.run)


def needs_pictures(subject: Subject) -> None:
    """UserError: the examples are not pictures."""
    if not is_image(subject.event):
        raise UserError(f"needs pictures, and these examples have the shape {subject.event}")


def needs_plane_or_pictures(subject: Subject) -> None:
    """UserError: the examples are neither pictures nor points of the plane."""
    if not is_image(subject.event) and subject.event != (2,):
        raise UserError(f"needs pictures or points of the plane, and these examples have the shape {subject.event}")


def needs_decoded_pictures(subject: Subject) -> None:
    """UserError: the model has no latent, or the examples are not pictures."""
    latent_of(subject)
    needs_pictures(subject)


def needs_samples(subject: Subject) -> None:
    """UserError: the model draws no samples."""
    if subject.run.model.sample is None:
        raise UserError(f"model.kind={subject.run.config.model['kind']!r} draws no samples")


def are_codes(subject: Subject) -> bool:
    """Whether the latents are integers, between which there are no distances. Traced, not run."""
    run, posterior = subject.run, latent_of(subject).posterior

    def draw(params, batch):
        return posterior(params, batch["x"], batch.get("context")).sample(seed=run.key)

    return not np.issubdtype(jax.eval_shape(draw, run.params, first(run)).dtype, np.inexact)
