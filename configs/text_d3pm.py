"""Discrete diffusion of characters beside an autoregressive transformer of the same size: D3PM, masked diffusion, flow matching.

    python -m experiments.train --config=configs/text_d3pm.py:masked --config.data.path=tinyshakespeare.txt --workdir=runs/text_masked
    python -m experiments.sample --workdir=runs/text_masked --config.sample.steps=16 --config.sample.n=8
    python -m experiments.sample --workdir=runs/text_masked --config.sample.remask=0.2

The file is any text; windows of 64 characters, the last 5 percent of the file for testing, those before for validation. All models have
the same number of parameters, within 10 percent, and 48 numbers per character: the diffusions a transformer of 2 blocks that the time
modulates (dit), the autoregressive model a causal one of 3. D3PM has T = 1000 and the cross-entropy's weight of 0.01 for text.

Measured on tinyshakespeare (65 characters, 871 test windows, seed 0, averaged parameters), bits per character ± standard error; bounds are
means of 20 draws, at 6,000 steps (--config.train.steps=6000) of 10:

    row             2,000 steps, 4 to 7 minutes on a busy core      6,000 steps
    transformer     2.959 ± 0.010   exact                           not run
    absorbing       4.551 ± 0.012                                   3.714 ± 0.015
    flow_matching   4.673 ± 0.016                                   not run
    masked          4.795 ± 0.020                                   3.942 ± 0.018

The bound of `masked` is worse than that of `absorbing` at both budgets, though with T = 1000 the two bounds are nearly the same. The loss
differs: `masked` weighs the cross-entropy by 1 / t, whose draws vary much, and `absorbing` adds ten times the unweighted cross-entropy
(0.01 T). We think that its quieter gradient learns faster; neither is near its end, nor near the transformer. uniform and neighbours
were not run.
"""

from ml_collections import ConfigDict

from configs.base import base

MODELS = {
    "uniform": "D3PM, uniform transitions, cosine schedule",
    "absorbing": "D3PM, absorbing state, T = 1000",
    "neighbours": "D3PM, transitions to characters with like neighbours, mutual-information schedule",
    "masked": "masked diffusion in continuous time (MDLM, MD4): alphabar = 1 - t, the bound alone",
    "flow_matching": "discrete flow matching from masks: the cross-entropy alone",
    "transformer": "autoregressive transformer, exact",
}
ROWS = {"": MODELS["masked"], **MODELS, **{f"text8_{name}": f"{line}; text8's sizes" for name, line in MODELS.items()}}


def get_config(row: str = "") -> ConfigDict:
    name = row or "masked"
    large, kind = name.startswith("text8_"), name.removeprefix("text8_")
    width, depth, heads, length = (768, 12, 12, 256) if large else (48, 2, 4, 64)
    c = base()
    c.data.update(kind="text", size=length, batch=512 if large else 16, val_fraction=0.05, test_fraction=0.05)
    c.optim.update(learning_rate=2e-4 if large else 2e-3, clip=0.25 if large else 1.0, schedule="cosine", warmup=5000 if large else 100)
    c.train.update(steps=1_000_000 if large else 2000, eval_every=1000, checkpoint_every=1000)
    c.eval.update(measures=("likelihood",), k=20, chunk=20)
    discrete_text(c, kind, width, depth, heads)
    return c


def discrete_text(c: ConfigDict, kind: str, width: int, depth: int, heads: int) -> None:
    """The model `kind` of ROWS, in place."""
    if kind == "transformer":  # without modulation a block is smaller
        c.model = dict(kind="autoregressive")
        c.parts = ConfigDict(dict(net=dict(kind="causal_transformer", width=width, depth=depth * 3 // 2, heads=heads)))
        return
    c.model = dict(kind="categorical")
    c.parts = ConfigDict(dict(net=dict(kind="dit", patch=1, width=width, depth=depth, heads=heads)))
    if kind in ("masked", "flow_matching"):
        c.model.update(corruption="absorbing", timesteps=0)
        c.model.update(dict(vlb=0.0, cross_entropy=1.0) if kind == "flow_matching" else {})
    else:
        c.model.update(corruption=kind, timesteps=1000, cross_entropy=0.01)
