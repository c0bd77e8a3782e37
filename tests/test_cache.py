"""A second run of the same config compiles nothing: training, evaluation and figures come from the persistent cache."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cache import runs
from tests.commands import FLOW
from tests.runs import environment


def test_a_second_run_of_the_same_config_misses_nothing(tmp_path: Path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)  # the suite keeps no small programs, the commands do
    first, second = runs([*FLOW, "--config.train.steps=20"], tmp_path)
    assert first.code == second.code == 0, first.output + second.output
    assert "figures:" in second.output
    assert first.missed, "the first run found an empty cache"
    assert len(second.programs) == len(first.programs)
    assert not second.missed
