"""experiments.explore: the registered figures of a run, or those of training of several runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaeflow import figures
from vaeflow.build import SEEDS
from vaeflow.commands import compare
from vaeflow.config import Overrides
from vaeflow.errors import UserError
from vaeflow.evaluation import sampling
from vaeflow.evaluation.store import restore
from vaeflow.figures import FIGURES, Subject
from vaeflow.runs import guard, workdir
from vaeflow.runs.metrics import read_metrics
from vaeflow.runs.overrides import artifact_name, read_overridden
from vaeflow.runs.progress import phase


def listing() -> str:
    """Every figure with what it shows."""
    width = max(map(len, FIGURES))
    return "\n".join(f"{name:<{width}}  {figure.title}" for name, figure in FIGURES.items())


def explore(
    directories: Sequence[Path],
    show: Sequence[str] = (),
    *,
    examples: tuple[int, ...] = (),
    split: str = "",
    seed: int | None = None,
    label: int = -1,
    output: Path | None = None,
    overrides: Overrides = (),
) -> None:
    """Draw the figures `show` of a run or of several (all that apply: ()) and print their paths. What does not apply is
    printed with the reason; of a named figure it is a UserError, raised before anything is drawn."""
    figures.known(show, "--show")
    if not directories:
        raise UserError("there is no run to look at: name one, --workdir=WORKDIR, or several")
    if len(directories) > 1:
        return _several(directories, show, output or Path("runs/compare"))
    if output is None:
        guard.check_links(directories[0], ("explore", "explore+*"))
    folder = output or directories[0] / _folder(directories[0], overrides)
    subject = _subject(directories[0], folder, examples, split, seed, label, overrides)
    lacking = {name: figures.lacking(name, subject) for name in show or FIGURES}
    for name, why in lacking.items():
        if why and show:
            raise UserError(f"--show={name} does not apply to {directories[0]}: {why}")
    for name in (name for name, why in lacking.items() if not why):
        print(*figures.draw(name, subject), sep="\n", flush=True)
    for why in dict.fromkeys(filter(None, lacking.values())):
        print(f"not drawn: {', '.join(name for name in lacking if lacking[name] == why)}: {why}")


def _folder(directory: Path, overrides: Overrides) -> str:
    """explore, or explore+KEY=VALUE for another checkpoint or other sampling options than the run's own."""
    return artifact_name("explore", workdir.read_config(directory), read_overridden(directory, overrides))


def _subject(
    directory: Path, output: Path, examples: tuple[int, ...], split: str, seed: int | None, label: int, overrides: Overrides
) -> Subject:
    if seed is not None and seed not in SEEDS:
        raise UserError(f"--seed={seed} is invalid; it must be {SEEDS}")
    model, params, config, source, *_ = restore(directory, overrides=overrides)
    sampling.conditions(directory, config, model, 1, label, load=lambda: source)  # a label that cannot be drawn
    options = dict[str, Any](split=split, examples=examples, seed=seed, label=label)
    return figures.look_at(directory, output, model, params, config, source, read_metrics(directory), **options)


def _several(directories: Sequence[Path], show: Sequence[str], output: Path) -> None:
    """The figures of training, which need no model: the workdirs' metrics.jsonl."""
    drawers = {name: figure.several for name, figure in FIGURES.items() if figure.several is not None}
    if other := [name for name in show if name not in drawers]:
        count, names = len(directories), ", ".join(drawers)
        raise UserError(f"--show={','.join(other)} looks at one run, and {count} are named; known for several: {names}")
    runs = {}
    for name, directory in compare.names(directories).items():
        workdir.read_config(directory)
        runs[name] = read_metrics(directory)
    for name in show or drawers:
        with phase(f"drawing {name}"):
            drawn = drawers[name](runs, output / f"{name}.png")
        if drawn is None and show:
            raise UserError(f"--show={name} does not apply: none of these runs has recorded {FIGURES[name].title}")
        print(drawn or f"{name}: none of these runs has recorded {FIGURES[name].title}", flush=True)
