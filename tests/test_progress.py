"""Progress: a first line at once, phases with their share and the time left, on a terminal and in plain lines."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import types

import pytest

from tests.runs import ROOT, SMALL, environment, on_a_terminal
from vaeflow.runs import progress


def test_plain_lines_of_what_lasts(capsys):
    with progress.reporting(every=0.1), progress.phase("a long one"):
        time.sleep(0.5)  # a compilation: nothing advances
        for i in range(1, 6):
            progress.advance(i, 5)
            time.sleep(0.12)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a long one: 0 s"
    assert any(re.fullmatch(r"a long one: \d0%, \d s left", line) for line in lines)


def test_short_phases_are_silent_when_piped_and_nothing_is_said_without_a_reporter(capsys):
    with progress.reporting(), progress.phase("a short one"):
        progress.advance(1, 2)
    with progress.phase("in a notebook"):
        progress.advance(1, 2)
    progress.advance(1, 2)
    assert capsys.readouterr().out == ""


def test_the_inner_phase_is_shown_and_mute_ends_all(capsys):
    with progress.reporting(every=0.05), progress.phase("outer"):
        with progress.phase("inner"):
            time.sleep(0.3)
            progress.mute()  # before the outer phase is the one that is shown
            first = capsys.readouterr().out
        time.sleep(0.2)
    assert "inner" in first and "outer" not in first and capsys.readouterr().out == ""


def test_another_loop_in_the_same_phase_starts_anew():
    one = progress._Phase("two loops")
    one.advance(0.5)
    one.advance(1.0)
    one.advance(0.25)
    assert one.first is not None and one.first[1] == 0.25 and one.line().startswith("two loops: 25%, ")


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


SCRIPT = """
import time
from vaeflow.runs import progress
from vaeflow.runs.metrics import Progress
with progress.reporting():
    with progress.phase("evaluating"):
        progress.advance(1, 4)
        time.sleep(0.2)
    with Progress(100) as bar:
        bar.start(0)
        bar.update(50, 1.25, 10.0)
        with progress.phase("validation"):
            time.sleep(0.2)
        bar.update(100, 1.0, 10.0)
print("the end")
"""


def test_one_live_line_on_a_terminal():
    """Phases, and phases within training, share it: rich has one live display at a time."""
    shown = on_a_terminal(SCRIPT)
    for held in ("evaluating: 25%", "step 50/100", "validation: 0 s", "step 100/100", "the end"):
        assert held in shown
    assert shown.index("step 50/100") < shown.index("validation") < shown.index("step 100/100")


def test_the_first_line_comes_before_jax(tmp_path):
    """It has the config, the overrides and the workdir; at that moment jax is not imported."""
    code = (
        "import sys, builtins, experiments.train\n"
        "real = builtins.print\n"
        "def first(*words, **options):\n"
        "    real(*words, **options)\n"
        "    real('jax' in sys.modules, flush=True)\n"
        "    raise SystemExit\n"
        "builtins.print = first\n"
        "experiments.train.main(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, *SMALL, f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    line, imported = done.stdout.splitlines()
    assert line.startswith("train configs/digits_vae.py --config.model.latent=2 ") and line.endswith(f"--workdir={tmp_path / 'run'}")
    assert imported == "False"


def test_a_closed_pipe_ends_the_phases_without_a_trace(monkeypatch):
    def closed(*_, **__):
        raise BrokenPipeError

    with progress.reporting(every=0.02), progress.phase("long"):
        monkeypatch.setattr("builtins.print", closed)
        reporter = progress._current
        time.sleep(0.2)
        assert reporter is not None and not reporter._thread.is_alive()
        monkeypatch.undo()


def test_a_notebooks_cell_has_one_line_that_is_rewritten(monkeypatch):
    """A stand-in of IPython: the first line is displayed, later ones update its handle; phases clear it at their end."""
    shown: list[str] = []
    handle = types.SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    def display(data, raw, display_id):
        shown.append(f"new {data['text/plain']}")
        return handle

    shell = types.SimpleNamespace(kernel=object())
    fake = types.SimpleNamespace(get_ipython=lambda: shell, display=types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    with progress.reporting(), progress.phase("drawing"):
        progress.advance(1, 2)
    assert shown[0].startswith("new drawing") and sum(line.startswith("new") for line in shown) == 1
    assert "drawing: 50%" in [line for line in shown if line][-1] and shown[-1] == ""
    shell.kernel = None  # IPython on a terminal
    assert progress.cell_line() is None
