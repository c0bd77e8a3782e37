"""A paper's table: its cells trained (or gone on with), evaluated, and put beside the published numbers.

A table is a config module (configs/table_*.py) that exports, beside ROWS and get_config("ROW,BUDGET"),

    TABLE       title, source (the paper and its table), number (a key of results.json), unit, better (lower | higher), seeds, together,
                and where wanted digits (decimals of the number) and note (how ours differs from the paper's at every budget)
    BUDGETS     {name: what it is}, "paper" among them: the paper's protocol, to which the others are compared
    PUBLISHED   {row: the published number, or None}, in the table's order
  and optionally
    AFTER       {row: (the row whose run it starts from or learns from, the config key that names its workdir)}, such as
                "init_from", or "model.teacher" of an argument that is a frozen model
    EVALUATE    {row: (the row whose run it evaluates, {"sample.temperature": 0.7, "eval.k": 5000, ...})}: the row has no training of its
                own and needs no entry in ROWS; its run is evaluated with these values of the sections sample and eval
    SHARED      {row: the table, whose cell of the same name it is}
    PAIRS       ((row, another), ...), compared by the differences on the same examples
    COLUMNS     {title: (name, decimals)}, more numbers of a cell, by the names of `facts`
    CHECKS      {check (experiments.diagnose): its settings}, that every cell gets
    CURVES      {row: (panel, line)}: the figure has a panel for each name and in it a line through the rows of each line, the number
                against the column TABLE["against"], both logarithmic; dashed: the column TABLE["floor"]

A cell is a row at a budget and a seed, a run with a workdir of its own under RUNS/TABLE_BUDGET/: runner.py computes them. Cells of an
EVALUATE row share the workdirs of the row that they evaluate.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from vaeflow.build import Count, call
from vaeflow.config import DATA_PLACES, Overrides, is_frozen, module
from vaeflow.errors import UserError, unknown
from vaeflow.override import overridden, override
from vaeflow.runs.config_values import is_free
from vaeflow.runs.files import with_values
from vaeflow.runs.overrides import SECTIONS, check_key
from vaeflow.runs.workdir import read_config
from vaeflow.training.configure import complete


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
    against: str = ""
    floor: str = ""


class Plan(NamedTuple):
    """A table at a budget: what the module says, checked."""

    name: str
    table: Table
    budget: str
    what: str
    published: Mapping[str, float | None]
    after: Mapping[str, tuple[str, str]]
    evaluate: Mapping[str, tuple[str, Overrides]]
    shared: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    columns: Mapping[str, tuple[str, int]]
    checks: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, tuple[str, str]]
    lines: Mapping[str, str]
    overrides: Overrides  # of the cells' configs, on the command line
    configs: Any  # (row, budget) -> ConfigDict, without them and without defaults


class Cell(NamedTuple):
    """A row at a seed.

    config     of the run that is trained
    of         the row that trains it, for a row of EVALUATE; else ""
    overrides  values with which the run is evaluated, of a row of EVALUATE
    """

    row: str
    seed: int
    config: Any
    directory: Path
    of: str = ""
    overrides: Overrides = ()

    def trained(self) -> Cell:
        """The cell that trains the run: of a row of EVALUATE the one of `of`, else the cell itself."""
        return self._replace(row=self.of, of="", overrides=()) if self.of else self

    def asked(self) -> ConfigDict:
        """The config with whose sections eval and sample the cell is evaluated."""
        config = self.config.copy_and_resolve_references()
        for key, text in self.overrides:
            override(config, key, text)
        return config


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
        if key in ("seed", "init_from", "fixed_from", *(own for _, own in getattr(loaded, "AFTER", {}).values())):
            raise UserError(f"config.{key} of a cell is the table's to set: --seeds says how many there are")
    table = call(Table, loaded.TABLE, f"{path}: TABLE")

    def config(row: str, budget: str) -> Any:
        return loaded.get_config(f"{row},{budget}").lock()

    nothing = {"AFTER": {}, "SHARED": {}, "PAIRS": (), "COLUMNS": {}, "CHECKS": {}, "CURVES": {}}
    more: dict[str, Any] = {name.lower(): getattr(loaded, name, empty) for name, empty in nothing.items()}
    what, lines = loaded.BUDGETS[budget], loaded.ROWS
    p = Plan(Path(path).stem, table, budget, what, loaded.PUBLISHED, evaluate={}, lines=lines, overrides=overrides, configs=config, **more)
    for row in p.curves:
        if row not in p.published:
            raise unknown(f"--config={path}: CURVES: the row", row, p.published)
    for name in ("against", "floor"):
        title = getattr(table, name)
        if (title and title not in p.columns) or (name == "against" and bool(title) != bool(p.curves)):
            raise UserError(f"--config={path}: TABLE[{name!r}]={title!r} is invalid; it must be a title of COLUMNS where CURVES is given")
    given = getattr(loaded, "EVALUATE", {})
    return p._replace(evaluate={row: _evaluated(p, row, given, f"--config={path}: EVALUATE") for row in given})


def _evaluated(p: Plan, row: str, given: Mapping[str, Any], name: str) -> tuple[str, Overrides]:
    """(row whose run it is, overrides) of a row of EVALUATE, `given`. UserError: one that is not as the module's docstring says."""
    entry, where = given[row], f"{name}[{row!r}]"
    if not isinstance(entry, tuple | list) or len(entry) != 2 or not isinstance(entry[1], Mapping) or not entry[1]:
        raise UserError(f"{where}={entry!r} is invalid; it must be (ROW, {{KEY: VALUE, ...}})")
    of, values = entry
    if row not in p.published:
        raise unknown(f"{name}: the row", row, p.published)
    if of not in p.published:
        raise unknown(f"{where}: the row", of, (known for known in p.published if known not in given))
    if of in given:
        raise UserError(f"{where}: the row {of!r} is one of EVALUATE, too, and has no run; name a row that is trained")
    if uses := [key for key, named in (("AFTER", p.after), ("SHARED", p.shared)) if row in named]:
        raise UserError(f"{where}: the row is in {uses[0]}, too, and is not trained; name it in one of them")
    if starts := [other for other, (first, _) in p.after.items() if first == row]:
        raise UserError(f"{where}: the row has no run of its own that {starts[0]!r} could start from (AFTER); name {of!r} there")
    overrides = [(str(key), str(value)) for key, value in values.items()]
    for key, _ in overrides:
        check_key(key, f"{where}: config.{key}", SECTIONS)
        if key.startswith(("eval.select", "eval.validate")):
            raise UserError(f"{where}: config.{key} chooses a checkpoint during training, and changes no number of a trained run")
    try:
        Cell(row, 0, complete(p.configs(of, p.budget)), Path(), of, overrides).asked()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return of, overrides


def evaluated_from(p: Plan, row: str) -> str:
    """ "evaluated from the run of ROW with KEY=VALUE" for a row of EVALUATE; else ""."""
    of, overrides = p.evaluate.get(row, ("", ()))
    return f"evaluated from the run of {of} with {', '.join(f'{key}={text}' for key, text in overrides)}" if of else ""


def trained_row(p: Plan, row: str) -> str:
    """The row that trains the run of a row: for one of EVALUATE another one."""
    return p.evaluate[row][0] if row in p.evaluate else row


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
    """The cells of some rows, and of those whose runs they evaluate, at some seeds; of all rows for (), of as many seeds as the table says
    for 0."""
    if seeds < 0:
        raise UserError(f"--seeds={seeds} is invalid; it must be >= 0")
    for row in rows:
        if row not in p.published:
            raise unknown("--rows", row, p.published)
    wanted = {*rows, *(trained_row(p, row) for row in rows)} or p.published.keys()
    return [cell for cell in every if cell.row in wanted and cell.seed < (seeds or p.table.seeds)]


def cells(p: Plan, runs: Path, seeds: int) -> list[Cell]:
    """All cells, seed by seed: of the table's seeds, of as many as asked for, and of those that other processes trained in `runs`."""
    rows = dict.fromkeys(trained_row(p, row) for row in p.published)
    found = [path.name.rpartition("_seed")[2] for row in rows for path in directory_of(p, runs, row, 0).parent.glob(f"{row}_seed*")]
    out, dropped = [], dict[str, None]()
    for seed in range(max(seeds, p.table.seeds, *(1 + int(n) for n in found if n.isdecimal()))):
        for row in p.published:
            trained = trained_row(p, row)
            own = {"seed": str(seed)}
            if trained in p.after:
                own[p.after[trained][1]] = _began_at(p, runs, trained, seed)
            config, lines = overridden(p.configs(trained, p.budget), [*p.overrides, *own.items()])
            dropped.update(dict.fromkeys(lines))
            of, values = p.evaluate.get(row, ("", ()))
            out.append(Cell(row, seed, config, directory_of(p, runs, trained, seed), of, values))
    for line in dropped:
        print(line, file=sys.stderr)
    return out


def directory_of(p: Plan, runs: Path, row: str, seed: int) -> Path:
    """The workdir of a row that is trained. Overrides of what comes after training share one."""
    select = dict(p.overrides).get("eval.select") or p.configs(row, p.budget).get("eval", {}).get("select", "loss")
    free = [key for key, _ in p.overrides if key.partition(".")[0] in SECTIONS and is_free(key, select)]
    trained = [text for text in told(p) if text.partition("=")[0] not in free]
    return runs / with_values(f"{p.shared.get(row, p.name)}_{p.budget}", trained) / f"{row}_seed{seed}"


def value_at(config: Any, key: str) -> Any:
    """The value of a config's key; of a frozen model its workdir; "" where there is none."""
    for name in key.split("."):
        config = config.get(name, "") if isinstance(config, Mapping | ConfigDict) else ""
    return config.get("from", "") if is_frozen(config) else config


def _began_at(p: Plan, runs: Path, row: str, seed: int) -> str:
    """The run that a cell starts from; as the cell itself says where it is there, for a folder of runs may have moved."""
    first, key = p.after[row]
    directory, cell = (directory_of(p, runs, name, seed) for name in (first, row))
    said = str(value_at(read_config(cell), key)) if (cell / "config.json").is_file() else ""
    return said if Path(said).parts[-2:] == directory.parts[-2:] else str(directory)
