"""`python -m experiments.train` without the table and the figures at the end, for tests of what comes before them."""

from __future__ import annotations

from experiments import main, train
from vaeflow.commands import train as command

if __name__ == "__main__":
    command.conclude = lambda *_, **__: None
    main.run(train.main)
