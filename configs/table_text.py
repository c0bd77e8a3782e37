"""Characters: bits per character of discrete diffusions (bounds) beside an autoregressive transformer (exact) of the same size and budget.

    python -m experiments.table --config=configs/table_text.py --config.data.path=tinyshakespeare.txt
    python -m experiments.table --config=configs/table_text.py --config.data.path=tinyshakespeare.txt --rows=absorbing,masked,transformer

Models and data are those of text_d3pm.py, and the rows of a budget differ in nothing else. The rows text8_* are those of Austin et al.
2021 (arXiv 2107.03006), text8 with 27 characters at the budget `paper`; they need that file and an accelerator.
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
BUDGETS = {"cpu": "2,000 steps of 16 windows of 64 characters", "paper": "text8 alone: 1,000,000 steps of 512 windows of 256 characters"}
COLUMNS = {"nats": ("nll", 2)}
PUBLISHED = {
    "transformer": None,
    "absorbing": None,
    "masked": None,
    "flow_matching": None,
    "uniform": None,
    "neighbours": None,
    "text8_absorbing": 1.45,
    "text8_neighbours": 1.59,
    "text8_uniform": 1.61,
}
ROWS = text_d3pm.ROWS


def get_config(row: str = "") -> ConfigDict:
    return text_d3pm.get_config(row.partition(",")[0])
