"""One-step models side by side: energy distance and sliced W2 of 1, 2 and 4 evaluations, on four densities and on the digits.

    python -m experiments.table --config=configs/table_one_step.py
    python -m experiments.table --config=configs/table_one_step.py --rows=moons_mean_flow,moons_mean_flow_2 --seeds=1

Rows are DATA_METHOD, whose samples take one evaluation of the network, and DATA_METHOD_2 and DATA_METHOD_4, the same run with two and four.
All have one network, three layers of 128 (digits: of 256, images as vectors), and one budget, the teacher too: those that learn from it
(distillation, reflow) have had its training as well. DATA_teacher is the teacher by Euler's method. Consistency models add noise between
their steps, the others are composed. `distilled` is a map to the data from t = 1 alone, of one evaluation.

The floor is the distance of training examples from the test examples: a perfect model scores the floor.
"""

from ml_collections import ConfigDict

from configs import densities
from configs.base import base, mlp

DATA = ("moons", "checkerboard", "8gaussians", "two_spirals", "digits")
LINES = {
    "teacher": "flow matching on the linear path, Euler's method",
    **{name: line for name, (line, _, _) in (densities.MAPS | densities.MORE_MAPS).items()},
    "reflow": "2-rectified flow: flow matching on pairs of the teacher's ODE, Euler's method",
}
LEARN = ("consistency_distillation", "distilled", "reflow")  # from the teacher

TABLE = dict(
    title="One-step models: energy distance of samples of 1, 2 and 4 evaluations",
    source="no numbers are published on these data",
    number="sample_quality.energy",
    unit="energy distance to the test examples",
    better="lower",
    seeds=3,
    together=True,
    digits=4,
)
BUDGETS = {"cpu": "6,000 steps of 256 (digits 128): at most 90 seconds of two CPU cores a cell", "paper": "ten times as many"}
COLUMNS = {
    "floor": ("sample_quality.energy_floor", 4),
    "sliced W2": ("sample_quality.sliced_wasserstein", 3),
    "its floor": ("sample_quality.sliced_wasserstein_floor", 3),
}
_TRAINED = [f"{data}_{method}" for data in DATA for method in LINES]


def evaluations(row: str, n: int) -> dict[str, int]:
    """The sampling options with which the row's samples take n evaluations: of Euler's method the last one predicts the data."""
    return {"sample.steps": n - 1 if row.endswith(("teacher", "reflow")) else n}


EVALUATE = {f"{row}_{n}": (row, evaluations(row, n)) for row in _TRAINED if not row.endswith("distilled") for n in (2, 4)}
AFTER = {f"{data}_{method}": (f"{data}_teacher", "model.teacher") for data in DATA for method in LEARN}
PUBLISHED = {row: None for first in _TRAINED for row in (first, f"{first}_2", f"{first}_4") if row in (*_TRAINED, *EVALUATE)}
ROWS = {"": "the row moons_mean_flow"} | {f"{data}_{method}": f"{data}, {line}" for data in DATA for method, line in LINES.items()}
ROWS |= {f"{row},{budget}": f"{ROWS[row]}; {budget}" for row in _TRAINED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "moons_mean_flow").partition(",")
    data = next(name for name in DATA if row.startswith(f"{name}_"))
    method = row.removeprefix(f"{data}_")
    c = base()
    if data == "digits":
        c.data.update(kind="digits", batch=128)
    else:
        c.data.update(kind="density", name=data, size=100_000, batch=256)
    c.optim.update(learning_rate=2e-3, clip=5.0, schedule="cosine")
    steps = 60_000 if budget == "paper" else 6000
    c.train.update(steps=steps, log_every=100, eval_every=steps, checkpoint_every=steps)
    teacher = f"configs/table_one_step.py:{data}_teacher"
    if method in ("teacher", "reflow"):
        c.model = dict(kind="diffusion", sigma_data=1.0)
        c.parts = dict(net=mlp(128, 128, 128, activation="silu"), embedding=dict(kind="fourier", width=64, scale=0.2))
        c.sample.update(sampler="euler", steps=0)
        if method == "reflow":
            c.model.update(teacher=teacher, pool=20_000)
        else:
            c.parts.layer = dict(kind="actnorm")
    else:
        densities.one_step(c, method, teacher)
    if data == "digits":
        c.parts.net.hidden = (256, 256, 256)
        if method not in LEARN:
            c.model.flatten = True
            c.parts.layer = dict(kind="scale", shift=8.5, factor=8.5)
    # The last parameters, averaged: a selection would compare losses that are not of one kind.
    c.eval.update(batch=1000, params="last", select="loss", measures=("sample_quality",))
    c.eval.settings = dict(sample_quality=dict(names=("energy", "sliced_wasserstein"), extractor="none"))
    return c
