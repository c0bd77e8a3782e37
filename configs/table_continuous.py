"""Continuous-time models on 2-D densities: every such row of densities.py, three seeds, distances of draws and densities.

    python -m experiments.table --config=configs/table_continuous.py
    python -m experiments.table --config=configs/table_continuous.py --rows=moons_flow_matching,moons_ffjord --seeds=1

Rows are DENSITY_MODEL. Distances are of 5,000 draws by the row's own sampler to 5,000 test points; a perfect model has the floor. NLL and
the integral of the density over the plane are there where the model has a density: that of x_t at t_min, by the solver of its row. NFE is
what a draw counted; FFJORD counts none (12 steps of rk4, 48 evaluations). A row that learns from another one (densities.TEACHERS) is
trained after it.
"""

from ml_collections import ConfigDict

from configs import densities

SHOWN = ("checkerboard", "8gaussians", "moons", "two_spirals")
NAMES = ("ffjord", *densities.CONTINUOUS, *densities.MAPS, *densities.ENERGIES)

TABLE = dict(
    title="Continuous-time models on 2-D densities: energy distance of draws to test data",
    source="no numbers are published",
    number="sample_quality.energy",
    unit="units of the data",
    better="lower",
    seeds=3,
    together=True,
    digits=5,
    groups=tuple(f"{density}_" for density in SHOWN),
)
BUDGETS = {
    "cpu": "10,000 steps of 256 points (FFJORD 2,000), MLPs of 3 x 128 (FFJORD 3 x 64): at most 3 minutes of two CPU cores a cell",
    "paper": "ten times as many",
}
PUBLISHED = {f"{density}_{name}": None for density in SHOWN for name in NAMES}
AFTER = {f"{density}_{name}": (f"{density}_{of}", key) for density in SHOWN for name, (of, key) in densities.TEACHERS.items()}
CHECKS = {"sample_quality": {"names": ("energy", "sliced_wasserstein")}, "sampling": {"samples": 5000}}
COLUMNS = {
    "floor": ("sample_quality.energy_floor", 5),
    "sliced Wasserstein": ("sample_quality.sliced_wasserstein", 4),
    "its floor": ("sample_quality.sliced_wasserstein_floor", 4),
    "NLL [nats]": ("nll", 3),
    "KL to the truth": ("kl_to_truth", 4),
    "integral": ("integral", 3),
    "NFE": ("sampling.nfe", 0),
    "seconds of training": ("seconds_trained", 0),
    "seconds of sampling": ("sampling.seconds", 2),
}
ROWS = {"": "the row moons_flow_matching"} | {row: densities.ROWS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{densities.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "moons_flow_matching").partition(",")
    c = densities.get_config(row)
    c.train.steps = min(c.train.steps, 10_000)
    c.eval.examples = 2000
    if budget == "paper":
        c.train.steps *= 10
    if "count" in c.parts:
        c.parts["count"].steps = c.train.steps
    return c
