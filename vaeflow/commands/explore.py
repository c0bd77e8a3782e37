"""experiments.explore: the views of a run (views.py), or the path of training of several runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from vaeflow import figures
from vaeflow.build import SEEDS
from vaeflow.commands import compare
from vaeflow.config import Overrides
from vaeflow.data import named_split
from vaeflow.errors import UserError, unknown_kind
from vaeflow.evaluation import sampling
from vaeflow.evaluation.store import restore
from vaeflow.figures import views
from vaeflow.figures.canvas import captioned
from vaeflow.runs import guard, workdir
from vaeflow.runs.metrics import read_metrics
from vaeflow.runs.overrides import artifact_name, read_overridden
from vaeflow.runs.progress import phase


def explore(
    directories: Sequence[Path],
    show: Sequence[str] = (),
    *,
    examples: tuple[int, ...] = (),
    split: str = "",
    seed: int = 0,
    label: int = -1,
    output: Path | None = None,
    overrides: Overrides = (),
) -> None:
    """Draw the views `show` of a run (all that apply: ()), or the plane of several, and print each figure's path."""
    for name in show:
        if name not in (*views.VIEWS, "plane"):
            raise unknown_kind("--show", name, (*views.VIEWS, "plane"))
    if not directories:
        raise UserError("there is no run to look at: name one, --workdir=WORKDIR, or several for --show=plane")
    several = len(directories) > 1
    if several and (other := [name for name in show if name != "plane"]):
        raise UserError(f"--show={','.join(other)} looks at one run, and {len(directories)} are named; known for several: plane")
    names = ("plane",) if several else show or (*views.VIEWS, "plane")
    if not several and output is None:
        guard.check_links(directories[0], ("explore", "explore+*"))
    folder = output or (Path("runs/compare") if several else directories[0] / _folder(directories[0], overrides))
    caption = ""
    found: dict[str, Callable[[], list[Path]]] = {"plane": lambda: _plane(directories, folder)}
    if set(names) != {"plane"}:
        run = _load(directories[0], folder, examples, split, seed, label, overrides)
        parameters = f"parameters averaged over training (EMA {ema:g})" if (ema := run.config.optim.ema) else "parameters of one step"
        caption = f"{directories[0].absolute().name}, seed {run.config.seed}; {run.name} split; {parameters}"
        found |= {name: functools.partial(view, run) for name, view in views.VIEWS.items()}
    for name in names:
        try:
            with phase(f"drawing {name}"), captioned("" if name == "plane" else caption):
                drawn = found[name]()
            print(*drawn, sep="\n", flush=True)
        except views.Inapplicable as error:
            if show:
                raise
            print(error)


def _folder(directory: Path, overrides: Overrides) -> str:
    """explore, or explore+KEY=VALUE for another checkpoint or other sampling options than the run's own."""
    return artifact_name("explore", workdir.read_config(directory), read_overridden(directory, overrides))


def _load(
    directory: Path, output: Path, examples: tuple[int, ...], split: str, seed: int, label: int, overrides: Overrides
) -> views.Request:
    if seed not in SEEDS:
        raise UserError(f"--seed={seed} is invalid; it must be {SEEDS}")
    model, params, config, source, *_ = restore(directory, overrides=overrides)
    sampling.conditions(directory, config, model, 1, label)  # a label that cannot be drawn
    name = named_split(source, split)
    chosen = source.split(name)
    for i in examples:
        if not 0 <= i < len(chosen.x):
            raise UserError(f"--examples={i} is invalid; the {name} split has the examples 0 to {len(chosen.x) - 1}")
    space = functools.cache(lambda: figures.find_space(model, params, chosen, source, config))
    return views.Request(directory, output, model, params, config, source, name, chosen, examples, seed, label, space)


def _plane(directories: Sequence[Path], output: Path) -> list[Path]:
    """The paths of training, which need no model: the workdirs' metrics.jsonl."""
    runs = {}
    for name, directory in compare.names(directories).items():
        workdir.read_config(directory)
        runs[name] = read_metrics(directory)
    drawn = figures.draw_planes(runs, output / "plane.png")
    if drawn is None:
        raise views.Inapplicable("plane: needs reconstruction and KL over training, which are logged of models with a latent variable")
    return [drawn]
