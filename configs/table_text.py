"""Characters: bits per character of discrete diffusions (bounds) beside an autoregressive transformer (exact) of the same size and budget.

    python -m experiments.table --config=configs/table_text.py --config.data.path=tinyshakespeare.txt
    python -m experiments.table --config=configs/table_text.py --config.data.path=tinyshakespeare.txt --rows=absorbing,masked,transformer

Models and data are those of text_d3pm.py, and the rows of a budget differ in nothing else. The published numbers, of Austin et al. 2021
(arXiv 2107.03006), are on text8, of 27 characters: they are for the budget `paper`, which needs that file and an accelerator.
"""

from ml_collections import ConfigDict

from configs import text_d3pm

TABLE = dict(
    title="Characters: bits per character",
    source="Austin et al. 2021, on text8 (arXiv 2107.03006)",
    number="bits_per_character",
    unit="bits per character",
    better="lower",
    seeds=1,
    together=False,
    digits=3,
)
BUDGETS = {"cpu": "2,000 steps of 16 windows of 64 characters", "paper": "1,000,000 steps of 512 windows of 256 characters"}
COLUMNS = {"nats": ("nll", 2)}
PUBLISHED = {
    "transformer": 1.23,
    "absorbing": 1.45,
    "masked": None,
    "flow_matching": None,
    "neighbours": 1.59,
    "uniform": 1.61,
}
ROWS = {"": "the row masked"} | {row: text_d3pm.MODELS[row] for row in PUBLISHED}
ROWS |= {f"{row},{budget}": f"{text_d3pm.MODELS[row]}; {budget}" for row in PUBLISHED for budget in BUDGETS}


def get_config(row: str = "") -> ConfigDict:
    name, _, budget = row.partition(",")
    return text_d3pm.get_config(f"text8_{name}" if budget == "paper" else name)
