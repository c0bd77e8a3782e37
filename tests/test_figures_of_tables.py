"""Figures of tables: groups have axes of their own, and a number against a column has a line each."""

from __future__ import annotations

import numpy as np
import pytest

from tests.test_figures import size
from vaeflow.figures import canvas as canvas_module
from vaeflow.figures import tables


def test_a_table_has_axes_of_its_own_for_each_group(tmp_path):
    """More columns than fit stand in further lines; width stays below 1,700 pixels."""
    names = [f"{data}_{i}" for data in ("digits", "mnist") for i in range(3)]
    rows = [dict(row=n, published=1.0, mean=2.0, values=[1.9, 2.1], more={c: [3.0, 4.0] for c in "abcde"}) for n in names]
    for groups, height in (((), 1), (("digits_", "mnist_"), 2)):
        path = tables.published_and_ours(rows, tmp_path / "t.png", "title", "number [unit]", "note", "abcde", groups)
        width, found = size(path)
        assert width < 1700 and found > 300 * height


def test_a_tables_number_against_a_column_has_a_panel_and_a_line_each(tmp_path, monkeypatch):
    """Rows without a cell and panels without a row are left out; the floor is the smallest one of the panel."""
    drawn, rows = [], [{"row": f"a_{n}", "mean": 1 / n, "more": {"NFE": [n, n], "floor": [0.01 * n]}} for n in (10, 5, 20)]
    monkeypatch.setattr(canvas_module, "_write", lambda figure, path: drawn.append(figure))
    rows += [{"row": "a_other", "mean": 0.2, "more": {"NFE": [7.5]}}, {"row": "b_1"}]
    curves = {f"a_{n}": ("A", "euler") for n in (5, 10, 20)} | {"a_other": ("A", "heun"), "b_1": ("B", "heun")}
    tables.number_against(rows, tmp_path / "t.png", "title", "number [unit]", curves, "NFE", "floor", "note")
    (ax,) = drawn[0].axes
    lines = {line.get_label(): np.array(line.get_xydata()).tolist() for line in ax.get_lines()}
    assert lines["euler"] == [[5, 1 / 5], [10, 1 / 10], [20, 1 / 20]] and lines["heun"] == [[7.5, 0.2]]
    assert lines["floor"][0][1] == pytest.approx(0.05) and (ax.get_xscale(), ax.get_title()) == ("log", "A")
