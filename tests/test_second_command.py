"""The natural second command: another seed, an evaluation with other values; what is wrong is said first."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.commands import call, refusal
from tests.runs import ROOT, SMALL
from vaeflow.commands import train
from vaeflow.evaluation.results import flat
from vaeflow.override import override
from vaeflow.runs import workdir
from vaeflow.training.configure import load

STEPS = ("--config.train.steps=20", "--config.train.log_every=10", "--config.train.eval_every=20", "--config.train.checkpoint_every=20")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("second") / "run"
    call("train", *SMALL, *STEPS, f"--workdir={path}")
    return path


def named(*overrides: tuple[str, str], name: str = "configs/digits_vae.py:conv") -> str:
    config, file = load(name), load(name)
    for key, text in overrides:
        override(config, key, text)
    return str(train.default_workdir(name, config, file))


def test_the_default_workdir_follows_the_overrides():
    assert named() == "runs/digits_vae_conv"
    assert named(("seed", "1")) == "runs/digits_vae_conv+seed=1"
    assert named(("train.steps", "20"), ("seed", "1")) == named(("seed", "1"), ("train.steps", "20")) != named(("seed", "1"))
    assert named(("seed", "0"), ("eval.k", "7"), ("devices.mapping", "jit"), ("data.dir", "/elsewhere")) == "runs/digits_vae_conv"
    assert named(("parts.encoder.channels", "4,8")) == "runs/digits_vae_conv+parts.encoder.channels=4,8"
    assert "/" not in named(("init_from", "/a/b")).removeprefix("runs/")


def test_make_train_leaves_the_workdir_to_the_command():
    words = ["make", "-n", "train", "ARGS=--config.seed=1"]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--workdir" not in shown and "--config=configs/digits_vae.py" in shown and "--config.seed=1" in shown
    assert "--workdir=here" in subprocess.run([*words, "WORKDIR=here"], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_another_config_proposes_a_workdir(run):
    line = refusal("train", *SMALL, *STEPS, "--config.seed=1", f"--workdir={run}")
    assert "seed was 0, is now 1" in line and f"--workdir={run}+seed=1 " in line


@pytest.mark.parametrize(
    ("word", "held"),
    [
        ("--config.model.latent=0", "model.latent=0 is invalid; it must be >= 1"),
        ("--config.model.likelihood=bernoulli", "model.likelihood='bernoulli' needs binary data"),
        ("--config.data.batch=5000", "data.batch=5000 is larger than the training split"),
    ],
)
def test_a_wrong_value_is_said_before_the_run_that_is_there(run, word, held):
    assert held in refusal("train", *SMALL, *STEPS, word, f"--workdir={run}")


def test_an_evaluation_with_other_values_keeps_the_runs_own(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = (copy / "results.json").read_bytes()
    text = call("evaluate", f"--workdir={copy}", "--config.eval.k=6", "--config.eval.batch=50")
    assert "IWAE-6" in text and "these numbers are in results+eval.k=6.json; others: results.json" in text
    assert (copy / "results.json").read_bytes() == before
    assert flat(json.loads((copy / "results+eval.k=6.json").read_text()))["k"] == 6
    assert (copy / "results+eval.k=6.npz").is_file()
    call("evaluate", f"--workdir={copy}", "--config.eval.params=last", "--split=val")
    assert (copy / "results_val+eval.params=last.json").is_file() and (copy / "figures+eval.params=last" / "curves.png").is_file()
    text = call("compare", copy, f"--output={tmp_path / 'curves.png'}")
    assert "numbers from results.json of each run; not read, run: results+eval.k=6.json" in text


COOL = "--config.sample.temperature=0.5"
ENERGY = ("--config.eval.measures=sample_quality", "--config.eval.settings.sample_quality.names=energy")


def test_numbers_of_other_sampling_options_are_not_the_runs(run, tmp_path):
    """evaluate: files, a folder of figures and a table that name them; compare says where results are of other options."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = {name: (copy / name).read_bytes() for name in ("results.json", "figures/samples.png")}
    own = call("evaluate", f"--workdir={copy}", *ENERGY)
    text = call("evaluate", f"--workdir={copy}", *ENERGY, COOL)
    assert "samples drawn with temperature=0.5 (the run's own: 1.0)" in text and "samples drawn with" not in own
    named = "results+eval.measures=sample_quality+eval.settings=sample_quality:names:energy"
    cool, warm = (json.loads((copy / f"{named}{end}.json").read_text()) for end in ("+sample.temperature=0.5", ""))
    assert cool["sample"]["temperature"] == 0.5 and warm["sample"]["temperature"] == 1.0
    assert flat(cool)["energy"] != flat(warm)["energy"]
    assert before == {name: (copy / name).read_bytes() for name in before}
    assert (copy / "figures+sample.temperature=0.5" / "samples.png").read_bytes() != before["figures/samples.png"]
    assert not any("temperature" in name for name in warm["figures"])
    assert json.loads(before["results.json"])["sample"] == {"n": 64, "temperature": 1.0}

    text = call("train", *SMALL, *STEPS, COOL, f"--workdir={copy}")
    assert "config.sample differs from this run's: run experiments.evaluate with the same values" in text
    assert "samples drawn with" not in call("compare", copy, run, f"--output={tmp_path / 'curves.png'}")
    (copy / "results.json").write_text(json.dumps(json.loads(before["results.json"]) | {"sample": {"n": 9, "temperature": 0.5}}))
    text = call("compare", copy, run, f"--output={tmp_path / 'curves.png'}")
    assert "samples drawn with" in text and "temperature=0.5" in text and "temperature=1.0" in text
    old = {key: value for key, value in json.loads(before["results.json"]).items() if key != "sample"}  # before it was recorded
    (copy / "results.json").write_text(json.dumps(old))
    assert "samples drawn with" not in call("compare", copy, run, f"--output={tmp_path / 'curves.png'}")


def test_every_command_accepts_sampling_options(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    few = ("--measures=iwae", "--examples=3", "--iwae.k=4")
    text = call("diagnose", f"--workdir={copy}", *few, COOL)
    assert "samples drawn with temperature=0.5 (the run's own: 1.0)" in text and "diagnostics+sample.temperature=0.5.json" in text
    assert json.loads((copy / "diagnostics+sample.temperature=0.5.json").read_text())["iwae"]["sample"]["temperature"] == 0.5
    assert not (copy / "diagnostics.json").exists()
    call("diagnose", f"--workdir={copy}", "--measures=likelihood", "--examples=3", "--config.eval.k=6", "--config.sample.n=9")
    assert json.loads((copy / "diagnostics+eval.k=6.json").read_text())["likelihood"]["settings"]["k"] == 6
    call("explore", f"--workdir={copy}", "--show=kl", COOL)
    assert (copy / "explore+sample.temperature=0.5" / "kl.png").is_file() and not (copy / "explore").exists()
    call("encode", f"--workdir={copy}", COOL)
    assert (copy / "encoded_test+sample.temperature=0.5.npz").is_file() and not (copy / "encoded_test.npz").exists()
    assert "temperature 0.5" in call("sample", f"--workdir={copy}", COOL, "--config.eval.params=last", "--config.sample.n=4")


def test_results_of_an_evaluation_during_training_are_not_the_runs(run, tmp_path):
    """A run whose results.json is of an earlier step is not finished."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = workdir.read_config(copy)
    assert workdir.is_finished(copy, config)
    found = flat(json.loads((copy / "results.json").read_text()))
    (copy / "results.json").write_text(json.dumps(found | {"steps": 10}))
    assert not workdir.is_finished(copy, config)
    call("train", *SMALL, *STEPS, f"--workdir={copy}")
    assert flat(json.loads((copy / "results.json").read_text()))["steps"] == 20


def test_other_data_are_not_the_runs(tmp_path):
    """Rows of the same shape: the path names the default workdir, and neither training nor an evaluation takes them for the run's own."""
    rng = np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0)):
        np.savez(tmp_path / f"{name}.npz", x=rng.normal(size=(90, 2)).astype(np.float32) + shift)
    (tmp_path / "moved").mkdir()
    shutil.copy(tmp_path / "a.npz", tmp_path / "moved" / "a.npz")
    small = ("--config.model.event=2", "--config.data.batch=16", "--config.parts.steps.n=1", "--config.parts.net.hidden=4")
    words = ("--config=configs/own_table.py:npz", *small, *STEPS, f"--workdir={tmp_path / 'run'}")
    call("train", *words, f"--config.data.path={tmp_path / 'a.npz'}")
    line = refusal("train", *words, f"--config.data.path={tmp_path / 'b.npz'}")
    assert "was trained on other data" in line and "'train'" in line
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert "was trained on other data" in refusal("evaluate", f"--workdir={tmp_path / 'run'}", f"--config.data.path={tmp_path / 'b.npz'}")
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    moved = f"--config.data.path={tmp_path / 'moved' / 'a.npz'}"
    assert "finished all 20 steps" in call("train", *words, moved)
    assert named(("data.path", "/x/b.npz"), name="configs/own_table.py:npz") == "runs/own_table_npz+data.path=b.npz"


def test_a_wrong_value_is_said_of_a_finished_run(run):
    assert "eval.k=0 is invalid" in refusal("train", *SMALL, *STEPS, "--config.eval.k=0", f"--workdir={run}")
