"""The cells of a table: trained (or gone on with), checked and evaluated, each a run in a workdir of its own.

So a table that was killed resumes, several processes may run one (a cell is locked by who trains it), and a deleted cell is
the only one to be computed again. With `together`, cells of one loop train in one program (many_seeds.py). A cell whose data are missing,
or that ends at a number that is not finite, reports why, and the others continue.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vaeflow.config import plain
from vaeflow.errors import Stopped, UserError
from vaeflow.evaluation.results import flat
from vaeflow.runs import guard, workdir
from vaeflow.runs.files import write_atomic
from vaeflow.runs.metrics import read_metrics
from vaeflow.tables.spec import Cell, Plan

_FAILED, _COST = "failed.txt", "cost.json"
_ALL = 1 << 31  # examples, for a check


def run(p: Plan, todo: Sequence[Cell], write: Callable[[], Any]) -> list[Cell]:
    """Train and evaluate what is missing; `write()` after every group. The cells that could not be: `failure` says why."""
    from vaeflow.training import many_seeds

    for cell in todo:
        if not done(p, cell):
            guard.check_workdir(cell.directory)  # before any of them is trained
    failed: list[Cell] = []
    while ready := [c for c in todo if c not in failed and not done(p, c) and _may_begin(p, c, todo)]:
        indices = [[i] for i in range(len(ready))]
        if p.table.together:
            indices = many_seeds.groups([c.config for c in ready], [c.directory for c in ready])
        progress = False
        for group in indices:
            with contextlib.ExitStack() as held:
                mine = [ready[i] for i in group if _held(held, ready[i].directory)]
                mine = [cell for cell in mine if not done(p, cell)]  # by another process, since this one looked
                if mine:
                    progress = True
                    failed += _train(p, mine)
                    for cell in mine:  # never the same cell again
                        if cell not in failed and not done(p, cell):
                            failed.append(_say_failed(cell, "its results are not those that the table asks for"))
            write()
        if not progress and any(not done(p, cell) for cell in ready):
            print("what is left is being trained by other processes")
            return failed
    for cell in todo:
        if cell not in failed and not done(p, cell):
            first, key = p.after[cell.row]
            failed.append(_say_failed(cell, f"it starts from the row {first} (config.{key}), which is not there"))
    write()
    return failed


def done(p: Plan, cell: Cell) -> bool:
    """Whether the cell's run has ended and its results and every check of the table are there, measured as the cell asks for. (A workdir
    with another run is not done either; training it is refused.)"""
    try:
        if not workdir.is_finished(cell.directory, cell.config):
            return False
    except UserError:
        return False
    results = flat(workdir.read_json(cell.directory / "results.json"))
    if not _measured_as(results, cell.config.eval) or results["params"] != workdir.which_params(cell.directory, cell.config):
        return False
    return not p.checks or all(_as_asked(found, own, results) for found, own in _checks(p, cell))


def _measured_as(results: Mapping[str, Any], asked: Any) -> bool:
    """True if the results were made with the section eval `asked`, but for values that change no number."""
    if "eval" not in results:  # before that was stored
        return results.get("density") != "bound" and results.get("k", asked.k) == asked.k
    stored = workdir.with_defaults("eval", results["eval"])
    return all(stored.get(key) == value for key, value in plain(asked).items() if key not in workdir.EVAL_SPEED)


def _checks(p: Plan, cell: Cell) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(what diagnostics.json has of it, the settings that the table gives it) of every check of the table."""
    path = cell.directory / "diagnostics.json"
    found = workdir.read_json(path) if path.is_file() else {}
    return [(found.get(check, {}), own) for check, own in p.checks.items()]


def _as_asked(found: Mapping[str, Any], own: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether a check was made with these settings, of the examples and the parameters of the results."""
    whole = results.get("split_examples", results["examples"])  # checks are of the whole split, whatever eval.examples
    same = all(
        found.get(key) == value for key, value in {"split": results["split"], "examples": whole, "params": results["params"]}.items()
    )
    return same and all(found["settings"].get(key) == value for key, value in own.items())


def failure(cell: Cell) -> str:
    """Why a cell that is not done could not be computed when it was last tried; "": it was not."""
    path = cell.directory / _FAILED
    return path.read_text().strip() if path.is_file() else ""


def facts(cell: Cell) -> dict[str, Any]:
    """{name: value} of a cell that is done: results.json's; CHECK.NUMBER of its checks; `cost.` and the numbers of dry_run.cost, where the
    table asks for one; epoch_seconds, of training at the median rate of its dispatches (compilation and evaluation left out); launches,
    the environments of those that trained it."""
    out = flat(workdir.read_json(cell.directory / "results.json")) | {"launches": workdir.trained_by(cell.directory)}
    rates = [row["steps_per_second"] for row in read_metrics(cell.directory) if row.get("steps_per_second")]
    if rates:
        examples = workdir.read_json(cell.directory / "data.json")["examples"]["train"]
        out["epoch_seconds"] = examples / cell.config.data.batch / statistics.median(rates)
    for path, of in ((_COST, "cost"), ("diagnostics.json", "")):
        if (cell.directory / path).is_file():
            found = workdir.read_json(cell.directory / path)
            for name, numbers in ({of: found} if of else {k: _values(v["numbers"]) for k, v in found.items()}).items():
                out |= {f"{name}.{key}": value for key, value in numbers.items()}
    return out


def _values(findings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: finding["value"] for name, finding in findings.items()}


def _may_begin(p: Plan, cell: Cell, todo: Sequence[Cell]) -> bool:
    """Whether what the cell starts from is there."""
    if cell.row not in p.after:
        return True
    first, key = p.after[cell.row]
    known = [c for c in todo if (c.row, c.seed) == (first, cell.seed)]
    return done(p, known[0]) if known else (Path(cell.config[key]) / "results.json").is_file()


def _held(held: contextlib.ExitStack, directory: Path) -> bool:
    """Lock a workdir until `held` ends; False: another process trains in it."""
    try:
        held.enter_context(workdir.lock(directory))
    except UserError as error:
        print(f"left out: {error}")
        return False
    return True


def _train(p: Plan, group: Sequence[Cell]) -> list[Cell]:
    """Train the cells of a group that is held, then evaluate each. The cells that failed: their data may be missing, a number not finite,
    the memory too small, the workdir another run's; that of others may not."""
    from vaeflow import data
    from vaeflow.evaluation import evaluate, store
    from vaeflow.training import loop, many_seeds, setup

    made: dict[int, many_seeds.Member] = {}
    failed: dict[int, str] = {}

    def attempt(i: int, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except Stopped:
            raise
        except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
            failed[i] = str(error)

    def prepare(i: int, cell: Cell) -> None:
        config = ConfigDict(cell.config)
        if len(group) > 1 and config.devices.mapping == "auto":
            config.devices.mapping = "jit"  # cells train together on one device
        same = next((m.x.source for m in made.values() if m.x.config.data == config.data and not m.x.source.seeded), None)
        with workdir.import_hint(cell.directory):
            x = setup.make_experiment(config, cell.directory, same)
        evaluate.check_eval(x)
        store.check_data(cell.directory, x.source)
        workdir.prepare(cell.directory, config, f"configs/{p.name}.py:{cell.row},{p.budget}")
        workdir.write_json(cell.directory / "data.json", data.summary(x.source))
        made[i] = many_seeds.Member(x, cell.directory)

    def fitted(cells: Sequence[many_seeds.Member]) -> list[many_seeds.Ended]:
        if len(cells) > 1:
            return many_seeds.fit_together(cells, evaluate.validator)
        return [many_seeds.Ended(loop.fit(*cells[0], evaluate.validator).reason, failed=False)]

    for i, cell in enumerate(group):
        attempt(i, lambda i=i, cell=cell: prepare(i, cell))
    if made:
        print(f"\n{', '.join(f'{group[i].row} (seed {group[i].seed})' for i in made)}")
        ended = attempt(next(iter(made)), lambda: fitted(list(made.values())))
        for i, end in zip(made, ended or [many_seeds.Ended(failed[next(iter(made))], failed=True)] * len(made), strict=True):
            if end.failed:
                failed[i] = end.reason
            else:
                attempt(i, lambda i=i: _conclude(p, group[i], made[i].x))
    return [_say_failed(group[i], reason) for i, reason in failed.items()]


def _say_failed(cell: Cell, reason: str) -> Cell:
    """Print why and keep it for the table, of this process or a later one."""
    print(f"{cell.row}, seed {cell.seed}: {reason}", flush=True)
    cell.directory.mkdir(parents=True, exist_ok=True)
    write_atomic(cell.directory / _FAILED, reason + "\n")
    return cell


def _conclude(p: Plan, cell: Cell, x: Any) -> None:
    """The numbers of a trained cell. results.json comes last: with it, the cell is done."""
    from vaeflow.evaluation.diagnose import diagnose
    from vaeflow.evaluation.store import measure
    from vaeflow.training import dry_run, setup

    if any(name.startswith("cost.") for name, _ in p.columns.values()):
        params, frozen, _ = setup.init_params(x)
        workdir.write_json(cell.directory / _COST, dry_run.cost(x, params, frozen))
    if p.checks:
        settings = [(f"{check}.{key}", str(value)) for check, own in p.checks.items() for key, value in own.items()]
        diagnose(cell.directory, tuple(p.checks), examples=_ALL, overrides=settings)
    measure(cell.directory, x.source)
    (cell.directory / _FAILED).unlink(missing_ok=True)
