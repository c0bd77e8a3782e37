"""Contrastive priors on 25 Gaussians in the plane (Aneja et al. 2021): a VAE, and its prior reweighted by a classifier.

    python -m experiments.table --config=configs/table_contrastive.py

Rows are those of configs/gaussians_ncp.py; ncp starts from the VAE of the same seed. The paper prints -0.954 (contrastive prior) and
-2.753 (VAE) and calls them NLL; the larger one is the better one there, so they seem to be log-likelihoods. The positions and the width
of its Gaussians are not known to us, so they do not stand beside ours; what a prior wins, the pair's difference, is 1.799 there.
Expected of budget cpu (three seeds): vae 4.42, ncp 1.52, so that the prior wins 2.90 nats.
"""

from ml_collections import ConfigDict

from configs import gaussians_ncp

TABLE = dict(
    title="Contrastive prior: NLL on 25 Gaussians",
    source="Aneja et al. 2021 print -0.954 (contrastive prior) and -2.753 (VAE), seen once, on data whose scale we do not know",
    number="nll",
    unit="nats",
    better="lower",
    seeds=3,
    together=False,
)
BUDGETS = {
    "cpu": "10,000 and 8,000 steps: about a minute of one CPU core a cell",
    "paper": "ten times as many; the paper's own is not known",
}
PUBLISHED = {"vae": None, "ncp": None}  # on data of another scale no number is comparable
AFTER = {"ncp": ("vae", "model.frozen")}
PAIRS = (("ncp", "vae"),)
ROWS = {"": "the row vae"} | {row: gaussians_ncp.ROWS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{gaussians_ncp.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "vae").partition(",")
    c = gaussians_ncp.get_config(row)
    if budget == "paper":
        c.train.steps *= 10
    return c
