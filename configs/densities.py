"""Flows and continuous-time models on 2-D densities: eight densities, every family; drawn beside the data, and all of them together by
experiments.compare.

    python -m experiments.train --config=configs/densities.py:checkerboard_spline --workdir=runs/densities_checkerboard_spline
    python -m experiments.train --config=configs/densities.py:moons_flow_matching --workdir=runs/densities_moons_flow_matching
    python -m experiments.compare runs/densities_*
    python -m experiments.train --config=configs/densities.py:moons_rectified_flow --workdir=runs/round_1
    python -m experiments.train --config=configs/densities.py:moons_reflow --config.model.teacher=runs/round_1 --workdir=runs/round_2
    python -m experiments.train --config=configs/densities.py:moons_reflow --config.model.teacher=runs/round_2 --workdir=runs/round_3
    python -m experiments.diagnose --workdir=runs/round_2 --measures=sample_quality --config.sample.steps=0

Rows are DENSITY_FLOW, for example rings_maf, and DENSITY_MODEL, for example rings_score_vp. 100,000 points, 10,000 each to validate and
test. The table gives the exact test NLL in nats, the true density's, the gap between them, KL(truth || model), and the integral of the
model's density on a grid (1.00).
Expected (row checkerboard_spline, seed 0, 10,000 test points): NLL 3.508 ± 0.002 nats, the true density has 3.466, integral 1.005; 87 s of
training on one busy CPU core. All flows on four densities: results/densities.md. KL(truth || model) on moons (seed 0, one to two minutes
of training and as much of evaluation on 2 CPU cores shared with other programs): flow_matching 0.0118 ± 0.0015, flow_matching_vp 0.0101 ±
0.0013, interpolant 0.0172 ± 0.0017, score_vp 0.0179 ± 0.0017, score_ve 0.0134 ± 0.0015, score_subvp 0.0214 ± 0.0019,
flow_matching_transport 0.0295 ± 0.0022, rectified_flow 0.0246 ± 0.0021; integrals 1.0000. Their density is that of x_t at t_min (0.001,
for vp and subvp 0.01), by dopri5 at a tolerance of 1e-5. The papers' settings of 2-D data were not read.
Energies (dae, dsm) model the data with noise of 0.15 of their standard deviation, and the grid normalises them. KL(truth || model) (seed 0,
10,000 test points): 8gaussians_dae 0.158 ± 0.005, moons_dsm 0.097 ± 0.004, moons_dae 1.02 ± 0.02: tied weights do not fit moons, see
vaeflow/models/dae.py. 12 to 26 s of training for dae, 208 s for dsm, on 2 CPU cores with six other programs.
Rounds of rectified flow (moons, seed 0; 2,000 trajectories from the same noise in every round, 50 steps of rk4; 2,000 samples against 2,000
test points; ± is one standard error over them, of one trained run):

    round                  straightness         transport cost    energy distance of one Euler step (floor 0.0025 ± 0.0030)
    1, rectified_flow      0.904 ± 0.010        0.3137 ± 0.0079   1.085 ± 0.016
    2, reflow              9.2e-5 ± 0.8e-5      0.3123 ± 0.0078   0.0009 ± 0.0023
    3, reflow of reflow    6.3e-5 ± 0.5e-5      0.3116 ± 0.0078   0.0009 ± 0.0023

Flow maps of moons, 10,000 steps (seed 0, 5,000 samples against 5,000 test points; energy distance in 1e-3, ± 0.7 to 1.2, floor 0.1, and
sliced W2, ± 0.013 to 0.026, floor 0.047, of one and of two evaluations):

    consistency_distillation    0.5  0.054     1.0  0.060    its teacher, the row rectified_flow, by Euler's one step: 1085 and 1.386
    consistency_training        1.3  0.065     1.3  0.066
    mean_flow                   1.5  0.067     1.1  0.062
    shortcut                    1.6  0.074     1.7  0.074

Two evaluations differ from one by less than the errors. Points between the moons remain. With frequencies of scale 1 in place of 0.2, and a
quarter of the examples with r = t, mean_flow had 10.4.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, made, mlp, repeat, spline
from configs.gans import GANS, game

DENSITIES = ("moons", "circles", "rings", "pinwheel", "two_spirals", "checkerboard", "8gaussians", "25gaussians")
FLOWS = {
    "nice": "NICE: 8 additive couplings and the scaling layer",
    "realnvp": "RealNVP: 8 affine couplings",
    "spline": "RQ-NSF: 4 spline couplings with LU linear layers",
    "maf": "MAF: 8 affine autoregressive layers, natural and reversed order in turn",
    "iaf": "IAF: 8 inverted MAF layers, natural and reversed order in turn",
    "naf": "NAF: 2 autoregressive layers, a mixture of 16 logistic cdfs each, natural and reversed order",
    "gaussianization": "Gaussianization flow: 8 x a mixture of 16 logistic cdfs per dimension, Householder rotation; started from data",
    "mixture": "mixture of 8 RealNVPs of 2 affine couplings each",
    "residual": "residual flow: 16 x ActNorm, a residual block with Lipschitz constant below 0.95, exact log-determinant",
    "ffjord": "FFJORD: a continuous flow, network of three layers of 64, 12 steps of rk4, exact trace, penalties",
}
# (what the row is, its part `path`, the other arguments of the model)
CONTINUOUS = {
    "flow_matching": ("flow matching on the linear path", {}, {}),
    "flow_matching_vp": ("flow matching on the variance-preserving path", dict(kind="vp"), dict(t_min=0.01)),
    "flow_matching_transport": ("flow matching on exact transport of minibatches of 64", {}, dict(coupling="exact")),
    "interpolant": ("stochastic interpolant: the trigonometric path, times from Beta(2, 2)", dict(kind="cosine"), dict(times="beta")),
    "rectified_flow": ("rectified flow: the linear path, times logit-normal, Euler's method", {}, dict(times="logit_normal")),
    "learned_interpolant": ("learned interpolant: the path's Fourier coefficients", dict(kind="fourier"), dict(objective="quadratic")),
    "reflow": ("rectified flow, the next round (needs --config.model.teacher)", {}, {}),
    "score_ve": ("score SDE, variance exploding", dict(kind="ve", sigma_max=10.0), dict(predict="noise", precondition=True)),
    "score_vp": ("score SDE, variance preserving", dict(kind="vp"), dict(predict="noise", t_min=0.01)),
    "score_subvp": ("score SDE, sub-variance preserving", dict(kind="subvp"), dict(predict="noise", t_min=0.01)),
}
ENERGIES = {
    "dae": "denoising autoencoder with tied weights (an energy), samples by HMC",
    "dsm": "denoising score matching of an energy network, samples by HMC",
}
# What a flow map is trained by, beside the network and the layer that it shares with CONTINUOUS: (what the row is, parts, model).
MAPS = {
    "consistency_distillation": (
        "consistency distillation of the row flow_matching by Heun steps between 18 points (needs --config.model.teacher)",
        dict(intervals=dict(kind="points", count=18.0)),
        dict(target="heun", loss="data_square", ema=0.95),
    ),
    "consistency_training": (
        "improved consistency training from scratch: 11 to 161 points, no moving average of the target network",
        dict(
            intervals=dict(kind="points", count="count", grid="rho"),
            count=dict(kind="doubling", end=160),
            path=dict(kind="edm", sigma_max=10.0),
            times=dict(kind="log_normal", mean=-0.8, std=1.6),
            loss=dict(kind="pseudo_huber", scale=0.03),
        ),
        dict(target="pair", form="edm", precondition=True, t_min=0.0002),
    ),
    "mean_flow": ("MeanFlow, half of the examples with r = t", dict(intervals=dict(kind="ordered", equal=0.5)), dict(target="jvp")),
    "shortcut": (
        "shortcut model, half of the examples with r = t",
        dict(intervals=dict(kind="binary", equal=0.5)),
        dict(target="halves", ema=0.99),
    ),
}
# Rows of table_one_step.py alone.
MORE_MAPS = {
    "continuous": (
        "continuous consistency from scratch: the trigonometric path and form, gradients of equal length",
        dict(loss=dict(kind="square", power=0.5)),
        dict(target="jvp", intervals="to_data", path="cosine", form="trigonometric"),
    ),
    "distilled": (
        "distillation of the row's teacher to one step: the end of its ODE by 8 Heun steps",
        dict(target=dict(kind="distilled", steps=8)),
        dict(intervals="equal", loss="data_square"),
    ),
}
# Rows that learn from the run of another one: (that row, the config key that names its workdir).
TEACHERS = {"reflow": ("rectified_flow", "model.teacher"), "consistency_distillation": ("flow_matching", "model.teacher")}
LINES = FLOWS | {name: line for name, (line, _, _) in (CONTINUOUS | MAPS).items()} | ENERGIES
LINES |= {f"gan_{name}": f"GAN, {line}" for name, (line, *_) in GANS.items()}
ROWS = {"": f"moons, {FLOWS['realnvp']}"} | {
    f"{density}_{name}": f"{density}, {line}" for density in DENSITIES for name, line in LINES.items()
}


def get_config(row: str = "") -> ConfigDict:
    row = row or "moons_realnvp"
    density = next(density for density in DENSITIES if row.startswith(f"{density}_"))
    name = row.removeprefix(f"{density}_")
    c = base()
    c.data.update(kind="density", name=density, size=100_000, batch=256)
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("norm", "steps")),
        norm=dict(kind="actnorm"),
        steps=repeat("step", 4),
        step=dict(kind="chain", of=("first", "second")),
    )
    c.optim.update(learning_rate=2e-3, clip=5.0, schedule="cosine")
    c.train.update(steps=6000, log_every=100, eval_every=1000, checkpoint_every=2000)
    c.eval.batch = 1000
    if name in CONTINUOUS:
        continuous(c, name)
    elif name in MAPS:
        c.train.update(steps=10_000, eval_every=2000, checkpoint_every=5000)
        one_step(c, name, f"configs/densities.py:{density}_flow_matching")
    elif name in ENERGIES:
        energy(c, name)
    elif name.startswith("gan_"):
        game(c, name.removeprefix("gan_"), 128, 128, 128)
        c.data.batch = 64
        c.optim.clip = 0.0
        c.optim.update(learning_rate=5e-4, schedule="constant", ema=0.0)  # no average: stability is what is compared
        c.train.update(steps=6000, eval_every=6000, checkpoint_every=6000)
        c.eval.update(measures=("sample_quality",), params="last")
        c.eval.settings = dict(sample_quality=dict(names=("energy",), extractor="none", samples=2500, examples=2500))
        if density in ("8gaussians", "25gaussians"):
            c.eval.measures = ("mode_coverage", "sample_quality")
    if name in ("nice", "realnvp", "spline", "mixture"):
        c.parts.net = mlp(64, 64)
        for part, flip in (("first", False), ("second", True)):
            if name == "nice":
                c.parts[part] = dict(kind="additive_coupling", net="net", mask="half", flip=flip)
            else:
                c.parts[part] = spline("net", "half", flip, bins=16, bound=3.0) if name == "spline" else affine("net", "half", flip)
    if name == "nice":
        c.parts.flow.of = ("norm", "steps", "scaling")
        c.parts.scaling = dict(kind="nice_scaling")
    elif name == "spline":
        c.parts.steps.n = 2
        c.parts.step.of = ("linear", "first", "second")
        c.parts.linear = dict(kind="lu_linear")
    elif name in ("maf", "iaf"):
        for part, order in (("first", "natural"), ("second", "reverse")):
            c.parts[f"made_{part}"] = made(64, 64, order=order)
            c.parts[part] = dict(kind="affine_autoregressive", made=f"made_{part}")
        if name == "iaf":
            c.parts.flow.of = ("norm", "inverted")
            c.parts.inverted = dict(kind="inverse", of="steps")
    elif name == "naf":
        c.parts.steps.n = 1
        for part, order in (("first", "natural"), ("second", "reverse")):
            c.parts[f"made_{part}"] = made(64, 64, order=order)
            c.parts[part] = dict(kind="mixture_autoregressive", made=f"made_{part}", components=16, kernel="logistic", cap=5.0)
    elif name == "mixture":
        c.model.update(kind="flow_mixture", components=8)
        c.parts.steps.n = 1
    elif name == "gaussianization":
        c.data.batch = 1024  # the first batch is what the mixtures are fitted to
        c.train.steps = 3000
        c.parts.flow.of = ("norm", "steps", "kernels")  # the last marginals are Gaussianized too
        c.parts.steps.n = 8
        c.parts.step.of = ("kernels", "rotation")
        c.parts.kernels = dict(kind="gaussianize", components=16, cap=5.0)
        c.parts.rotation = dict(kind="householder", reflections=2)
    elif name == "residual":
        c.parts.flow.of = ("steps",)
        c.parts.steps.n = 16
        c.parts.step.of = ("norm", "block")
        c.parts.block = dict(kind="residual", hidden=(32, 32), lip=0.95, log_det="exact", roulette=0.5)
    elif name == "ffjord":
        # The authors' network and exact trace. Their train_toy.py has no ActNorm, dopri5 at tolerance 1e-5 with the adjoint's gradients, an
        # end time that is learned (from 0.5), and 10,000 steps of 100 fresh points by Adam at 1e-3 with weight decay 1e-5.
        # The penalties keep the fixed steps exact: without them, 8 steps gave the checkerboard a "density" of integral 2.3.
        c.train.steps = 2000
        c.parts = dict(
            flow=dict(kind="chain", of=("norm", "field")),
            norm=dict(kind="actnorm"),
            field=dict(kind="cnf", net="net", steps=12, kinetic=0.01, jacobian=0.01),
            net=dict(kind="concat_squash", activation="tanh"),
        )
    return c


def continuous(c: ConfigDict, name: str) -> None:
    """The row `name` of CONTINUOUS: its model and parts, in place."""
    _, path, options = CONTINUOUS[name]
    c.model = dict(kind="diffusion", sigma_data=1.0, **options)
    c.parts = dict(
        net=mlp(128, 128, 128, activation="silu"),
        embedding=dict(kind="fourier", width=64, scale=1.0),
        layer=dict(kind="actnorm"),  # zero mean and unit variance by the first batch
    )
    if path:
        c.parts.path = path
    if name in ("rectified_flow", "reflow", "learned_interpolant"):
        c.eval.measures = ("likelihood", "terms", "density_grid", "sample_quality", "transport")
    if name == "reflow":
        c.model.teacher = f"configs/densities.py:{c.data.name}_rectified_flow"
        del c.parts["layer"]  # the teacher's
        c.sample.sampler = "euler"
    if name == "learned_interpolant":
        c.eval.params = "last"  # the value of a game does not fall
        c.optim.groups = dict(path=dict(learning_rate=1e-2))
    if name == "flow_matching_transport":
        c.data.batch = 64
    elif name == "interpolant":
        c.parts.beta = dict(kind="beta", a=2.0, b=2.0)
    elif name == "rectified_flow":
        c.sample.sampler = "euler"
    c.train.update(steps=20_000, eval_every=2000, checkpoint_every=5000)
    if name == "reflow":
        c.train.update(steps=10_000, eval_every=5000)  # the validation solves the teacher's ODE


def energy(c: ConfigDict, name: str) -> None:
    """The row `name` of ENERGIES: its model and parts, in place. The noise is 0.15 of the data's standard deviation."""
    c.model = dict(kind="dae", layer="layer", sigma=1.0, hidden=256)
    c.parts = dict(
        layer=dict(kind="chain", of=("norm", "units")),
        norm=dict(kind="actnorm"),  # zero mean and unit variance by the first batch
        units=dict(kind="scale", factor=0.15),  # one unit is the noise
    )
    c.sample.update(start=7.0)
    if name == "dsm":
        c.model.update(objective="dsm", net="net", hidden=64)
        c.parts.net = mlp(128, 128, 128, activation="silu")
    c.train.update(steps=10_000, eval_every=2000, checkpoint_every=5000)


def one_step(c: ConfigDict, name: str, teacher: str) -> None:
    """The row `name` of MAPS or MORE_MAPS in c.train.steps steps: its model and parts, in place."""
    _, parts, options = (MAPS | MORE_MAPS)[name]
    c.model = dict(kind="flow_map", sigma_data=1.0, **options)
    c.parts = dict(net=mlp(128, 128, 128, activation="silu"), embedding=dict(kind="fourier", width=64, scale=0.2), **parts)
    if name in ("consistency_distillation", "distilled"):
        c.model.teacher = teacher
    else:
        c.parts.layer = dict(kind="actnorm")
    if "count" in c.parts:
        c.parts.count.steps = c.train.steps
    c.eval.update(measures=("sample_quality",), select="sample_quality.energy")  # a loss compares the network with its own target
