"""Pairs of a table's rows, compared on the same test examples: the error over examples and, beside it, the t over seeds.

A trained model's NLL varies for two reasons. Other test examples would give another mean; another seed would give another model. The
standard error over examples covers the first alone, and it is small where the test set is large. Whether one row is better than another
is a question about training, so it needs the second: the spread of the difference over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.runs.metrics import aligned_table
from vaeflow.tables.runner import results_of
from vaeflow.tables.spec import Cell, Plan

_LEVEL = 0.95


def paired(p: Plan, finished: Sequence[Cell]) -> list[dict[str, Any]]:
    """One entry per pair of `p.pairs` that has finished cells of the same seeds. Differences are NLL(row) - NLL(other) in nats.

    Returns dicts of
        rows, seeds         the pair; the seeds that both have
        seed_differences    [seeds], mean over the test examples
        difference          mean over the test examples and the seeds
        se_over_examples    standard error of `difference` over the test examples of the seeds' mean; leaves out training randomness
        and the numbers of `over_seeds`.
    """
    out = []
    for row, other in p.pairs:
        ended = {name: {c.seed: results_of(c) for c in finished if c.row == name} for name in (row, other)}
        if seeds := sorted(ended[row].keys() & ended[other].keys()):
            gaps = [_log_prob(ended[other][seed]) - _log_prob(ended[row][seed]) for seed in seeds]
            value, se = mean_se(np.mean(gaps, axis=0))
            per_seed = [float(gap.mean()) for gap in gaps]
            out.append(
                {"rows": [row, other], "seeds": seeds, "difference": value, "se_over_examples": se, "seed_differences": per_seed}
                | over_seeds(per_seed)
            )
    return out


def over_seeds(differences: Sequence[float]) -> dict[str, Any]:
    """The paired t-test of per-seed differences [n]: covers the randomness of training (Student 1908).

    Returns
        t_over_seeds            mean / (s / sqrt(n)), s the sample standard deviation
        degrees_of_freedom      n - 1
        p_over_seeds            two-sided, by Student's t; for this pair alone, not corrected for the number of pairs
        interval_95_over_seeds  [low, high], of the mean difference
    Each is None for one seed; t and p are None where all seeds give the same difference.
    """
    n = len(differences)
    names = ("t_over_seeds", "degrees_of_freedom", "p_over_seeds", "interval_95_over_seeds")
    if n < 2:
        return dict.fromkeys(names)
    mean, se = mean_se(np.asarray(differences))
    df, t = n - 1, mean / se if se > 0 else None
    half = float(stats.t.ppf((1 + _LEVEL) / 2, df)) * se
    p = None if t is None else float(2 * stats.t.sf(abs(t), df))
    return dict(zip(names, (t, df, p, [mean - half, mean + half]), strict=True))


def _log_prob(results: Path) -> np.ndarray:
    """[N], of the examples in the arrays beside a results file. UserError: its evaluation computed no log-likelihoods."""
    with np.load(results.with_suffix(".npz"), allow_pickle=False) as found:
        if "log_prob" not in found:
            raise UserError(
                f"{results} has no log-likelihoods, which PAIRS compares: add 'likelihood' to eval.measures, or leave out the pair"
            )
        return found["log_prob"].astype(np.float64)


def pair_text(pairs: Sequence[Mapping[str, Any]], markdown: bool = False) -> str:
    """The aligned table of `paired`. The columns over seeds are empty for one seed."""
    titles = ("pair", "difference ± s.e. over examples", "in s.e. over examples", "t over seeds", "df", "p over seeds")
    titles = (*titles, "95% interval over seeds", "seeds")
    rows = []
    for pair in pairs:
        value, se, interval = pair["difference"], pair["se_over_examples"], pair["interval_95_over_seeds"]
        ratio = value / se if se > 0 and math.isfinite(se) else None
        between = "" if interval is None else "{:.3f} to {:.3f}".format(*interval)
        tested = (pair["t_over_seeds"], pair["degrees_of_freedom"], pair["p_over_seeds"], between)
        rows.append((" - ".join(pair["rows"]), (value, se), ratio, *tested, ", ".join(map(str, pair["seeds"]))))
    digits = {titles[1]: 3, "in s.e. over examples": 1, "t over seeds": 1, "p over seeds": 4}
    return aligned_table(titles, rows, digits, markdown=markdown)


def explained(pairs: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """What the columns of `pair_text` cover, as lines that stand above it. rows: the table's entries, for those that are bounds."""
    lines = [
        "Differences of the NLL in nats between two rows, on the same test examples.",
        "- Over examples: the standard error over the examples of this test set, at these seeds. It leaves out the randomness of training.",
        "- Over seeds: the paired t of the per-seed differences, mean / (s / sqrt(n)), with n - 1 degrees of freedom (df). It covers the"
        " randomness of training. p is two-sided, for one pair.",
    ]
    if any(len(pair["seeds"]) < 2 for pair in pairs):
        lines.append("- Pairs with one seed have no t.")
    named = {name for pair in pairs for name in pair["rows"]}
    if bounds := [row["row"] for row in rows if row.get("upper_bound") and row["row"] in named]:
        lines.append(f"- The NLL is an upper bound for {', '.join(bounds)}: a difference with it compares bounds.")
    return "\n".join(lines)
