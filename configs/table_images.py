"""Bits per dimension of image flows with uniform dequantisation: RealNVP, Glow and MintNet on MNIST and CIFAR-10.

    python -m experiments.prepare --dataset=mnist --data_dir=DATA_DIR      # once, and --dataset=cifar10
    python -m experiments.table --config=configs/table_images.py --config.data.dir=DATA_DIR
    python -m experiments.table --config=configs/table_images.py:paper --config.data.dir=DATA_DIR --rows=cifar10_glow

Rows are DATA_FLOW; the flows are those of configs/mnist_flow.py and configs/cifar10_flow.py, which say where they differ from the papers'.
"""

from ml_collections import ConfigDict

from configs import cifar10_flow, mnist_flow

MODULES = {"mnist": mnist_flow, "cifar10": cifar10_flow}

TABLE = dict(
    title="Image flows: bits per dimension on the test set",
    source=(
        "RealNVP on CIFAR-10: Dinh et al. 2016; Glow on CIFAR-10: Kingma and Dhariwal 2018, Table 2; both on MNIST as FFJORD's Table 2"
        " quotes them; MintNet: Song et al. 2019, not seen again"
    ),
    number="bits_per_dim",
    unit="bits",
    better="lower",
    seeds=1,
    together=False,
    digits=3,
    note=(
        "the flows are about the papers', as mnist_flow.py and cifar10_flow.py say; NLL by one draw of the noise at the paper's budget, as"
        " there, and by five at budget cpu, whose flows are far smaller and trained far shorter"
    ),
)
BUDGETS = {
    "cpu": "smaller flows, one to three passes: at most 18 minutes of one CPU core a cell",
    "paper": "about the papers' sizes and lengths",
}
PUBLISHED = {
    "mnist_realnvp": 1.06,
    "mnist_glow": 1.05,
    "mnist_mintnet": 0.98,
    "cifar10_realnvp": 3.49,
    "cifar10_glow": 3.35,
    "cifar10_mintnet": 3.32,
}


def _line(row: str) -> str:
    data, _, name = row.partition("_")
    return f"{data}: {MODULES[data].ROWS[name].removesuffix(' (cpu)')}"


ROWS = {"": "the row mnist_realnvp"} | {row: _line(row) for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{_line(row)}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    row, _, budget = (row or "mnist_realnvp").partition(",")
    data, _, name = row.partition("_")
    return MODULES[data].get_config(f"{name},{budget or 'cpu'}")
