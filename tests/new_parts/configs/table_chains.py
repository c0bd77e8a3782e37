"""Markov models of sequences by their order: the gap to the entropy of a first-order chain.

    python -m experiments.table --config=configs/table_chains.py

Rows are order_N. The chain's transition probabilities are known, so the number is the gap between the model's test NLL and the true one.
No numbers are published.
"""

from ml_collections import ConfigDict

from configs import toy_families

TABLE = dict(
    title="Markov models of sequences of 12 symbols",
    source="no numbers are published",
    number="kl_to_truth",
    unit="nats",
    better="lower",
    seeds=1,
    together=False,
    digits=3,
)
BUDGETS = {"cpu": "60 steps of 64 sequences", "paper": "6,000 steps"}
PUBLISHED = {f"order_{n}": None for n in (1, 2)}
COLUMNS = {"NLL [nats]": ("nll", 3)}
ROWS = {row: f"Markov model of {row.replace('_', ' ')}" for row in PUBLISHED}


def get_config(row: str = "order_1") -> ConfigDict:
    row, _, budget = row.partition(",")
    c = toy_families.get_config("markov")
    c.model.order = int(row.rpartition("_")[2])
    steps = 6000 if budget == "paper" else 60
    c.train.update(steps=steps, log_every=20, eval_every=30, checkpoint_every=60)
    return c
