"""A table's files, Markdown, JSON and a figure, from the results of its cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaeflow.errors import UserError
from vaeflow.evaluation.reliability import EXPLAINED, evidence, only_bound
from vaeflow.runs import workdir
from vaeflow.runs.files import with_values, write_atomic
from vaeflow.runs.metrics import aligned_table
from vaeflow.tables.pairs import explained, pair_text, paired
from vaeflow.tables.runner import done, facts, failure, results_of
from vaeflow.tables.spec import Cell, Plan, evaluated_from, told, trained_row
from vaeflow.training.configure import complete


def write(p: Plan, todo: Sequence[Cell], output: Path, keep: bool = False) -> tuple[str, list[Path]]:
    """(what is printed, the files) of the cells that have ended.

    Args:
        keep: rows and pairs without a finished cell keep the numbers of the file in `output`, whose cells another machine had.
    """
    ended = [c for c in todo if done(p, c)]
    rows, pairs = collected(p, todo, ended), paired(p, ended)
    if keep and (path := output / f"{_name(p)}.json").is_file():
        stored = workdir.read_json(path)
        old = {row["row"]: row for row in stored["rows"]}
        rows = [_newer(row, old.get(row["row"], {})) for row in rows]
        known, kept = [pair["rows"] for pair in pairs], {row["row"] for row in rows if row is old.get(row["row"])}
        pairs += [pair for pair in stored["pairs"] if pair["rows"] not in known and kept.issuperset(pair["rows"])]
    parts = [text(p, rows), _remark(rows), *([explained(pairs, rows), pair_text(pairs)] if pairs else ()), warning(p)]
    return "\n\n".join(filter(None, parts)), written(p, rows, pairs, output)


def collected(p: Plan, todo: Sequence[Cell], finished: Sequence[Cell]) -> list[dict[str, Any]]:
    """One entry a row: what the cells that are `finished` say of it, beside the published number. Plain numbers, strings and lists."""
    out = []
    for row, published in p.published.items():
        mine = [c for c in todo if c.row == row]
        ended = [(c, facts(c)) for c in mine if c in finished]
        paper = complete(p.configs(trained_row(p, row), "paper"))
        batch, whole = mine[0].config.data.batch, paper.train.steps * paper.data.batch
        what = "; ".join(filter(None, (p.lines.get(row, ""), evaluated_from(p, row))))
        entry: dict[str, Any] = {"row": row, "what": what, "published": published}
        if row in p.evaluate:
            entry["evaluated_from"] = {"row": p.evaluate[row][0], "with": dict(p.evaluate[row][1])}
        steps = mine[0].config.train.steps
        entry |= {"budget": p.budget, "steps": steps, "of_the_papers": steps * batch / whole, "cells": len(mine)}
        entry |= {"failed": [f"seed {c.seed}: {why}" for c in mine if c not in finished and (why := failure(c))]}
        if missing := [results_of(c) for c, r in ended if p.table.number not in r]:
            raise UserError(f"{missing[0]} has no number {p.table.number!r}, which TABLE asks for: add its measure to eval.measures")
        values = [r[p.table.number] for _, r in ended]
        if values:
            mean = math.fsum(values) / len(values)
            entry |= {"seeds": [c.seed for c, _ in ended], "values": values, "mean": mean, "spread": _spread(values)}
            # Early stopping ends before the budget does.
            entry |= {"steps_done": [r["steps"] for _, r in ended]}
            entry["of_the_papers"] = math.fsum(entry["steps_done"]) / len(values) * batch / whole
            entry |= {
                "estimator": _estimator(p, [r for _, r in ended]),
                "split": ended[0][1]["split"],
                "examples": ended[0][1]["examples"],
            }
            entry |= {"difference": None if published is None else mean - published}
            entry |= {key: [r[key] for _, r in ended] for key in _KEPT if all(key in r for _, r in ended)}
            entry |= _reliability([r for _, r in ended])
            entry["more"] = {
                title: [r[name] for _, r in ended if isinstance(r.get(name), int | float)] for title, (name, _) in p.columns.items()
            }
            launches = [launch for _, r in ended for launch in r["launches"]]
            entry["hardware"] = sorted({_hardware(launch) for launch in launches})
            entry["commits"] = sorted({one["commit"][:7] + "+changes" * bool(one["diff"]) for one in launches if one["commit"]})
        out.append(entry)
    return out


# Of every cell in the json file.
_KEPT = ("nll", "nll_se", "neg_elbo", "recon", "kl", "bits_per_dim", "active_units", "active_per_level", "seconds_trained", "params_step")
_KEPT = (*_KEPT, "ess", "pareto_k_bad_share", "bits_per_character")
_NLL = ("nll", "bits_per_dim", "bits_per_character")


def _reliability(found: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """{"upper_bound": whether the NLL of any seed is only a bound}; {} for other densities and where results do not record it."""
    known = [only_bound(r.get("ess"), r.get("pareto_k_bad_share")) for r in found if r.get("density") == "weight"]
    return {"upper_bound": True in known} if known and (True in known or None not in known) else {}


def _estimator(p: Plan, found: Sequence[Mapping[str, Any]]) -> str:
    """The estimator of the table's number; a NLL that is only a bound is marked, as the number or as a column."""
    own = ", ".join(sorted({r.get("estimator", "") for r in found}))
    bound = _reliability(found).get("upper_bound", False)
    if bound:
        means = (_mean([r[key] for r in found if r.get(key) is not None]) for key in ("ess", "pareto_k_bad_share"))
        own += f", upper bound ({evidence(*means)})"
    if p.table.number in _NLL:
        return own
    printed = any(name in _NLL for name, _ in p.columns.values())
    return f"{p.table.number}; NLL: {own}" if bound and printed else p.table.number


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _remark(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence under a table that marks an upper bound."""
    return EXPLAINED if any("upper bound" in row.get("estimator", "") for row in rows) else ""


def _hardware(launch: Mapping[str, Any]) -> str:
    """Number and kind of the devices; of CPU devices the processor."""
    devices = launch["devices"]
    cores = f"{launch['cpus']} cores" if launch.get("cpus") else ""
    name = ", ".join(filter(None, (launch.get("processor", ""), cores))) if devices[0] == "cpu" else ""
    return f"{len(devices)} x {devices[0]}" + (f" ({name})" if name else "")


def _spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds (n - 1), of two or more."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def written(p: Plan, rows: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], output: Path) -> list[Path]:
    """OUTPUT/TABLE.md, .json and .png (TABLE_BUDGET of another budget than cpu, +KEY=VALUE of overrides), written whole or not at all."""
    from vaeflow.figures.tables import number_against, points_of, published_and_ours

    name = _name(p)
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"{name}.{kind}" for kind in ("md", "json", "png")]
    about = {"table": p.name, **p.table._asdict(), "budget": p.budget, "budget_is": p.what}
    about |= {"overrides": told(p), "warning": warning(p)}
    workdir.write_json(paths[1], about | {"rows": list(rows), "pairs": list(pairs)})
    drawn = [row for row in rows if "mean" in row]
    figure = bool(drawn if not p.curves else points_of(drawn, p.curves, p.table.against))
    write_atomic(paths[0], markdown(p, rows, pairs, paths[2].name if figure else ""))
    if figure and p.curves:
        label = f"{p.table.number} [{p.table.unit}]"
        number_against(rows, paths[2], p.table.title, label, p.curves, p.table.against, p.table.floor, warning(p))
    elif figure:
        bounds = {row["row"] for row in rows if p.table.number in _NLL and row.get("upper_bound")}
        marked = [{**row, "row": row["row"] + " (upper bound)" * (row["row"] in bounds)} for row in rows]
        published_and_ours(
            marked, paths[2], p.table.title, f"{p.table.number} [{p.table.unit}]", warning(p), tuple(p.columns), p.table.groups
        )
    return paths[: 3 if figure else 2]


def _name(p: Plan) -> str:
    """The table's files without their endings."""
    return with_values(p.name if p.budget == "cpu" else f"{p.name}_{p.budget}", told(p))


def _newer(row: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """The row, or the stored one if it has cells, this one has none, and both are of the same budget, published number and evaluation."""
    same = all(row.get(key) == stored.get(key) for key in ("budget", "steps", "published", "evaluated_from"))
    return stored if same and "mean" in stored and "mean" not in row else row


def warning(p: Plan) -> str:
    """What a reader must know: that numbers are at another budget than the paper's or with other values, and the table's note."""
    changed = [*([f"budget {p.budget}"] if p.budget != "paper" else []), *told(p)]
    if not _known(p):
        lines = [*changed, "there are no published numbers to stand beside these"]
    elif changed:
        lines = [
            f"{', '.join(changed)}: not the paper's protocol; a difference says how far this goes, not whether the paper is reproduced"
        ]
    else:
        lines = []
    return "; ".join([*lines, *filter(None, [p.table.note])])


def _known(p: Plan) -> bool:
    return any(number is not None for number in p.published.values())


def markdown(p: Plan, rows: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]] = (), figure: str = "") -> str:
    """The whole file."""
    command = " ".join([f"python -m experiments.table --config=configs/{p.name}.py:{p.budget}", *(f"--config.{text}" for text in told(p))])
    lines = [
        f"# {p.table.title}",
        "",
        f"Published: {p.table.source}. Ours: `{command}`.",
    ]
    lines += [
        f"Budget: {p.what}. {p.table.number} in {p.table.unit}, {p.table.better} is better; mean over seeds ± their standard deviation.",
        "",
    ]
    if warned := warning(p):
        lines += [f"**{warned[0].upper()}{warned[1:]}.**", ""]
    lines += [text(p, rows, markdown=True), ""]
    lines += [] if any("mean" in row for row in rows) else ["No cell has been run.", ""]
    if remark := _remark(rows):
        lines += [remark, ""]
    if pairs:
        lines += [explained(pairs, rows), "", pair_text(pairs, markdown=True), ""]
    failed = [f"- {row['row']}, {line}" for row in rows for line in row["failed"]]
    lines += ["Failed:", "", *failed, ""] if failed else []
    return "\n".join([*lines, *([f"![Published and ours]({figure})", ""] if figure else [])])


def text(p: Plan, rows: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The aligned table."""
    known = _known(p)
    titles = ("cell", "", *(("published",) if known else ()), "ours", "seeds", *(("difference",) if known else ()), *p.columns)
    titles = (*titles, "estimator", "steps", f"of the {'paper' if known else 'long budget'}'s", "seconds", "hardware", "commit")
    out = []
    for row in rows:
        seconds = row.get("seconds_trained", ())
        ours = "not run" if "mean" not in row else _mean_and_spread(row["values"])
        seeds = f"{len(row.get('values', ()))} of {row['cells']}"
        cells = (row["row"], row["what"], *((row["published"],) if known else ()), ours, seeds)
        cells = (*cells, *((row.get("difference"),) if known else ()), *(_mean_and_spread(row.get("more", {}).get(t)) for t in p.columns))
        mean = round(sum(seconds) / len(seconds)) if seconds else None
        cells = (
            *cells,
            row.get("estimator", ""),
            _range(row.get("steps_done", [row["steps"]])),
            f"{row['of_the_papers']:.3g}",
            mean,
            ", ".join(row.get("hardware", ())),
            ", ".join(row.get("commits", ())),
        )
        out.append(cells)
    digits = dict.fromkeys(("published", "ours", "difference"), p.table.digits) | {
        title: places for title, (_, places) in p.columns.items()
    }
    return aligned_table(titles, out, digits, markdown=markdown)


def _range(steps: Sequence[int]) -> int | str:
    """The steps that were taken, from the least to the most of the seeds."""
    low, high = min(steps), max(steps)
    return low if low == high else f"{low:,} to {high:,}"


def _mean_and_spread(values: Sequence[float] | None) -> Any:
    """What a cell of the table shows of the seeds' values: nothing, the one, or (mean, standard deviation)."""
    if not values:
        return None
    spread = _spread(values)
    return values[0] if spread is None else (math.fsum(values) / len(values), spread)
