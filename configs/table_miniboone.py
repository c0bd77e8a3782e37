"""Flows on the MINIBOONE rows that can be at hand without its training split: validation rows train, test rows test.

    python -m experiments.table --config=configs/table_miniboone.py --config.data.path=miniboone_val_test.npz

The rows are the flows of table_tabular.py, FFJORD and a stochastic interpolant: the same kind of density with and without solves in
training, whose seconds stand beside it. The npz has MAF's preprocessed `val` (3,284 examples) and `test` (3,648); the first 90% of `val`
train and its last 10% select. Published numbers train on 29,556 rows, nine times as many, so none stands beside ours here: table_tabular.py
has those. Expected of budget cpu, three seeds: 15.5 nats (MAF of 10 layers, MAF MoG) to 20.1 (RQ-NSF, C), a Gaussian 38.1.
"""

from ml_collections import ConfigDict

from configs import miniboone, table_tabular

TABLE = dict(
    title="Flows on MINIBOONE's validation rows: NLL on its test rows",
    source="none: published numbers train on MINIBOONE's 29,556 training rows, these on 2,955 of its validation rows",
    number="nll",
    unit="nats, standardised columns",
    better="lower",
    seeds=3,
    together=False,
)
BUDGETS = {
    "cpu": "small networks, strong weight decay, 2,000 steps of 128 at most: at most 2 minutes of one CPU core a cell",
    "paper": "the flows and schedules of table_tabular.py's paper budget, FFJORD's networks of 860 units, on these rows",
}
TRAIN = 2955  # rows, 90% of the validation split
# Row: the row of miniboone.py, and its number of steps where the row's own is another one.
FLOWS = {
    "gaussian": ("gaussian", 0),
    "made": ("made", 0),
    "made_mog": ("made_mog", 0),
    "realnvp_5": ("glow", 5),
    "realnvp_10": ("realnvp", 5),
    "maf_5": ("maf", 5),
    "maf_10": ("maf", 10),
    "maf_mog_5": ("maf_mog", 5),
    "nsf_c": ("spline", 0),
    "nsf_ar": ("spline_maf", 0),
    "ffjord": ("ffjord", 0),
    "interpolant": ("interpolant", 0),
}
LINES = {row: miniboone.ROWS[name] for row, (name, _) in FLOWS.items()} | {
    "realnvp_5": "RealNVP: 5 affine couplings",
    "realnvp_10": "RealNVP: 10 affine couplings",
    "maf_10": "MAF: 10 affine autoregressive layers",
    "maf_mog_5": "MAF MoG: 5 MAF layers, then a mixture-of-5-Gaussians MADE at the latent end",
}
PUBLISHED = dict.fromkeys(FLOWS)
COLUMNS = {"seconds of training": ("seconds_trained", 0)}
ROWS = {"": "the row maf_5"} | LINES | {f"{row},{budget}": f"{LINES[row]}; {budget}" for row in FLOWS for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "maf_5").partition(",")
    name, steps = FLOWS[row]
    c = miniboone.get_config(name)
    if row == "realnvp_5":  # one coupling a step, its halves changed over by the permutation
        c.parts.mixing = dict(kind="permutation")
    if steps:
        c.parts.steps.n = steps
    if budget == "paper" and row in ("ffjord", "interpolant"):
        continuous(c, row)
    elif budget == "paper":
        paper = table_tabular.get_config(f"miniboone_{row},paper")
        paper.data.update(kind="npz", name="", train=c.data.train, val=c.data.val, test=c.data.test)
        paper.data.batch = min(paper.data.batch, TRAIN)
        if not row.startswith(("gaussian", "nsf")):  # their schedule counts passes
            a_pass = -(-TRAIN // paper.data.batch)
            paper.train.update(steps=500 * a_pass, eval_every=a_pass, checkpoint_every=a_pass)
        return paper
    return c


def continuous(c: ConfigDict, row: str) -> None:
    """FFJORD's network, batches and schedule (miniboone.py says where they are from), also for the interpolant, in place."""
    c.parts.net.hidden = (860, 860)
    if row == "ffjord":
        c.parts.field.update(steps=16, kinetic=0.0, jacobian=0.0)
    c.data.batch = 1000
    c.optim.update(weight_decay=1e-6, clip=0.0, schedule="constant", ema=0.0)
    c.train.update(steps=100_000, eval_every=200, checkpoint_every=1000, patience=30)
