"""Flows on 2-D densities: KL(truth || model) of every flow of configs/densities.py on four of its densities.

    python -m experiments.table --config=configs/table_densities.py
    python -m experiments.table --config=configs/table_densities.py --rows=rings_spline,rings_maf --seeds=1

Rows are DENSITY_FLOW. The truth is known, so the number is the gap between the model's test NLL and the true density's on the same points.
The papers print pictures of such densities and no numbers.
"""

from ml_collections import ConfigDict

from configs import densities

SHOWN = ("8gaussians", "checkerboard", "rings", "two_spirals")

TABLE = dict(
    title="Flows on 2-D densities: KL(truth || model) on 10,000 test points",
    source="no numbers are published",
    number="kl_to_truth",
    unit="nats",
    better="lower",
    seeds=2,
    together=False,
    digits=3,
)
BUDGETS = {
    "cpu": "6,000 steps of 256 points (ffjord 2,000, gaussianization 3,000 of 1,024): at most 3 minutes of one CPU core a cell",
    "paper": "five times as many",
}
PUBLISHED = {f"{density}_{name}": None for density in SHOWN for name in densities.FLOWS}
COLUMNS = {"NLL [nats]": ("nll", 3), "integral": ("integral", 3)}
ROWS = {"": "the row rings_spline"} | {row: densities.ROWS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{densities.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "rings_spline").partition(",")
    c = densities.get_config(row)
    if budget == "paper":
        c.train.steps *= 5
    return c
