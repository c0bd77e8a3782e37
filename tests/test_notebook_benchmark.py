"""benchmarks/notebook.py without the other libraries: its data, its scripts' lines, vaeflow's own script."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import notebook

RESULTS = Path(__file__).resolve().parents[1] / "results" / "notebook.md"


def stated_lines() -> dict[str, int]:
    """{library: lines} of the table in results/notebook.md."""
    table = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in RESULTS.read_text().splitlines() if line.startswith("|")]
    titles, _, *rows = table
    library, lines = titles.index("library"), titles.index("lines")
    return {row[library]: int(row[lines]) for row in rows}


def test_no_script_has_more_lines_than_the_results_state():
    stated = stated_lines()
    assert set(stated) == {"vaeflow", *notebook.LIBRARIES}
    assert all(notebook.counted_lines(library) <= lines for library, lines in stated.items())
    assert stated["vaeflow"] == min(stated.values())


def test_the_tables_have_no_ties_and_their_splits_share_no_row():
    tables = notebook.tables()
    assert len(tables) == 5
    for x in tables.values():
        parts = notebook.splits(x)
        together = np.concatenate([parts["x_train"], parts["x_val"], parts["x_test"]])
        assert together.shape == x.shape and all(len(np.unique(column)) == len(x) for column in together.T)


def test_a_difference_is_paired_over_examples():
    spread = np.arange(8.0)
    ours, theirs = (notebook.Fits(np.stack([spread + shift, spread + shift]), [1.0, 1.0], {}) for shift in (0.0, 1.0))
    assert notebook.difference(ours, theirs) == (-1.0, 0.0)  # the spread of the examples cancels


def test_vaeflows_script_runs_in_its_process(tmp_path):
    x = np.random.default_rng(0).normal(3.0, 0.1, (60, 2))
    file = tmp_path / "x.npz"
    np.savez(file, **notebook.splits(x))
    found = notebook.fitted({"vaeflow": sys.executable}, file, 20, [0])["vaeflow"]
    assert found.log_prob.shape == (1, 6) and len(found.seconds) == 1
    assert found.log_prob.mean() == pytest.approx(2 * (-np.log(0.1) - 0.5 * np.log(2 * np.pi * np.e)), abs=1.0)
