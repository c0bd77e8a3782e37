"""The VAE guide's two tables: parameterizations of the posterior's standard deviation, and numbers of latents (MNIST, BCE on intensities).

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once
    python -m experiments.table --config=configs/table_vae_guide.py:paper --config.data.dir=DATA_DIR
    python -m experiments.train --config=configs/table_vae_guide.py:softplus_warm_2,paper --config.data.dir=DATA_DIR --dry_run

Rows are PARAMETERIZATION[_warm]_LATENTS at a budget (cpu unless said).

Protocol, read in the guide's text and its author's code (github hunter-heidenreich/vae, main.py, model.py, trainer.py at 7c7df73):

    network      784-512-2L and L-512-784, tanh, PyTorch's default initialisation; pixel intensities as Bernoulli targets; one draw of z
    std          log_variance exp(s/2); softplus(s) + 1e-8; bounded 10 sigmoid(s) + 1e-8 (our `scaled_sigmoid`)
    optimiser    AdamW 1e-3, betas (0.9, 0.999), weight decay 0.01 on every parameter, no clipping, no averaging of parameters
    warm-up      of the LEARNING RATE: rate (step + 1)/600 in the first 600 steps; the weight of the KL is 1 throughout
    data         the 60,000 training images, batch 100, 150 epochs
    selection    the epoch with the lowest total on the TEST set; one draw of z per image, analytic KL

The text gives neither rate, decay nor batch: those are the code's defaults. Two differences remain: ours are the parameters of the last
step, because test data select nothing here, so the published totals have the advantage of their selection; and our softplus adds 1e-6.
The row `ablation_warm_2` is softplus_warm_2 with weight decay 1e-4 and batch 128 (this table's values until 2026-11) for as many epochs.

Expected: results/table_vae_guide_paper.md: all published rows at the budget paper, three seeds each; ± is the standard deviation over
seeds, 0.4 to 1.6 nats at 2 latents. softplus_warm_2 ends 2.0 nats above the published total, which was selected on test; the other rows
differ by less than 0.8. The ablation has one seed: a direction, not a difference.
"""

from ml_collections import ConfigDict

from configs import mnist_vae
from configs.base import mlp

TABLE = dict(
    title="VAE guide: reconstruction + KL on the MNIST test set",
    source="the guide's tables of parameterizations and of latent dimensions, 150 epochs, selected on test",
    number="neg_elbo",
    unit="nats, BCE on intensities",
    better="lower",
    seeds=3,
    together=False,
    note="the published totals are those of the best epoch on the test set; ours are of the last step, unselected",
)
BUDGETS = {"cpu": "50 epochs", "paper": "150 epochs"}
COLUMNS = {
    "reconstruction [nats]": ("recon", 2),
    "KL [nats]": ("kl", 2),
    "units with KL > 0.1": ("kl_active_units", 1),
}
PUBLISHED = {
    "log_variance_2": 147.84,
    "log_variance_warm_2": 148.04,
    "softplus_2": 148.07,
    "softplus_warm_2": 147.04,
    "bounded_2": 147.79,
    "bounded_warm_2": 148.45,
    "softplus_warm_4": 125.56,
    "softplus_warm_8": 106.31,
    "softplus_warm_16": 100.21,
    "softplus_warm_32": 100.25,
    "ablation_warm_2": None,
}
_LINES = {row: f"{row.replace('_', ' ').rpartition(' ')[0]}, {row.rpartition('_')[2]} latents" for row in PUBLISHED}
_LINES["ablation_warm_2"] = "softplus_warm_2 with weight decay 1e-4, batch 128"
ROWS = {"": "the row softplus_warm_2"} | _LINES | {f"{row},{budget}": f"{_LINES[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}
_STD = {"log_variance": "log_variance", "softplus": "softplus", "bounded": "scaled_sigmoid", "ablation": "softplus"}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "softplus_warm_2").partition(",")
    parameterization, _, latents = row.rpartition("_")
    kind = parameterization.removesuffix("_warm")
    c = mnist_vae.get_config()
    c.model.update(latent=int(latents), std=_STD[kind], std_bound=10.0)
    for part in ("encoder", "decoder"):
        c.parts[part] = mlp(512, activation="tanh") | dict(init="torch")
    c.data.update(batch=128 if kind == "ablation" else 100)
    c.optim.update(weight_decay=1e-4 if kind == "ablation" else 0.01, warmup=600 if parameterization.endswith("_warm") else 0, ema=0.0)
    epoch = 60_000 // c.data.batch
    c.train.update(steps=epoch * (150 if budget == "paper" else 50), log_every=epoch, checkpoint_every=10 * epoch)
    return c
