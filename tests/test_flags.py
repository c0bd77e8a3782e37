"""A flag that is a config key, or a common name for one, names the key; --list searches and groups, and prints lines for grep."""

from __future__ import annotations

import subprocess
import sys

import pytest

from experiments.listing import grouped, matching
from tests.commands import call, refusal
from tests.runs import ROOT, SMALL, on_a_terminal, run
from vaeflow.config import rows
from vaeflow.errors import UserError
from vaeflow.override import override
from vaeflow.training.configure import load

VAE, RINGS = "--config=configs/digits_vae.py", "--config=configs/densities.py:rings_realnvp"


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        ("train", ["--steps=100"], "--config.train.steps=100"),
        ("train", [VAE, "--steps", "100"], "--config.train.steps=100"),
        ("train", [VAE, "--steps", "--dry_run"], "--config.train.steps=..."),
        ("train", [VAE, "--seed=1"], "--config.seed=1"),
        ("train", ["--config=no/where.py", "--seed=1"], "--config.seed=1"),
        ("train", [VAE, "--n=3"], "--config.sample.n=3"),
        ("train", ["--config", "configs/densities.py", "--n=3"], "--config.sample.n=3 or --config.parts.steps.n=3"),
        ("train", [VAE, "--batch=64"], "--config.data.batch=64 or --config.eval.batch=64"),
        ("train", [RINGS, "--kind=x"], "--config.data.kind=x, --config.model.kind=x, --config.parts.first.kind=x or one of 6 more"),
        ("train", [VAE, "--lr=3e-4"], "--config.optim.learning_rate=3e-4"),
        ("train", ["--learning-rate", "3e-4"], "--config.optim.learning_rate=3e-4"),
        ("train", [VAE, "--wd=1"], "--config.optim.weight_decay=1"),
        ("train", [VAE, "--bs=8"], "--config.data.batch=8 or --config.eval.batch=8"),
        ("train", [VAE, "--stpes=8"], "--config.train.steps=8"),
        ("train", [VAE, "--latent_dim=8"], "--config.model.latent=8"),
        ("train", [VAE, "--encoder.hidden=8,8"], "--config.parts.encoder.hidden=8,8"),
        ("train", [VAE, "--path=a b"], "'--config.data.path=a b'"),
        ("table", ["--config=configs/table_vae_guide.py", "--lr=1"], "--config.optim.learning_rate=1"),
        ("evaluate", ["--workdir=no/where", "--k=1000"], "--config.eval.k=1000"),
        ("evaluate", ["--batch_size=7"], "--config.eval.batch=7"),
        ("sample", ["--n_samples=7"], "--config.sample.n=7"),
        ("encode", ["--dir=x"], "--config.data.dir=x"),
        ("diagnose", ["--temperature=2"], "--config.sample.temperature=2"),
    ],
)
def test_a_flag_that_is_a_config_key_names_it(command, words, meant, monkeypatch):
    monkeypatch.setattr("sys.argv", [f"experiments/{command}.py"])
    flag = next(word for word in words if not word.startswith("--config") and word.startswith("--") and word != "--workdir=no/where")
    assert refusal(command, *words) == f"{flag.partition('=')[0]} is not a flag of experiments.{command}; did you mean {meant}?"


def test_epochs_are_not_steps():
    line = refusal("train", VAE, "--epochs=10")
    assert line.endswith("did you mean --config.train.steps=...? Training is measured in steps, not in epochs.")
    assert "did you mean 'steps'? Training is measured in steps" in refusal("train", *SMALL, "--config.train.epochs=10")


@pytest.mark.parametrize(
    ("command", "words", "held"),
    [
        ("evaluate", ["--steps=3"], "known: --help, --import"),  # no value of a trained run's training may change
        ("evaluate", ["--lr=3"], "known: --help, --import"),
        ("compare", ["--seed=1"], "known: --help, --output"),  # it reads no config
        ("table", ["--config=configs/table_vae_guide.py", "--seed=3"], "did you mean --seeds?"),
        ("train", ["--dry-run"], "did you mean --dry_run?"),
    ],
)
def test_other_unknown_flags_name_flags(command, words, held):
    line = refusal(command, *words)
    assert held in line and "--config." not in line


def test_a_flag_of_the_command_stays_one():
    assert refusal("sample", "--workdir=no/where", "--seed=1").startswith("workdir=no/where does not exist")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optim.lr", "learning_rate"),
        ("optim.wd", "weight_decay"),
        ("data.bs", "batch"),
        ("sample.n_samples", "n"),
        ("model.z_dim", "latent"),
        ("lr", "config.optim.learning_rate"),
        ("steps", "config.train.steps"),
        ("train.lr", "config.optim.learning_rate"),
        ("optim.epochs", "config.train.steps"),
    ],
)
def test_a_config_key_by_another_name_or_in_another_section(key, meant):
    with pytest.raises(UserError, match=f"did you mean '{meant}'"):
        override(load("configs/digits_vae.py"), key, "1")


def test_a_mistyped_flag_is_said_without_jax():
    script = "import sys; from experiments import train\ntry: train.main(['--confg=x'])\nexcept ValueError: print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "False\n"


KNOWN = [
    ("configs/a.py", "a VAE, and a line of some length that a narrow terminal has to break"),
    ("configs/a.py:iwae", "the IWAE [5 draws]"),
    ("configs/mnist_b.py:16", "Glow"),
]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", (0, 1, 2)),
        ("VAE", (0,)),
        ("iwae", (1,)),
        ("GLOW", (2,)),
        ("a.py*i", (1,)),
        ("*_?.py:1[67]", (2,)),
        ("[5 d", (1,)),
        ("[5 draws]", (1,)),
    ],
)
def test_a_pattern_is_a_text_or_a_glob_in_any_case(pattern, found):
    assert matching(KNOWN, pattern) == [KNOWN[i] for i in found]


def test_a_pattern_without_rows_is_refused_with_close_names():
    code, out, err = run("--list=mnits")
    assert (code, out) == (2, "")
    assert err.startswith("error: --list='mnits' matches no config, row or description; did you mean mnist") and err.count("\n") == 1
    assert "--list alone shows all" in refusal("train", "--list", "qqqq")


def test_rows_in_a_pipe_are_lines_for_grep():
    assert call("train", "--list", "moons_n").splitlines() == [f"{name}  {line}" for name, line in rows() if "moons_n" in name]


def test_rows_on_a_terminal_are_grouped_and_fit():
    lines = grouped(KNOWN, 50).splitlines()
    assert lines[:2] == ["configs/a.py", "  (no row)  a VAE, and a line of some length that"]
    assert lines[2:4] == ["            a narrow terminal has to break", "  :iwae     the IWAE [5 draws]"]
    assert lines[4:] == ["", "configs/mnist_b.py", "  :16  Glow"]
    script = "from experiments.train import main; main(['--list', 'py:moons_'])"
    shown = on_a_terminal(script).splitlines()
    assert shown[0] == "configs/densities.py" and shown[1].startswith("  :moons_nice ")
    assert 100 < max(map(len, shown)) <= 120
