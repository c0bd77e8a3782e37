"""The workdir: one run, one config, one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from vaeflow.config import plain
from vaeflow.errors import UserError
from vaeflow.run import load_run
from vaeflow.runs import checksums, config_values, provenance, upgrade, workdir
from vaeflow.runs.files import write_atomic
from vaeflow.training.configure import complete


def config() -> Any:
    return complete(
        ConfigDict(
            {
                "seed": 0,
                "model": {"kind": "vae", "latent": 8, "prior": ""},
                "parts": {"maf": {"kind": "chain", "of": ("made", "flip")}},
                "data": {"kind": "digits", "dir": "", "workers": 2},
                "optim": {"learning_rate": 1e-3, "ema": 0.999},
                "train": {"steps": 100},
                "eval": {"k": 100},
                "sample": {"n": 64},
                "devices": {"mapping": "auto"},
            }
        )
    )


def test_the_config_survives(tmp_path: Path):
    workdir.prepare(tmp_path / "new" / "run", config())
    workdir.prepare(tmp_path / "new" / "run", config())  # going on: tuples and lists count as equal
    read: Any = workdir.read_config(tmp_path / "new" / "run")
    assert read.is_locked and read.optim.learning_rate == 1e-3 and list(read.parts.maf.of) == ["made", "flip"]
    launches = json.loads((tmp_path / "new" / "run" / "env.json").read_text())
    assert len(launches) == 2
    assert {"time", "command", "commit", "diff", "python", "versions", "devices"} <= set(launches[0])
    assert launches[0]["versions"]["jax"] and launches[0]["devices"]


def test_another_config_is_refused_with_the_differing_keys(tmp_path: Path):
    workdir.prepare(tmp_path, config())
    other = config()
    with other.unlocked():
        other.optim.learning_rate = 3e-3
        other.parts.maf.of = ("made",)
        other.optim.clip = 1.0
        del other.model["prior"]
        other.eval.k = 7
    for call in (workdir.prepare, workdir.is_finished):
        with pytest.raises(UserError) as refused:
            call(tmp_path, other)
        line = str(refused.value)
        assert "\n" not in line and str(tmp_path) in line
        assert "optim.learning_rate was 0.001, is now 0.003" in line
        assert 'parts.maf.of was ["made", "flip"], is now ["made"]' in line
        assert "optim.clip was 0.0, is now 1.0" in line
        assert "model.prior" not in line  # its default
        assert "eval.k" not in line and "steps" not in line
    assert workdir.read_config(tmp_path).to_dict()["optim"]["learning_rate"] == 1e-3


def test_what_is_not_learned_from_may_change(tmp_path: Path):
    workdir.prepare(tmp_path, config())
    other = config()
    other.data.dir, other.data.workers, other.eval.k, other.sample.n, other.devices.mapping = "elsewhere", 8, 5000, 16, "pmap"
    workdir.prepare(tmp_path, other)
    assert workdir.read_config(tmp_path).to_dict()["data"]["dir"] == "elsewhere"


def test_the_version_is_in_the_file_alone(tmp_path: Path):
    workdir.prepare(tmp_path, config())
    stored = json.loads((tmp_path / "config.json").read_text())
    assert next(iter(stored.items())) == ("version", upgrade.VERSION)
    assert plain(workdir.read_config(tmp_path)) == plain(config()) and not workdir.is_older(tmp_path)


def test_a_run_of_an_older_version_is_read_and_not_resumed(tmp_path: Path):
    workdir.write_json(tmp_path / "config.json", config().to_dict())
    before = (tmp_path / "config.json").read_text()
    read = workdir.read_config(tmp_path)
    assert read.is_locked and upgrade.ADDED["eval"].items() <= read.to_dict()["eval"].items() and workdir.is_older(tmp_path)
    assert workdir.differences(tmp_path, read) == [] and not workdir.is_finished(tmp_path, read)
    for call in (workdir.prepare, workdir.must_agree):
        with pytest.raises(UserError, match=rf"older version \(config version 1, now {upgrade.VERSION}\).*--config.init_from={tmp_path}$"):
            call(tmp_path, read)
    assert (tmp_path / "config.json").read_text() == before


def test_a_run_of_a_newer_version_is_refused_with_its_file(tmp_path: Path):
    workdir.write_json(tmp_path / "config.json", {"version": upgrade.VERSION + 1, **config().to_dict()})
    line = rf"^{tmp_path / 'config.json'}: config version {upgrade.VERSION + 1} is newer than {upgrade.VERSION}"
    for call in (workdir.read_config, load_run, lambda directory: workdir.prepare(directory, config())):
        with pytest.raises(UserError, match=line):
            call(tmp_path)


def test_finished(tmp_path: Path):
    assert not workdir.is_finished(tmp_path / "none", config())
    workdir.prepare(tmp_path, config())
    assert not workdir.is_finished(tmp_path, config())
    for step, done in ((90, ""), (100, "finished all 100 steps")):
        newest = tmp_path / "checkpoints" / "last" / str(step)
        newest.mkdir(parents=True)
        (newest / "data").write_text("x")
        checksums.write(newest, {"done": done})
        workdir.write_json(tmp_path / "results.json", {})
        assert workdir.is_finished(tmp_path, config()) == bool(done)
    (newest / "data").write_text("y")
    assert not workdir.is_finished(tmp_path, config())  # damaged: the run resumes from the step before


def test_what_is_no_workdir(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist"):
        workdir.read_config(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no config.json: is it the workdir of a run\?"):
        workdir.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        workdir.read_config(tmp_path)
    with pytest.raises(UserError, match="cannot be made"):
        workdir.prepare(tmp_path / "config.json" / "run", config())


def test_only_allowed_sections_are_overridden(tmp_path: Path):
    workdir.prepare(tmp_path, config())
    known = r"known: config.eval.\*, config.sample.\*, config.data.dir, config.data.path, config.data.cache_dir"
    with pytest.raises(UserError, match=f"config.optim.ema cannot be changed in a run that is trained; {known}"):
        load_run(tmp_path, [("optim.ema", "0.5")])
    for section in ("eval", "sample"):
        with pytest.raises(UserError, match="'j' is unknown"):
            load_run(tmp_path, [(f"{section}.j", "5")])


def test_sampling_options_decide_what_a_measure_of_samples_selects(tmp_path: Path):
    """They are free in a run that selects by its loss; the number of samples in a figure is free in all."""
    for select, bound in (("loss", False), ("sample_quality.energy", True)):
        one, cooler, fewer = config(), config(), config()
        for c, changes in ((one, {}), (cooler, {"temperature": 0.5}), (fewer, {"n": 9})):
            with c.unlocked():
                c.eval.select = select
                c.sample = ConfigDict({"n": 64, "temperature": 1.0} | changes)
        workdir.prepare(tmp_path / select, one)
        assert workdir.differences(tmp_path / select, cooler) == ["sample.temperature was 1.0, is now 0.5"] * bound
        assert config_values.changed(one, cooler) == ["sample.temperature=0.5"] * bound
        assert not workdir.differences(tmp_path / select, fewer) and not config_values.changed(one, fewer)


HOLD = """
import sys, time, os
from vaeflow.runs import config_values, workdir
with workdir.lock(sys.argv[1]):
    if os.fork() == 0:  # a data worker that outlives a killed run
        time.sleep(20)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_in_a_workdir_and_a_killed_one_lets_go(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {holder.pid}"), workdir.lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with workdir.lock(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"
        os.killpg(holder.pid, signal.SIGKILL)  # the worker


def test_what_a_table_writes_is_no_change_of_the_code_and_a_new_file_is(tmp_path: Path, monkeypatch):
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *words], check=True, capture_output=True)

    for name in ("results/table.md", "vaeflow/runs/provenance.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "vaeflow" / "runs" / "provenance.py"))
    (tmp_path / "results" / "table.md").write_text("2\n")
    provenance.source_state.cache_clear()
    assert provenance.source_state()["diff"] == ""
    (tmp_path / "vaeflow" / "new.py").write_text("3\n")
    provenance.source_state.cache_clear()
    assert provenance.source_state()["diff"] == "vaeflow/new.py"
    provenance.source_state.cache_clear()


def test_without_a_repository(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "vaeflow" / "runs" / "provenance.py"))
    provenance.source_state.cache_clear()
    assert provenance.source_state() == {"commit": "", "status": "", "diff": ""}
    provenance.source_state.cache_clear()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
