"""The cells of a table: trained (or gone on with), checked and evaluated, each a run in a workdir of its own.

So a table that was killed resumes, several processes may run one (a cell is locked by who trains it), and a deleted cell is
the only one to be computed again. With `together`, cells of one loop train in one program (many_seeds.py). A cell whose data are missing,
or that ends at a number that is not finite, reports why, and the others continue. A cell of an EVALUATE row is computed after the run that
it evaluates, in its workdir.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vaeflow.errors import Stopped, UserError
from vaeflow.evaluation.results import flat
from vaeflow.runs import guard, workdir
from vaeflow.runs.files import with_values, write_atomic
from vaeflow.runs.metrics import read_metrics
from vaeflow.runs.overrides import changed, file_name, made_as_asked, read_overridden
from vaeflow.tables.spec import Cell, Plan, evaluated_from, value_at
from vaeflow.training.configure import complete

_COST = "cost.json"
# What fails one cell and not the table: missing data, a number that is not finite, too little memory, a workdir of another run.
_FAILURES = (UserError, OSError, jax.errors.JaxRuntimeError)
_ALL = 1 << 31  # examples, for a check


def run(p: Plan, todo: Sequence[Cell], write: Callable[[], Any]) -> list[Cell]:
    """Train and evaluate what is missing; `write()` after every group. The cells that could not be: `failure` says why."""
    from vaeflow.training import many_seeds

    _check_overrides(p, todo)
    for cell in todo:
        if not done(p, cell):
            guard.check_workdir(cell.directory)  # before any of them is trained
    failed: list[Cell] = []
    while ready := [c for c in todo if c not in failed and not done(p, c) and _may_begin(p, c, todo)]:
        trained = [c for c in ready if not c.of]
        indices = [[i] for i in range(len(trained))]
        if p.table.together:
            trained.sort(key=lambda c: list(p.published).index(c.row))  # the seeds of a row share one vmap
            indices = many_seeds.groups([c.config for c in trained], [c.directory for c in trained])
        progress = False
        for group in (*([trained[i] for i in some] for some in indices), *([c] for c in ready if c.of)):
            with contextlib.ExitStack() as held:
                mine = [cell for cell in group if _held(held, cell.directory)]
                mine = [cell for cell in mine if not done(p, cell)]  # by another process, since this one looked
                if mine:
                    progress = True
                    failed += _evaluate(p, mine[0]) if mine[0].of else _train(p, mine)
                    for cell in mine:  # never the same cell again
                        if cell not in failed and not done(p, cell):
                            failed.append(_say_failed(cell, "its results are not those that the table asks for"))
            write()
        if not progress and any(not done(p, cell) for cell in ready):
            print("what is left is being trained by other processes")
            return failed
    for cell in sorted(todo, key=lambda c: bool(c.of)):  # rows of EVALUATE give the reasons of the rows that they evaluate
        if cell not in failed and not done(p, cell):
            failed.append(_say_failed(cell, _why_not(p, cell), keep=not cell.of))
    write()
    return failed


def _why_not(p: Plan, cell: Cell) -> str:
    """Why a cell was not computed that waits for another row."""
    if cell.of:
        return _because(cell, failure(cell.trained()) or "it is not there")
    first, key = p.after[cell.row]
    return f"it starts from the row {first} (config.{key}), which is not there"


def _check_overrides(p: Plan, todo: Sequence[Cell]) -> None:
    """UserError: a row of EVALUATE has an option that is invalid, before anything is trained."""
    from vaeflow import models
    from vaeflow.evaluation.measures import known, settings_of
    from vaeflow.training import frozen, setup

    for cell in {cell.row: cell for cell in todo if cell.of}.values():
        try:
            config = cell.asked()
            evaluation = setup.after_training(config)
            known(evaluation.measures, "eval.measures")
            known(evaluation.settings, "eval.settings")
            for name in evaluation.settings:
                settings_of(name, config.eval)
            models.check_model(frozen.resolved(complete(p.configs(cell.of, p.budget))).to_dict() | {"sample": config.sample.to_dict()})
        except UserError as error:
            raise UserError(f"EVALUATE[{cell.row!r}]: {error}") from None


def results_of(cell: Cell) -> Path:
    """The results file of a cell: results.json of its workdir; of a row of EVALUATE the one that its values name."""
    return cell.directory / f"{_name(cell, 'results')}.json"


def _name(cell: Cell, stem: str) -> str:
    """A file of numbers in a cell's workdir, without its ending."""
    if not cell.of:
        return stem
    return file_name(stem, workdir.read_config(cell.directory), read_overridden(cell.directory, cell.overrides))


def done(p: Plan, cell: Cell) -> bool:
    """True if the cell is trained, evaluated with its sections eval and sample, and has the results of all CHECKS. (A workdir with another
    run is not done either; training it is refused.)"""
    try:
        trained = done(p, cell.trained()) if cell.of else workdir.is_finished(cell.directory, cell.config)
        if not trained or not results_of(cell).is_file():
            return False
    except UserError:
        return False
    results, whole = (flat(workdir.read_json(path)) for path in (results_of(cell), cell.directory / "results.json"))
    asked, own = cell.asked(), workdir.read_config(cell.directory)
    if not made_as_asked(results, asked, own) or results["params"] != workdir.which_params(cell.directory, asked):
        return False
    if results.get("steps") != whole.get("steps"):  # an evaluation by hand, before the end of training
        return False
    return all(_as_asked(found, settings, results, asked, own) for found, settings in _checks(p, cell))


def _checks(p: Plan, cell: Cell) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """(what the cell's diagnostics have of it, the settings that the table gives it) of every check of the table."""
    path = cell.directory / f"{_name(cell, 'diagnostics')}.json"
    found = workdir.read_json(path) if p.checks and path.is_file() else {}
    return [(found.get(check, {}), own) for check, own in p.checks.items()]


def _as_asked(found: Mapping[str, Any], own: Mapping[str, Any], results: Mapping[str, Any], asked: ConfigDict, run: ConfigDict) -> bool:
    """True if the stored check used the table's settings `own`, the split and the parameters of the results, and the sampling options of
    `asked`."""
    whole = results.get("split_examples", results["examples"])  # checks are of the whole split, whatever eval.examples
    same = all(
        found.get(key) == value for key, value in {"split": results["split"], "examples": whole, "params": results["params"]}.items()
    )
    same = same and not changed({"eval": asked["eval"], "sample": found.get("sample", run["sample"])}, asked)
    return same and all(found["settings"].get(key) == value for key, value in own.items())


def failure(cell: Cell) -> str:
    """Why a cell that is not done could not be computed when it was last tried; "": it was not."""
    if cell.of and (why := failure(cell.trained())):
        return _because(cell, why)
    path = _failed(cell)
    return path.read_text().strip() if path.is_file() else ""


def _because(cell: Cell, why: str) -> str:
    return f"it is evaluated from the run of {cell.of}: {why}"


def _failed(cell: Cell) -> Path:
    """Where `_say_failed` keeps the reason."""
    return cell.directory / f"{with_values('failed', [f'{key}={text}' for key, text in cell.overrides])}.txt"


def facts(cell: Cell) -> dict[str, Any]:
    """{name: value} of a cell that is done: its results'; CHECK.NUMBER of its checks; `cost.` and the numbers of dry_run.cost, where the
    table asks for one; epoch_seconds, of training at the median rate of its dispatches (compilation and evaluation left out); launches,
    the environments of those that trained it."""
    out = flat(workdir.read_json(results_of(cell))) | {"launches": workdir.trained_by(cell.directory)}
    rates = [row["steps_per_second"] for row in read_metrics(cell.directory) if row.get("steps_per_second")]
    if rates:
        examples = workdir.read_json(cell.directory / "data.json")["examples"]["train"]
        out["epoch_seconds"] = examples / cell.config.data.batch / statistics.median(rates)
    for path, of in ((_COST, "cost"), (f"{_name(cell, 'diagnostics')}.json", "")):
        if (cell.directory / path).is_file():
            found = workdir.read_json(cell.directory / path)
            for name, numbers in ({of: found} if of else {k: _values(v["numbers"]) for k, v in found.items()}).items():
                out |= {f"{name}.{key}": value for key, value in numbers.items()}
    return out


def _values(findings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: finding["value"] for name, finding in findings.items()}


def _may_begin(p: Plan, cell: Cell, todo: Sequence[Cell]) -> bool:
    """True if the run that the cell starts from, or evaluates, is there."""
    if cell.of:
        return done(p, cell.trained())
    if cell.row not in p.after:
        return True
    first, key = p.after[cell.row]
    known = [c for c in todo if (c.row, c.seed) == (first, cell.seed)]
    return done(p, known[0]) if known else (Path(value_at(cell.config, key)) / "results.json").is_file()


def _held(held: contextlib.ExitStack, directory: Path) -> bool:
    """Lock a workdir until `held` ends; False: another process trains in it."""
    try:
        held.enter_context(workdir.lock(directory))
    except UserError as error:
        print(f"left out: {error}")
        return False
    return True


def _train(p: Plan, group: Sequence[Cell]) -> list[Cell]:
    """Train the cells of a group that is held, then evaluate each. Returns the cells that failed."""
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
        except _FAILURES as error:
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
        workdir.prepare(cell.directory, x.config, f"configs/{p.name}.py:{cell.row},{p.budget}")
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


def _say_failed(cell: Cell, reason: str, keep: bool = True) -> Cell:
    """Print why and keep it for the table, of this process or a later one."""
    print(f"{cell.row}, seed {cell.seed}: {reason}", flush=True)
    if not keep:
        return cell
    cell.directory.mkdir(parents=True, exist_ok=True)
    write_atomic(_failed(cell), reason + "\n")
    return cell


def _conclude(p: Plan, cell: Cell, x: Any) -> None:
    """The cost and the numbers of a trained cell."""
    from vaeflow.training import dry_run, setup

    if any(name.startswith("cost.") for name, _ in p.columns.values()):
        shapes, held, _ = setup.init_shapes(x, cell.directory)
        workdir.write_json(cell.directory / _COST, dry_run.cost(x, shapes, held))
    _measure(p, cell, x.source)


def _evaluate(p: Plan, cell: Cell) -> list[Cell]:
    """Evaluate the run of another row. The cell, if that failed."""
    print(f"\n{cell.row} (seed {cell.seed}): {evaluated_from(p, cell.row)}")
    try:
        _measure(p, cell)
    except Stopped:
        raise
    except _FAILURES as error:
        return [_say_failed(cell, str(error))]
    return []


def _measure(p: Plan, cell: Cell, source: Any = None) -> None:
    """The checks and the results of a cell. The results file comes last: with it, the cell is done."""
    from vaeflow.evaluation.diagnose import diagnose
    from vaeflow.evaluation.store import measure

    if p.checks:
        settings = [(f"{check}.{key}", str(value)) for check, own in p.checks.items() for key, value in own.items()]
        settings += [(f"config.{key}", text) for key, text in cell.overrides]
        diagnose(cell.directory, tuple(p.checks), examples=_ALL, overrides=settings)
    measure(cell.directory, source, overrides=cell.overrides)
    _failed(cell).unlink(missing_ok=True)
