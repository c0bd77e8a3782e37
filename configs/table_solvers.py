"""Solvers against the number of evaluations: one run each of flow matching and of a VP score model, trained once and drawn from by all.

    python -m experiments.table --config=configs/table_solvers.py
    python -m experiments.table --config=configs/table_solvers.py --rows=checkerboard_flow_matching_heun_10,checkerboard_score_vp_dpm_2m_10

Rows are DATA_MODEL, which are trained, and DATA_MODEL_SOLVER_N, which evaluate that run with as many steps as N evaluations of the
network allow: equal evaluations, not equal steps. A step of midpoint, heun and predictor_corrector has two evaluations, one of dopri5 six,
and the last evaluation is always Tweedie's formula, so that heun_10 is 4 steps and 9 evaluations. adaptive_K is dopri5 with the tolerance
10^-K, which chooses its steps. NFE is what a draw counted. The times of a grid are equidistant in t. Distances are of 5,000 draws to 5,000
test points (the digits: 300 to 300 images, grey values in [0, 1]); a perfect model has the floor.
"""

from ml_collections import ConfigDict

from configs import densities, digits_diffusion

TABLE = dict(
    title="Solvers against evaluations of the network: sliced Wasserstein distance of draws to test data",
    source="no numbers are published",
    number="sample_quality.sliced_wasserstein",
    unit="units of the data",
    better="lower",
    seeds=1,
    together=False,
    digits=4,
    against="NFE",
    floor="floor",
)
BUDGETS = {
    "cpu": "checkerboard: 20,000 steps of 256 points, an MLP of 3 x 128; digits: 1,500 steps of 64 images, a U-Net of 16 channels",
    "paper": "five times as many",
}
RUNS = {
    "checkerboard_flow_matching": "flow matching on the checkerboard, linear path",
    "checkerboard_score_vp": "score SDE on the checkerboard, variance preserving",
    "digits_flow_matching": "flow matching on the 8x8 digits, linear path",
    "digits_score_vp": "score SDE on the 8x8 digits, variance preserving",
}
EVALUATIONS = (5, 10, 20, 50, 100)
# Solver: its evaluations in a step.
SOLVERS = {"euler": 1, "midpoint": 2, "heun": 2, "dopri5": 6, "ddim": 1, "ancestral": 1, "predictor_corrector": 2, "dpm_2m": 1}
TOLERANCES = {f"adaptive_{k}": 10.0**-k for k in (1, 2, 3, 4)}
STEPS = {(solver, n): (n - 1) // each for solver, each in SOLVERS.items() for n in EVALUATIONS if n > each}
EVALUATE = {
    f"{run}_{solver}_{n}": (run, {"sample.sampler": solver, "sample.steps": steps}) for run in RUNS for (solver, n), steps in STEPS.items()
} | {f"{run}_{name}": (run, {"sample.sampler": name}) for run in RUNS for name in TOLERANCES}
PUBLISHED = {row: None for run in RUNS for row in (run, *(row for row, (of, _) in EVALUATE.items() if of == run))}
CURVES = {f"{run}_{solver}_{n}": (RUNS[run], solver) for run in RUNS for solver, n in STEPS}
CURVES |= {f"{run}_{name}": (RUNS[run], "dopri5, adaptive") for run in RUNS for name in TOLERANCES}
COLUMNS = {
    "floor": ("sample_quality.sliced_wasserstein_floor", 4),
    "energy distance": ("sample_quality.energy", 5),
    "its floor": ("sample_quality.energy_floor", 5),
    "NFE": ("sampling.nfe", 1),
    "the most": ("sampling.nfe_max", 0),
    "seconds of sampling": ("sampling.seconds", 3),
}
ROWS = (
    {"": "the row checkerboard_flow_matching"} | RUNS | {f"{row},{budget}": f"{RUNS[row]}; {budget}" for row in RUNS for budget in BUDGETS}
)


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "checkerboard_flow_matching").partition(",")
    data, _, name = row.partition("_")
    c = digits_diffusion.get_config(name) if data == "digits" else densities.get_config(row)
    if data == "digits":
        c.train.steps = 1500
    for part, tol in TOLERANCES.items():
        c.parts[part] = dict(kind="dopri5", tol=tol)
    c.eval.measures = ("sample_quality", "sampling")
    names = ("energy", "sliced_wasserstein")
    c.eval.settings = dict(sample_quality=dict(names=names), sampling=dict(samples=250 if data == "digits" else 5000))
    if budget == "paper":
        c.train.steps *= 5
    return c
