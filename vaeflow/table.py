"""A paper's table: its cells trained (or gone on with), evaluated, and put beside the published numbers.

A table is a config module (configs/table_*.py) that exports, beside ROWS and get_config("ROW,BUDGET"),

    TABLE       title, source (the paper and its table), number (a key of results.json), unit, better (lower | higher), seeds and together
    BUDGETS     {name: what it is}, "paper" among them: the paper's protocol, to which the others are compared
    PUBLISHED   {row: the published number, or None}, in the table's order
    AFTER       {row: the row whose run it starts from}, optional
    PAIRS       ((row, another), ...), optional: compared by the differences on the same examples

A cell is a row at a budget and a seed, a run with a workdir of its own under RUNS/TABLE_BUDGET/. So a table that was killed goes on where
it was, several processes may run one (a cell is locked by who trains it), and a deleted cell is the only one to be computed again. With
`together`, cells of one loop train in one program (together.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vaeflow import workdir
from vaeflow.build import Count, call
from vaeflow.config import module, override
from vaeflow.errors import RunFailed, UserError, unknown

Overrides = Sequence[tuple[str, str]]


class Table(NamedTuple):
    """TABLE of a config module."""

    title: str
    source: str
    number: str
    unit: str
    better: Literal["lower", "higher"]
    seeds: Count
    together: bool


class Plan(NamedTuple):
    """A table at a budget: what the module says, checked."""

    name: str
    table: Table
    budget: str
    what: str
    published: Mapping[str, float | None]
    after: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    lines: Mapping[str, str]
    overrides: Overrides  # of the cells' configs, on the command line
    configs: Any  # (row, budget) -> ConfigDict, without them


class Cell(NamedTuple):
    """A row at a seed."""

    row: str
    seed: int
    config: Any
    directory: Path


def plan(path_and_budget: str, overrides: Overrides = ()) -> Plan:
    """The Plan of `configs/table_x.py` or `configs/table_x.py:BUDGET` (cpu unless said)."""
    path, _, budget = path_and_budget.partition(":")
    loaded = module(path)
    for name in ("TABLE", "BUDGETS", "PUBLISHED"):
        if not hasattr(loaded, name):
            raise UserError(f"--config={path} has no {name}: it is no table; see configs/table_vae_guide.py for what one exports")
    budget = budget or "cpu"
    if budget not in loaded.BUDGETS:
        raise unknown(f"--config={path}: the budget", budget, loaded.BUDGETS)
    for key, _ in overrides:
        if key in ("seed", "init_from"):
            raise UserError(f"config.{key} of a cell is the table's to set: --seeds says how many there are")
    table = call(Table, loaded.TABLE, f"{path}: TABLE")

    def config(row: str, budget: str) -> Any:
        return loaded.get_config(f"{row},{budget}").lock()

    after, pairs = getattr(loaded, "AFTER", {}), getattr(loaded, "PAIRS", ())
    return Plan(Path(path).stem, table, budget, loaded.BUDGETS[budget], loaded.PUBLISHED, after, pairs, loaded.ROWS, overrides, config)


def chosen(p: Plan, every: Sequence[Cell], rows: Sequence[str]) -> list[Cell]:
    """The cells of some rows; of all for ()."""
    for row in rows:
        if row not in p.published:
            raise unknown("--rows", row, p.published)
    return [cell for cell in every if not rows or cell.row in rows]


def cells(p: Plan, runs: Path, seeds: int) -> list[Cell]:
    """All cells, seed by seed; 0 seeds: as many as the table says."""
    if seeds < 0:
        raise UserError(f"--seeds={seeds} is impossible; it must be >= 0")
    out = []
    for seed in range(seeds or p.table.seeds):
        for row in p.published:
            config = p.configs(row, p.budget)
            own = (("seed", str(seed)), *((("init_from", str(directory_of(p, runs, p.after[row], seed))),) if row in p.after else ()))
            for key, text in (*p.overrides, *own):
                override(config, key, text)
            out.append(Cell(row, seed, config, directory_of(p, runs, row, seed)))
    return out


def directory_of(p: Plan, runs: Path, row: str, seed: int) -> Path:
    """A cell's workdir."""
    return runs / f"{p.name}_{p.budget}" / f"{row}_seed{seed}"


def run(p: Plan, todo: Sequence[Cell], write: Callable[[Mapping[Path, str]], Any]) -> dict[Path, str]:
    """Train and evaluate what is missing; `write()` after every group. {workdir: why it failed} of the cells that did."""
    from vaeflow import together

    failed: dict[Path, str] = {}
    while ready := [c for c in todo if c.directory not in failed and not done(c) and _may_begin(p, c, todo)]:
        indices = [[i] for i in range(len(ready))]
        if p.table.together:
            indices = together.groups([c.config for c in ready], [c.directory for c in ready])
        progress = False
        for group in indices:
            with contextlib.ExitStack() as held:
                mine = [ready[i] for i in group if _held(held, ready[i].directory)]
                if mine:
                    progress = True
                    failed |= _train(p, mine)
            write(failed)
        if not progress:
            print("what is left is being trained by other processes")
            break
    return failed


def done(cell: Cell) -> bool:
    """Whether the cell's run has ended and its results are there. UserError: its workdir holds another run."""
    return workdir.is_finished(cell.directory, cell.config)


def _may_begin(p: Plan, cell: Cell, todo: Sequence[Cell]) -> bool:
    """Whether what the cell starts from is there."""
    if cell.row not in p.after:
        return True
    first = Path(cell.config.init_from)
    known = [c for c in todo if c.directory == first]
    return done(known[0]) if known else (first / "results.json").is_file()


def _held(held: contextlib.ExitStack, directory: Path) -> bool:
    """Lock a workdir until `held` ends; False: another process trains in it."""
    try:
        held.enter_context(workdir.lock(directory))
    except UserError as error:
        print(f"left out: {error}")
        return False
    return True


def _train(p: Plan, group: Sequence[Cell]) -> dict[Path, str]:
    """Train the cells of a group that is held, then evaluate each. {workdir: why it failed}."""
    from vaeflow import experiment, fit, launch, together

    made: list[together.Cell] = []
    for cell in group:
        same = next((m.x.source for m in made if m.x.config.data == cell.config.data and cell.config.data.kind != "density"), None)
        made.append(together.Cell(experiment.make(cell.config, cell.directory, same), cell.directory))
        workdir.prepare(cell.directory, cell.config, f"configs/{p.name}.py:{cell.row},{p.budget}")
        workdir.write_json(cell.directory / "data.json", launch.summary(made[-1].x.source))
    print(f"\n{', '.join(f'{c.row} (seed {c.seed})' for c in group)}")
    if len(made) > 1:
        ended = together.fit_together(made)
    else:
        try:
            ended = [together.Ended(fit.fit(*made[0]).reason, failed=False)]
        except RunFailed as error:
            ended = [together.Ended(str(error), failed=True)]
    for cell, (x, _), end in zip(group, made, ended, strict=True):
        if not end.failed:
            launch.measure(cell.directory, x.source)
        else:
            print(f"{cell.row}, seed {cell.seed}: {end.reason}")
    return {cell.directory: end.reason for cell, end in zip(group, ended, strict=True) if end.failed}
