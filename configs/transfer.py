"""Transfer between two data sets, from the examples x0 of one to those of the other: rectified flow, its next rounds, interpolants.

    python -m experiments.train --config=configs/transfer.py:checkerboard_8gaussians_rectified_flow --workdir=runs/transfer_1
    python -m experiments.train --config=configs/transfer.py:checkerboard_8gaussians_reflow --config.model.teacher=runs/transfer_1 \\
        --workdir=runs/transfer_2
    python -m experiments.explore --workdir=runs/transfer_2 --show=pairs

Rows are SOURCE_TARGET_MODEL. In the plane: moons and checkerboard to 8 Gaussians, circles to two spirals; 100,000 points each, drawn
independently. Digits: the images of a one to those of a seven, as vectors of 64, about 130 each to train on. There is no noise in the
source, so no density: runs report distances of the samples and straightness, transport cost and kinetic energy of the trajectories.
Expected (checkerboard to 8 Gaussians, seed 0; 2,000 trajectories from the same x0 in every row, 50 steps of rk4, in coordinates of zero
mean and unit variance of the target; 2,000 samples against 2,000 test points; ± is one standard error over them, of one trained run):

    row                                            straightness         transport cost    kinetic energy   energy distance (one evaluation)
    rectified_flow                                 1.523 ± 0.013        0.296 ± 0.008     1.819 ± 0.013    -0.002 ± 0.002 (1.756 ± 0.007)
    reflow                                         0.00076 ± 0.00002    0.287 ± 0.008     0.288 ± 0.008    -0.002 ± 0.002 (-0.001 ± 0.002)
    learned_interpolant                            0.784 ± 0.008        0.288 ± 0.008     1.073 ± 0.011    -0.001 ± 0.002 (1.721 ± 0.007)
    rectified_flow, --config.model.path=cosine     1.034 ± 0.010        0.293 ± 0.008     1.326 ± 0.014

The floor of the energy distance is -0.003 ± 0.002 (unbiased, so below 0 at times). The learned path starts as the cosine one.

References: Liu et al. 2023 (arXiv 2209.03003), section 5; Albergo and Vanden-Eijnden 2023 (2209.15571), checkerboard to Gaussians.
"""

from ml_collections import ConfigDict

from configs.base import base, mlp

PAIRS = {
    "moons_8gaussians": "moons to 8 Gaussians",
    "checkerboard_8gaussians": "checkerboard to 8 Gaussians",
    "circles_two_spirals": "circles to two spirals",
    "digits_1_7": "digits, ones to sevens",
}
MODELS = {
    "rectified_flow": "rectified flow",
    "reflow": "the next round of rectified flow (needs --config.model.teacher)",
    "interpolant": "stochastic interpolant with noise between the ends, gamma^2 = t (1 - t)",
    "learned_interpolant": "learned interpolant: Fourier coefficients of the path",
}
ROWS = {"": f"{PAIRS['moons_8gaussians']}: {MODELS['rectified_flow']}"} | {
    f"{pair}_{name}": f"{between}: {line}" for pair, between in PAIRS.items() for name, line in MODELS.items()
}


def get_config(row: str = "") -> ConfigDict:
    row = row or "moons_8gaussians_rectified_flow"
    pair = next(pair for pair in PAIRS if row.startswith(f"{pair}_"))
    name = row.removeprefix(f"{pair}_")
    c = base()
    c.data = dict(kind="pair", pairing="shuffle")
    c.model = dict(kind="diffusion", paired=True)
    c.parts = dict(embedding=dict(kind="fourier", width=64, scale=1.0))
    if pair.startswith("digits"):
        c.data.update(batch=64, x=dict(kind="digits", classes=("7",)), x0=dict(kind="digits", classes=("1",)))
        c.model.flatten = True
        c.parts.update(net=mlp(256, 256, 256, activation="silu"), layer=dict(kind="scale", shift=8.5, factor=8.5))
        c.train.update(steps=5000, eval_every=500, checkpoint_every=1000)
    else:
        source, _, target = pair.partition("_")
        c.data.update(size=100_000, batch=256, x=dict(kind="density", name=target), x0=dict(kind="density", name=source))
        c.parts.update(net=mlp(128, 128, 128, activation="silu"), layer=dict(kind="actnorm"))
        c.train.update(steps=20_000, eval_every=2000, checkpoint_every=5000)
        c.eval.batch = 1000
    c.optim.update(learning_rate=2e-3, clip=5.0, schedule="cosine")
    c.eval.measures = ("terms", "sample_quality", "transport")
    if name == "reflow":
        c.model.teacher = f"configs/transfer.py:{pair}_rectified_flow"
        c.model.flatten = False  # this and the layer are the teacher's
        del c.parts["layer"]
        c.train.update(steps=c.train.steps // 2, eval_every=c.train.steps // 4)  # the validation solves the teacher's ODE
    elif name == "interpolant":
        c.parts.path = dict(kind="ot", gamma=1.0)
        c.sample.t_max = 0.999
    elif name == "learned_interpolant":
        c.model.objective = "quadratic"
        c.parts.path = dict(kind="fourier")
        c.eval.params = "last"  # the value of a game does not fall
        c.optim.groups = dict(path=dict(learning_rate=1e-2))
    return c
