"""Paired differences of a table: the standard error over test examples and the t over seeds, each named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vaeflow.tables import pairs, report, spec

N = 2000


@pytest.fixture(scope="module")
def plan() -> spec.Plan:
    return spec.plan("configs/table_iwae_1.py")._replace(pairs=(("iwae_1_5", "vae_1_5"),))


def finished(folder: Path, gaps: list[float]) -> list[spec.Cell]:
    """Cells of two rows whose NLL differs by gaps[seed], give or take the examples."""
    rng, out = np.random.default_rng(0), []
    for seed, gap in enumerate(gaps):
        log_prob = rng.normal(-100, 10, N)
        for row, shift in (("iwae_1_5", -gap), ("vae_1_5", 0.0)):
            directory = folder / f"{row}_seed{seed}"
            directory.mkdir(parents=True)
            np.savez(directory / "results.npz", log_prob=log_prob + shift + rng.normal(0, 0.1, N))
            out.append(spec.Cell(row, seed, None, directory))
    return out


def written(plan: spec.Plan, found: list[dict]) -> str:
    rows = report.collected(plan, spec.cells(plan, Path("nowhere"), 1), ())
    return report.markdown(plan, rows, found)


def last_row(text: str) -> dict[str, str]:
    """{title: cell} of the last row of a Markdown page's last table, which has one row."""
    titles, _, row = [line.split("|") for line in text.splitlines() if line.startswith("|")][-3:]
    return {title.strip(): cell.strip() for title, cell in zip(titles, row, strict=True)}


def test_many_errors_over_examples_and_a_small_t_over_seeds_stand_side_by_side(plan, tmp_path):
    (pair,) = found = pairs.paired(plan, finished(tmp_path, [-9.0, -44.0]))
    assert pair["difference"] == pytest.approx(-26.5, abs=0.02) and pair["difference"] / pair["se_over_examples"] < -1000
    assert pair["seed_differences"] == pytest.approx([-9.0, -44.0], abs=0.02)
    assert pair["t_over_seeds"] == pytest.approx(-26.5 / 17.5, abs=0.01) and pair["degrees_of_freedom"] == 1
    assert pair["p_over_seeds"] > 0.3 and pair["interval_95_over_seeds"][0] < 0 < pair["interval_95_over_seeds"][1]
    text = written(plan, found)
    shown = last_row(text)
    assert float(shown["in s.e. over examples"]) < -1000 and float(shown["t over seeds"]) == pytest.approx(-1.5, abs=0.05)
    assert shown["df"] == "1" and shown["seeds"] == "0, 1" and "difference ± s.e. over examples" in shown
    assert "It leaves out the randomness of training" in text and "the paired t of the per-seed differences" in text


def test_one_seed_has_no_t(plan, tmp_path):
    (pair,) = found = pairs.paired(plan, finished(tmp_path, [-3.0]))
    assert pair["seed_differences"] == pytest.approx([-3.0], abs=0.02)
    assert pair["t_over_seeds"] is pair["p_over_seeds"] is pair["interval_95_over_seeds"] is pair["degrees_of_freedom"] is None
    text = written(plan, found)
    shown = last_row(text)
    assert shown["t over seeds"] == shown["df"] == shown["p over seeds"] == shown["95% interval over seeds"] == ""
    assert "Pairs with one seed have no t." in text


def test_the_t_is_that_of_a_paired_t_test():
    a, b = np.random.default_rng(1).normal(size=(2, 5))
    found, expected = pairs.over_seeds(list(a - b)), stats.ttest_rel(a, b)
    assert (found["t_over_seeds"], found["p_over_seeds"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert found["interval_95_over_seeds"] == pytest.approx(list(expected.confidence_interval()))
    same = pairs.over_seeds([1.0, 1.0])
    assert same["t_over_seeds"] is same["p_over_seeds"] is None and same["interval_95_over_seeds"] == [1.0, 1.0]


def test_differences_between_bounds_say_so(plan, tmp_path):
    found = pairs.paired(plan, finished(tmp_path, [-1.0, -2.0]))
    bounds = [{"row": "vae_1_5", "upper_bound": True}, {"row": "vae_1_1", "upper_bound": True}, {"row": "iwae_1_5"}]
    assert "an upper bound for vae_1_5: a difference with it compares bounds" in pairs.explained(found, bounds)
    assert "upper bound" not in pairs.explained(found)
