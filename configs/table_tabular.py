"""Density estimation on POWER, GAS, HEPMASS, MINIBOONE and BSDS300 (data.kind=maf): the MAF paper's models and neural spline flows.

    python -m experiments.table --config=configs/table_tabular.py --config.data.path=FOLDER
    python -m experiments.table --config=configs/table_tabular.py:paper --config.data.path=FOLDER --rows=power_maf_5,power_nsf_ar
    python -m experiments.train --config=configs/table_tabular.py:miniboone_maf_5,cpu --config.data.path=FOLDER

FOLDER is the folder `data` of the archive that the MAF paper's authors published, see vaeflow/data/maf.py. GAS is a pickle there, which is
converted once: python -m experiments.prepare --gas=FOLDER/gas/ethylene_CO.pickle. Rows are DATA_FLOW. The number is the test NLL in nats
of the prepared columns, so the published log-likelihoods stand here with their sign turned.
paper, MAF's rows: the networks of the paper's code (two hidden layers; it takes one or two by validation, and on BSDS300 512 or 1,024
units), minibatches of 100, Adam at 1e-3 for MADE and MADE MoG and 1e-4 for the others, batch normalisation after every layer; stopped after
30 passes without improvement, and after 500 at the latest (there: without an end). Ours differ: no L2 penalty (there 5e-7 |w|^2); batch
normalisation tests by running statistics (there by the training set's); a coupling of RealNVP has one tanh network (there two: tanh for
scales, ReLU for shifts); log-scales within (-10, 10). The Gaussian, at both budgets: trained, from the principal axes of the first 10,000
examples.
paper, RQ-NSF: Adam with a cosine schedule, clipping at 5, tails beyond 3, the best by validation, as in the paper's code; batches, steps
and sizes of its appendix, which was not read: a later paper's configurations (vsimkus/variational-gibbs-inference) give the same for POWER,
GAS, HEPMASS and MINIBOONE (C), POWER and MINIBOONE (AR); the other four are unconfirmed. Ours differ: plain networks with as many matrices
(there residual ones); no dropout (there 0 on POWER, 0.1 on GAS, 0.2 elsewhere); no spline for what a coupling keeps; validation every 1,000
steps.
cpu: the same flows with smaller networks (RQ-NSF: 5 steps), batches of 512, Adam at 1e-3 with a cosine schedule, clipping at 5, an average
of the parameters. Its minutes are those of single steps on random numbers of the sets' shapes, on one core; no cell was run on the real
sets.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs.base import affine, base, made, mlp, repeat, spline


class Data(NamedTuple):
    """columns, training examples, and of the MAF paper's networks the activation and the units (two layers); units at the budget cpu."""

    columns: int
    examples: int
    activation: str
    units: int
    cpu: int


class Spline(NamedTuple):
    """Durkan et al. 2019: batch, steps, learning rate, flow steps, residual blocks, their units, bins."""

    batch: int
    steps: int
    rate: float
    layers: int
    blocks: int
    units: int
    bins: int


DATA = {
    "power": Data(6, 1_659_917, "relu", 100, 100),
    "gas": Data(8, 852_174, "tanh", 100, 100),
    "hepmass": Data(21, 315_123, "relu", 512, 128),
    "miniboone": Data(43, 29_556, "relu", 512, 128),
    "bsds300": Data(63, 1_000_000, "relu", 1024, 256),
}
SPLINES = {
    ("power", "nsf_c"): Spline(512, 400_000, 5e-4, 10, 2, 256, 8),
    ("gas", "nsf_c"): Spline(512, 400_000, 5e-4, 10, 2, 256, 8),
    ("hepmass", "nsf_c"): Spline(256, 400_000, 5e-4, 20, 1, 128, 8),
    ("miniboone", "nsf_c"): Spline(128, 200_000, 3e-4, 10, 1, 32, 4),
    ("bsds300", "nsf_c"): Spline(512, 400_000, 5e-4, 20, 1, 128, 8),
    ("power", "nsf_ar"): Spline(512, 400_000, 5e-4, 10, 2, 256, 8),
    ("gas", "nsf_ar"): Spline(512, 400_000, 5e-4, 10, 2, 256, 8),
    ("hepmass", "nsf_ar"): Spline(512, 400_000, 5e-4, 10, 2, 256, 8),
    ("miniboone", "nsf_ar"): Spline(64, 250_000, 3e-4, 10, 1, 64, 4),
    ("bsds300", "nsf_ar"): Spline(512, 400_000, 5e-4, 10, 2, 512, 8),
}
FLOWS = {
    "gaussian": "Gaussian with full covariance",
    "made": "MADE",
    "made_mog": "MADE MoG, 10 components",
    "realnvp_5": "RealNVP, 5 couplings",
    "realnvp_10": "RealNVP, 10 couplings",
    "maf_5": "MAF, 5 layers",
    "maf_10": "MAF, 10 layers",
    "maf_mog_5": "MAF MoG, 5 layers, 10 components",
    "nsf_c": "RQ-NSF (C)",
    "nsf_ar": "RQ-NSF (AR)",
}
LOG_LIKELIHOODS = {  # on the test sets, in nats, as published: power, gas, hepmass, miniboone, bsds300
    "gaussian": (-7.74, -3.58, -27.93, -37.24, 96.67),
    "made": (-3.08, 3.56, -20.98, -15.59, 148.85),
    "made_mog": (0.40, 8.47, -15.15, -12.27, 153.71),
    "realnvp_5": (-0.02, 4.78, -19.62, -13.55, 152.97),
    "realnvp_10": (0.17, 8.33, -18.71, -13.84, 153.28),
    "maf_5": (0.14, 9.07, -17.70, -11.75, 155.69),
    "maf_10": (0.24, 10.08, -17.73, -12.24, 154.93),
    "maf_mog_5": (0.30, 9.59, -17.39, -11.68, 156.36),
    "nsf_c": (0.64, 13.09, -14.75, -9.67, 157.54),
    "nsf_ar": (0.66, 13.09, -14.01, -9.22, 157.31),
}

TABLE = dict(
    title="Tabular density estimation: NLL on the test sets",
    source=(
        "Papamakarios et al. 2017, Table 1; RQ-NSF: Durkan et al. 2019, Table 1; both as quoted in independent notes;"
        " test log-likelihoods in nats with their sign turned"
    ),
    number="nll",
    unit="nats",
    better="lower",
    seeds=1,
    together=False,
    note=(
        "no L2 penalty, no dropout, plain networks for RQ-NSF's residual ones, batch normalisation tests by running statistics; with early"
        " stopping the paper's steps are a ceiling"
    ),
)
BUDGETS = {
    "cpu": "smaller networks: about 15 minutes of one CPU core a cell at the most",
    "paper": "the papers' networks and protocols: at most 500 passes (MAF's rows), 200,000 to 400,000 steps (RQ-NSF)",
}
PUBLISHED = {f"{data}_{name}": -LOG_LIKELIHOODS[name][i] for i, data in enumerate(DATA) for name in FLOWS}
_LINES = {f"{data}_{name}": f"{data}: {line}" for data in DATA for name, line in FLOWS.items()}
ROWS = {"": "the row miniboone_maf_5"} | _LINES
ROWS |= {f"{row},{budget}": f"{line}; {budget}" for row, line in _LINES.items() for budget in BUDGETS}
CAP = 10.0  # of log-scales: the papers' are unbounded, the columns' conditional scales are between about 0.001 and 10
# Steps at the budget cpu.
STEPS = {"power": 20_000, "gas": 20_000, "hepmass": 20_000, "miniboone": 6_000, "bsds300": 20_000}
FEWER = {
    "gas_nsf_ar": 15_000,
    "hepmass_nsf_c": 12_000,
    "hepmass_nsf_ar": 7_000,
    "bsds300_made_mog": 12_000,
    "bsds300_realnvp_5": 14_000,
    "bsds300_realnvp_10": 7_000,
    "bsds300_maf_5": 14_000,
    "bsds300_maf_10": 7_000,
    "bsds300_maf_mog_5": 5_000,
    "bsds300_nsf_c": 5_000,
    "bsds300_nsf_ar": 2_000,
}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "miniboone_maf_5").partition(",")
    data, _, name = row.partition("_")
    paper = budget == "paper"
    c = base()
    c.data.update(kind="maf", name=data)
    c.model = dict(kind="flow", layer="flow")
    c.parts = _parts(data, name, paper)
    c.eval.batch = 2000
    if name == "gaussian":
        _train(c, batch=10_000, rate=1e-3, steps=1_000, every=100, patience=0, ema=0.999)
    elif not paper:
        steps = FEWER.get(row, STEPS[data])
        _train(c, batch=512, rate=1e-3, steps=steps, every=steps // 20, patience=5, ema=0.999)
    elif name in ("nsf_c", "nsf_ar"):
        s = SPLINES[data, name]
        _train(c, batch=s.batch, rate=s.rate, steps=s.steps, every=1_000, patience=0, ema=0.0)
    else:
        a_pass = -(-DATA[data].examples // 100)
        _train(c, batch=100, rate=1e-3 if name in ("made", "made_mog") else 1e-4, steps=500 * a_pass, every=a_pass, patience=30, ema=0.0)
        c.optim.update(schedule="constant", clip=0.0)
    return c


def _train(c: ConfigDict, batch: int, rate: float, steps: int, every: int, patience: int, ema: float) -> None:
    """Adam with a cosine schedule and clipped gradients; validation and a checkpoint every so many steps."""
    c.data.batch = batch
    c.optim.update(learning_rate=rate, schedule="cosine", clip=5.0, ema=ema)
    c.train.update(steps=steps, eval_every=every, checkpoint_every=every, patience=patience)


def _parts(data: str, name: str, paper: bool) -> ConfigDict:
    units = DATA[data].units if paper else DATA[data].cpu
    if name == "gaussian":
        return _gaussian()
    if name in ("nsf_c", "nsf_ar"):
        s = SPLINES[data, name]
        return _splines(name, s if paper else s._replace(layers=5, blocks=1, units=min(s.units, 64)))
    if name.startswith("realnvp"):
        return _couplings(int(name.removeprefix("realnvp_")), units)
    return _autoregressive(name, units, DATA[data].activation)


def _gaussian() -> ConfigDict:
    """z = W (R x) + b: the principal axes and scales of the first batch, then a matrix that is trained."""
    return ConfigDict(
        dict(
            flow=dict(kind="chain", of=("axes", "norm", "linear")),
            axes=dict(kind="householder", reflections=2, start="pca"),
            norm=dict(kind="actnorm"),
            linear=dict(kind="lu_linear", start="identity"),
        )
    )


def _couplings(n: int, units: int) -> ConfigDict:
    """n couplings that keep the odd and the even columns in turn, batch normalisation after each."""
    parts = dict(
        flow=dict(kind="chain", of=("pairs", "first", "norm") if n % 2 else ("pairs",)),
        pairs=repeat("pair", n // 2),
        pair=dict(kind="chain", of=("first", "norm", "second", "norm")),
        first=affine("net", "alternating", True) | dict(cap=CAP),
        second=affine("net", "alternating", False) | dict(cap=CAP),
        net=mlp(units, units, activation="tanh"),
        norm=_norm(),
    )
    return ConfigDict(parts)


def _autoregressive(name: str, units: int, activation: str) -> ConfigDict:
    """made, made_mog, maf_N, maf_mog_N: in a MAF batch normalisation after every layer and the order of the columns reversed."""
    net = dict(made=made(units, units, activation=activation))
    gaussian = dict(kind="affine_autoregressive", made="made", cap=CAP)
    mixture = dict(kind="mixture_autoregressive", made="made", cap=CAP)
    if name.startswith("made"):
        return ConfigDict(net | dict(flow=dict(kind="chain", of=("layer",)), layer=mixture if name == "made_mog" else gaussian))
    parts = net | dict(
        flow=dict(kind="chain", of=("steps",)),
        steps=repeat("step", int(name.rpartition("_")[2])),
        step=dict(kind="chain", of=("layer", "norm", "reverse")),
        layer=gaussian,
        norm=_norm(),
        reverse=dict(kind="permutation"),
    )
    if name.startswith("maf_mog"):
        parts |= dict(flow=dict(kind="chain", of=("steps", "last")), last=mixture)
    return ConfigDict(parts)


def _splines(name: str, s: Spline) -> ConfigDict:
    """Steps of a random order of the columns, a trained matrix, a spline layer; an order and a matrix at the end."""
    hidden = (s.units,) * (1 + 2 * s.blocks)
    parts = dict(
        flow=dict(kind="chain", of=("steps", "shuffle", "linear")),
        steps=repeat("step", s.layers),
        step=dict(kind="chain", of=("shuffle", "linear", "layer")),
        shuffle=dict(kind="permutation", order="random"),
        linear=dict(kind="lu_linear", start="identity"),
        net=mlp(*hidden) if name == "nsf_c" else made(*hidden),
    )
    coupling = spline("net", "alternating", False, bins=s.bins, bound=3.0)
    numbers = {key: value for key, value in coupling.items() if key not in ("kind", "net", "mask", "flip")}
    parts["layer"] = coupling if name == "nsf_c" else dict(kind="spline_autoregressive", made="net", **numbers)
    return ConfigDict(parts)


def _norm() -> dict:
    return dict(kind="batch_norm")
