"""A paper's table: its cells trained (or gone on with), evaluated, and put beside the published numbers.

A table is a config module (configs/table_*.py) that exports, beside ROWS and get_config("ROW,BUDGET"),

    TABLE       title, source (the paper and its table), number (a key of results.json), unit, better (lower | higher), seeds, together,
                and where wanted digits (decimals of the number) and note (how ours differs from the paper's at every budget)
    BUDGETS     {name: what it is}, "paper" among them: the paper's protocol, to which the others are compared
    PUBLISHED   {row: the published number, or None}, in the table's order
  and optionally
    AFTER       {row: (the row whose run it starts from, "init_from" or "fixed_from")}
    SHARED      {row: the table, whose cell of the same name it is}
    PAIRS       ((row, another), ...), compared by the differences on the same examples
    COLUMNS     {title: (name, decimals)}, more numbers of a cell, by the names of `facts`
    CHECKS      {check (experiments.diagnose): its settings}, that every cell gets

A cell is a row at a budget and a seed, a run with a workdir of its own under RUNS/TABLE_BUDGET/: runner.py computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vaeflow.build import Count, call
from vaeflow.config import DATA_PLACES, module, override
from vaeflow.errors import UserError, unknown
from vaeflow.runs.files import with_values
from vaeflow.runs.workdir import read_json

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
    digits: int = 2
    note: str = ""
    groups: tuple[str, ...] = ()


class Plan(NamedTuple):
    """A table at a budget: what the module says, checked."""

    name: str
    table: Table
    budget: str
    what: str
    published: Mapping[str, float | None]
    after: Mapping[str, tuple[str, str]]
    shared: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    columns: Mapping[str, tuple[str, int]]
    checks: Mapping[str, Mapping[str, Any]]
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
        if key in ("seed", "init_from", "fixed_from"):
            raise UserError(f"config.{key} of a cell is the table's to set: --seeds says how many there are")
    table = call(Table, loaded.TABLE, f"{path}: TABLE")

    def config(row: str, budget: str) -> Any:
        return loaded.get_config(f"{row},{budget}").lock()

    nothing = {"AFTER": {}, "SHARED": {}, "PAIRS": (), "COLUMNS": {}, "CHECKS": {}}
    more: dict[str, Any] = {name.lower(): getattr(loaded, name, empty) for name, empty in nothing.items()}
    what, lines = loaded.BUDGETS[budget], loaded.ROWS
    return Plan(Path(path).stem, table, budget, what, loaded.PUBLISHED, lines=lines, overrides=overrides, configs=config, **more)


def told(p: Plan) -> list[str]:
    """The overrides that change what is learned or how it is measured, as KEY=VALUE."""
    return [f"{key}={text}" for key, text in p.overrides if not _is(key, _ELSEWHERE)]


# Overrides that change where and how fast a run is, and not what it learns.
_ELSEWHERE = (
    *(*DATA_PLACES, "data.place", "data.workers", "data.prefetch"),
    *("devices", "train.dispatch_seconds", "train.max_dispatch", "profile"),
)


def _is(key: str, some: Sequence[str]) -> bool:
    return any(key == one or key.startswith(one + ".") for one in some)


def chosen(p: Plan, every: Sequence[Cell], rows: Sequence[str], seeds: int) -> list[Cell]:
    """The cells of some rows at some seeds; of all rows for (), of as many seeds as the table says for 0."""
    if seeds < 0:
        raise UserError(f"--seeds={seeds} is invalid; it must be >= 0")
    for row in rows:
        if row not in p.published:
            raise unknown("--rows", row, p.published)
    return [cell for cell in every if (not rows or cell.row in rows) and cell.seed < (seeds or p.table.seeds)]


def cells(p: Plan, runs: Path, seeds: int) -> list[Cell]:
    """All cells, seed by seed: of the table's seeds, of as many as asked for, and of those that other processes trained in `runs`."""
    found = [path.name.rpartition("_seed")[2] for row in p.published for path in directory_of(p, runs, row, 0).parent.glob(f"{row}_seed*")]
    out = []
    for seed in range(max(seeds, p.table.seeds, *(1 + int(n) for n in found if n.isdecimal()))):
        for row in p.published:
            config = p.configs(row, p.budget)
            own = {"seed": str(seed)}
            if row in p.after:
                own[p.after[row][1]] = _began_at(p, runs, row, seed)
            for key, text in (*p.overrides, *own.items()):
                override(config, key, text)
            out.append(Cell(row, seed, config, directory_of(p, runs, row, seed)))
    return out


def directory_of(p: Plan, runs: Path, row: str, seed: int) -> Path:
    """A cell's workdir."""
    trained = [text for text in told(p) if not text.startswith("eval.")]
    return runs / with_values(f"{p.shared.get(row, p.name)}_{p.budget}", trained) / f"{row}_seed{seed}"


def _began_at(p: Plan, runs: Path, row: str, seed: int) -> str:
    """The run that a cell starts from; as the cell itself says where it is there, for a folder of runs may have moved."""
    first, key = p.after[row]
    directory, config = directory_of(p, runs, first, seed), directory_of(p, runs, row, seed) / "config.json"
    said = str(read_json(config).get(key, "")) if config.is_file() else ""
    return said if Path(said).parts[-2:] == directory.parts[-2:] else str(directory)
