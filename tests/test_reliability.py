"""An NLL whose importance weights support no estimate is called a bound wherever it is printed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import toys
from tests.diagnose_toys import run
from vaeflow.commands import compare
from vaeflow.evaluation import evaluate, reliability
from vaeflow.evaluation.measures import ais, iwae, refine
from vaeflow.evaluation.results import format_results
from vaeflow.figures import tables
from vaeflow.tables import report, spec
from vaeflow.tables.pairs import over_seeds

WEAK, GOOD = (
    {"ess": 2.0, "pareto_k_bad_share": 0.4, "pareto_k_median": 0.65},
    {"ess": 60.0, "pareto_k_bad_share": 0.0, "pareto_k_median": 0.2},
)
RESULTS = {
    **{"split": "test", "examples": 300, "units": "nats per example", "density": "weight", "estimator": "IWAE-100", "k": 100},
    **{"nll": 88.379, "nll_se": 0.726, "nll_mc_se": 0.0187, "bits_per_dim": 1.9922, "bits_per_dim_se": 0.0164},
    **{"device": "cpu", "device_count": 1, "seconds": 1.0},
}
PLAIN = """test split: 300 examples, nats per example (± standard error over examples)

  NLL (IWAE-100)   88.379   ± 0.726
    in bits/dim    1.9922   ± 0.0164

  density: estimated by importance weighting
  the 100 weights: Monte Carlo s.e. 0.0187, mean effective sample size 60.0, Pareto-k median 0.20, 0% of the examples above 0.7 (unreliable)
  evaluated in 1.0 s on cpu"""


@pytest.mark.parametrize(
    ("ess", "share", "bound"),
    [(2.0, None, True), (9.99, 0.0, True), (60.0, 0.0, False), (60.0, 0.1, False), (60.0, 0.11, True), (15.0, None, False)]
    + [(None, None, None), (None, 0.05, None), (None, 0.5, True), (math.nan, math.nan, None)],
)
def test_few_effective_draws_or_many_heavy_tails_support_only_a_bound(ess, share, bound):
    assert reliability.only_bound(ess, share) is bound
    numbers = {key: value for key, value in (("ess", ess), ("pareto_k_bad_share", share)) if value is not None}
    assert reliability.nll_is_bound({"density": "weight", **numbers}) is bool(bound)
    assert not reliability.nll_is_bound({"density": "exact", **numbers})


def test_reliable_results_are_printed_as_an_estimate():
    assert format_results(RESULTS | GOOD) == PLAIN
    assert "upper bound" not in format_results(RESULTS)  # of a run that did not record its weights: nothing new


def test_weak_results_are_printed_as_a_bound():
    text = format_results(RESULTS | WEAK)
    assert "NLL, upper bound (IWAE-100)   88.379" in text and "in bits/dim, upper bound" in text and "NLL (IWAE-100)" not in text
    assert "mean effective sample size 2.0" in text and "40% of the examples above 0.7" in text
    assert "the NLL is at most the value above" in text and "± 0.0187" not in text
    (line,) = (line for line in text.splitlines() if "0.0187" in line)
    assert "Monte Carlo s.e. 0.0187 is too small to be its error" in line
    noted = format_results(RESULTS | WEAK | {"note": "BCE on intensities, not a likelihood"})
    assert "negative log-weight, upper bound (IWAE-100)" in noted and "NLL" not in noted


def test_heavy_weights_of_an_evaluation_are_found():
    """log-weights N(0, s^2): their standard error is right at s = 0.5 and too small at s = 4."""
    for spread, bound in ((0.5, False), (4.0, True)):
        found = evaluate.results(toys.noisy(spread), {}, toys.source(toys.split(200)), "test", toys.config(k=100, chunk=100, batch=200))
        assert reliability.nll_is_bound(found) is bound
        error = abs(found["nll"] - (-toys.split(200).x.sum(-1).mean(dtype=np.float64) - spread**2 / 2))
        assert bool(error > 10 * found["nll_mc_se"]) is bound


def test_compare_marks_bounds(tmp_path, monkeypatch, capsys):
    for name, numbers in (("weak", WEAK), ("good", GOOD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(RESULTS | numbers))
        (tmp_path / name / "metrics.jsonl").write_text(
            '{"step": 1, "split": "val", "loss": 1.0}\n{"step": 2, "split": "val", "loss": 0.5}\n'
        )
    monkeypatch.setattr("vaeflow.runs.workdir.read_config", lambda _: ConfigDict({"data": {"kind": "digits", "name": ""}}))
    compare.compare([tmp_path / "weak", tmp_path / "good"], tmp_path / "curves.png")
    lines = capsys.readouterr().out.splitlines()
    assert "upper bound (ESS 2.0, Pareto-k > 0.7 in 40%)" in lines[2] and "bound" not in lines[3]
    assert any(line.startswith("Upper bound: the mean effective sample size") for line in lines)
    compare.compare([tmp_path / "good"], tmp_path / "curves.png")
    assert "upper bound" not in capsys.readouterr().out.lower()


def test_tables_mark_bounds(tmp_path, monkeypatch):
    plan = spec.plan("configs/table_iwae_1.py")
    todo = spec.cells(plan, tmp_path, 2)
    of = {"vae_1_1": [GOOD, WEAK], "vae_1_5": [GOOD, GOOD], "vae_1_50": [{}, {}]}
    ended = [cell for cell in todo if cell.row in of]
    monkeypatch.setattr(report, "facts", lambda cell: RESULTS | {"steps": 9, "launches": []} | of[cell.row][cell.seed])
    rows = {row["row"]: row for row in report.collected(plan, todo, ended)}
    assert rows["vae_1_1"]["estimator"] == "IWAE-100, upper bound (ESS 31.0, Pareto-k > 0.7 in 20%)" and rows["vae_1_1"]["upper_bound"]
    assert rows["vae_1_1"]["ess"] == [60.0, 2.0] and rows["vae_1_1"]["pareto_k_bad_share"] == [0.0, 0.4]
    assert rows["vae_1_5"]["estimator"] == "IWAE-100" and rows["vae_1_5"]["upper_bound"] is False
    assert rows["vae_1_50"]["estimator"] == "IWAE-100" and "upper_bound" not in rows["vae_1_50"]
    assert reliability.EXPLAINED in report.markdown(plan, list(rows.values()))
    assert reliability.EXPLAINED not in report.markdown(plan, [rows["vae_1_5"], rows["vae_1_50"]])
    drawn = []
    monkeypatch.setattr(tables, "published_and_ours", lambda rows, *_: drawn.extend(row["row"] for row in rows))
    report.written(plan, list(rows.values()), [], tmp_path)
    assert "vae_1_1 (upper bound)" in drawn and "vae_1_5" in drawn
    column = plan._replace(table=plan.table._replace(number="nll_se"), columns={"NLL": ("nll", 2)})  # a NLL as a further column
    assert report.collected(column, todo, ended)[0]["estimator"].startswith("nll_se; NLL: IWAE-100, upper bound")


def test_diagnose_marks_bounds():
    for k, weak in ((4, True), (300, False)):  # no more than 4 effective draws of 4
        r = run(toys.linear_gaussian(1.1), toys.split(8))
        few = ais.AISSettings(chains=2, steps=2, leapfrog=1, pilot=1, k=k)
        found = iwae.check(r, iwae.IWAESettings(k=k))
        assert ("no estimate: ESS" in found["log_p"].what) is weak and ("pareto_k_bad_share" in found) is not weak
        annealed = ais.ais(r, few)
        assert ("no estimate: ESS" in annealed[f"iwae_{k}"].what) is weak
        assert "too small: ESS" in annealed["mc_se"].what  # two chains
        both = ais.bdmc(r, few)
        assert ("no estimate: ESS" in both[f"iwae_{k}"].what) is weak and "too small: ESS" in both["upper_mc_se"].what
        refined = refine.check(r, refine.RefineSettings(steps=1, draws=1, k=k))
        assert ("no estimate: ESS" in refined["log_p"].what) is ("too small: ESS" in refined["log_p_mc_se"].what) is weak


def test_committed_tables_have_the_t_over_seeds_that_their_values_give():
    for path in Path(__file__).parents[1].joinpath("results").glob("table_*.json"):
        found = json.loads(path.read_text())
        nll = {row["row"]: dict(zip(row.get("seeds", ()), row.get("nll", ()), strict=True)) for row in found["rows"] if "nll" in row}
        for pair in found["pairs"]:
            one, other = (nll[name] for name in pair["rows"])
            expected = over_seeds([one[seed] - other[seed] for seed in pair["seeds"]])
            for key, value in expected.items():
                assert pair[key] == pytest.approx(value), (path.name, pair["rows"], key)
