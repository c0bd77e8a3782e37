"""The IWAE paper's Table 2: a trained VAE continues with the IWAE objective, a trained IWAE with the VAE's (MNIST, one stochastic layer).

    python -m experiments.table --config=configs/table_iwae_1.py --config.data.dir=DATA_DIR --rows=vae_1_1,iwae_1_50     # if not there yet
    python -m experiments.table --config=configs/table_iwae_2.py --config.data.dir=DATA_DIR

The first two rows are cells of table_iwae_1.py; the others take 3^(stages - 1) more passes at 1e-4.
"""

from ml_collections import ConfigDict

from configs import mnist_iwae, table_iwae_1

TABLE = table_iwae_1.TABLE | dict(
    title="IWAE, Table 2: NLL on the MNIST test set when the objective is swapped",
    source="Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519v3, Table 2 (L_5000)",
    note=table_iwae_1.NOTE + "; a swapped run starts Adam anew (there it is carried over)",
)
BUDGETS = {"cpu": "13 passes, then 9; IWAE-500", "paper": "3,280 passes, then 2,187; IWAE-5000"}
PUBLISHED = {"vae_1_1": 86.76, "vae_then_iwae": 84.88, "iwae_1_50": 84.78, "iwae_then_vae": 86.02}
AFTER = {"vae_then_iwae": ("vae_1_1", "init_from"), "iwae_then_vae": ("iwae_1_50", "init_from")}
SHARED = {row: "table_iwae_1" for row in ("vae_1_1", "iwae_1_50")}
PAIRS = (("vae_then_iwae", "vae_1_1"), ("iwae_then_vae", "iwae_1_50"), ("iwae_1_50", "vae_then_iwae"))
COLUMNS = {"active units": ("active_units", 1)}
ROWS = {"": "the row vae_then_iwae"} | {row: mnist_iwae.ROWS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{mnist_iwae.ROWS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    return table_iwae_1.get_config(row or "vae_then_iwae")
