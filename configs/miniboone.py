"""Flows on MINIBOONE (43 standardised columns), compared with each other: every family through one config.

    python -m experiments.train --config=configs/miniboone.py:maf --config.data.path=miniboone_val_test.npz --workdir=runs/miniboone_maf
    python -m experiments.compare runs/miniboone_*

The npz holds MAF's preprocessed `val` (3,284 examples) and `test` (3,648), and no training split: the first 90% of `val` train, its
last 10% select and stop, `test` tests. So this compares the flows with each other, and not with published rows, which train on
29,556 examples. NLL in nats per example of the standardised columns. So few examples overfit within seconds: small networks, strong
weight decay, early stopping; tanh, since relu extrapolates too far for the columns' outliers (up to 29 standard deviations).
FFJORD trains with one Hutchinson probe an example, as in the paper; the interpolant (Gaussian source) by regression, without a solve. Both
densities are tested with the exact trace (43 columns), by fixed steps of rk4; the interpolant's is that of x_t at t_min. FFJORD's authors
(train_tabular.py and its options in later papers' scripts) have softplus networks of two layers of 20 x 43 units, dopri5 at a tolerance of
1e-5, a trained end time, batches of 1,000, Adam at 1e-3 with weight decay 1e-6, and stop after 30 evaluations (one in 200 steps) without
improvement: budget `paper` of table_miniboone.py, but for the solver and the end time.
Expected (seed 0, test): MAF 16.39, NAF 14.04 nats; at most 71 s of training a row on one CPU core. All rows: results/miniboone.md.
FFJORD 24.28 ± 0.38 (645 s), interpolant 20.61 ± 0.25 (162 s), both on two cores with many other programs; 80 steps of rk4 instead of 20
change the interpolant's NLL by less than 0.001.
"""

from ml_collections import ConfigDict

from configs.base import affine, base, made, mlp, repeat, spline

ROWS = {
    "": "MAF: 5 affine autoregressive layers",
    "gaussian": "a Gaussian: one linear layer",
    "made": "MADE: one affine autoregressive layer",
    "made_mog": "MADE MoG: one mixture of 5 Gaussians per dimension",
    "realnvp": "RealNVP: 10 affine couplings",
    "glow": "Glow for vectors: 10 x ActNorm, LU linear layer, affine coupling",
    "spline": "RQ-NSF (C): 6 x LU linear layer, rational-quadratic spline coupling",
    "maf": "MAF: 5 affine autoregressive layers",
    "maf_t": "the same over Student's t with learned degrees of freedom",
    "spline_maf": "RQ-NSF (AR): 4 x LU linear layer, rational-quadratic spline autoregressive layer",
    "maf_mog": "MAF MoG: 4 MAF layers, then a mixture-of-5-Gaussians MADE at the latent end",
    "naf": "NAF: 4 autoregressive layers, a mixture of 8 logistic cdfs each",
    "gaussianization": "Gaussianization flow: 6 x a mixture of 8 logistic cdfs per dimension, Householder rotation; started from data",
    "residual": "residual flow: 8 x ActNorm, a residual block with Lipschitz constant below 0.9; unbiased log-determinant in training",
    "ffjord": "FFJORD: a continuous flow, network of two layers of 128, 8 steps of rk4, one Hutchinson probe; tested by the exact trace",
    "interpolant": "stochastic interpolant, trigonometric path from a Gaussian, MLP of 3 x 128; tested by 20 steps of rk4, exact trace",
}


def get_config(row: str = "") -> ConfigDict:
    c = base()
    c.data.update(kind="npz", train="val[:90%]", val="val[90%:]", test="test", batch=128)
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(
        flow=dict(kind="chain", of=("steps",)),
        steps=repeat("step", 5),
        step=dict(kind="chain", of=("norm", "mixing", "layer")),
        norm=dict(kind="actnorm"),
    )
    if row in ("glow", "spline", "spline_maf"):
        c.parts.mixing = dict(kind="lu_linear")
    if row in ("", "maf", "maf_t"):
        c.parts.made = made(128, 128, activation="tanh")
        c.parts.mixing = dict(kind="permutation")
        c.parts.layer = dict(kind="affine_autoregressive", made="made")
        if row == "maf_t":
            c.model.base = "tails"
            c.parts.tails = dict(kind="student_t")
    elif row == "gaussian":
        c.parts.flow.of = ("norm", "mixing")
        c.parts.mixing = dict(kind="lu_linear")
        c.parts = ConfigDict({name: c.parts[name] for name in ("flow", "norm", "mixing")})
    elif row in ("made", "made_mog"):
        c.parts.made = made(128, 128, activation="tanh")
        c.parts.flow.of = ("norm", "layer")
        c.parts = ConfigDict({name: c.parts[name] for name in ("flow", "norm", "made")})
        c.parts.layer = dict(kind="affine_autoregressive", made="made")
        if row == "made_mog":
            c.parts.layer = dict(kind="mixture_autoregressive", made="made", components=5)
    elif row == "spline_maf":
        c.parts.made = made(128, 128, activation="tanh")
        c.parts.steps.n = 4
        c.parts.layer = dict(kind="spline_autoregressive", made="made", bins=4, bound=5.0)
    elif row == "spline":
        c.parts.net = mlp(64, 64, activation="tanh")
        c.parts.steps.n = 6
        c.parts.layer = spline("net", "half", False, bins=4, bound=5.0)
    elif row == "glow":
        c.parts.net = mlp(64, 64, activation="tanh")
        c.parts.steps.n = 10
        c.parts.layer = affine("net", "half", False)
    elif row == "realnvp":
        c.parts.net = mlp(64, 64, activation="tanh")
        c.parts.step.of = ("norm", "first", "second")
        c.parts.first, c.parts.second = (affine("net", "alternating", flip) for flip in (False, True))
    elif row == "maf_mog":
        c.parts.made = made(128, 128, activation="tanh")
        c.parts.mixing = dict(kind="permutation")
        c.parts.layer = dict(kind="affine_autoregressive", made="made")
        c.parts.steps.n = 4
        c.parts.flow.of = ("steps", "last")
        c.parts.last = dict(kind="mixture_autoregressive", made="made", components=5)
    elif row == "naf":
        c.parts.made = made(128, 128, activation="tanh")
        c.parts.mixing = dict(kind="permutation")
        c.parts.steps.n = 4
        c.parts.layer = dict(kind="mixture_autoregressive", made="made", components=8, kernel="logistic")
    elif row == "gaussianization":
        c.parts.flow.of = ("norm", "steps", "kernels")  # the last marginals are Gaussianized too
        c.parts.steps.n = 6
        c.parts.step.of = ("kernels", "rotation")
        c.parts.kernels = dict(kind="gaussianize")
        c.parts.rotation = dict(kind="householder", reflections=8, start="pca")
    elif row == "residual":
        c.parts.steps.n = 8
        c.parts.step.of = ("norm", "block")
        c.parts.block = dict(kind="residual", hidden=(64, 64))
    elif row == "ffjord":
        c.parts = dict(
            flow=dict(kind="chain", of=("norm", "field")),
            norm=dict(kind="actnorm"),
            field=dict(kind="cnf", net="net", steps=8, trace="hutchinson", kinetic=0.001, jacobian=0.001),
            net=dict(kind="concat_squash", hidden=(128, 128)),
        )
    elif row == "interpolant":
        c.model = dict(kind="diffusion", path="cosine", sigma_data=1.0)
        c.parts = dict(
            net=mlp(128, 128, 128, activation="silu"), embedding=dict(kind="fourier", width=64, scale=1.0), layer=dict(kind="actnorm")
        )
        c.sample.update(solver="rk4", solver_steps=20)
    c.optim.update(name="adamw", learning_rate=1e-3, weight_decay=1.0, decay_on="kernels", clip=5.0, schedule="cosine", ema=0.99)
    c.train.update(steps=2000, eval_every=50, checkpoint_every=500, patience=10)
    if row == "gaussianization":
        c.data.batch = 1024  # the first batch is what the mixtures are fitted to
        c.optim.update(weight_decay=0.0, learning_rate=5e-3)  # its parameters are the data's quantiles, not weights
        c.train.steps = 400
    elif row == "ffjord":
        c.optim.update(learning_rate=2e-3, weight_decay=0.1)  # at 1.0 it does not fit the training rows
        c.train.eval_every = 100
    elif row == "interpolant":
        c.optim.update(weight_decay=0.1, ema=0.999)
        c.train.update(steps=10_000, eval_every=200)
    c.eval.batch = 512
    return c
