"""Commands in this process, for the tests: what they print, and the one line that they end with."""

from __future__ import annotations

import contextlib
import importlib
import io

import pytest

from tests.runs import ROOT
from vaeflow.commands import train
from vaeflow.errors import UserError

# A coupling flow of two dimensions, without noise in its loss.
FLOW = (
    *("--config=configs/densities.py", "--config.data.size=640", "--config.data.batch=64", "--config.parts.net.hidden=8"),
    *("--config.parts.steps.n=1", "--config.train.log_every=10", "--config.train.eval_every=10", "--config.train.checkpoint_every=10"),
)


def call(command: str, *words: object) -> str:
    """What `python -m experiments.COMMAND WORDS`, started in the repository, prints. Raises what it raises."""
    out = io.StringIO()
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(out):
        importlib.import_module(f"experiments.{command}").main([str(word) for word in words])
    return out.getvalue()


def train_only(*words: object) -> str:
    """`call("train", ...)` without the table and the figures at the end, which have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "conclude", lambda *_, **__: None)
        return call("train", *words)


def refusal(command: str, *words: object) -> str:
    """The one line of a command that must fail."""
    try:
        out = call(command, *words)
    except UserError as error:
        line = str(error)
        assert line and "\n" not in line, line
        return line
    raise AssertionError(f"it was accepted, and printed: {out[-500:]}")
