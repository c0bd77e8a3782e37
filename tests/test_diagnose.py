"""experiments.diagnose: its flags, its table and diagnostics.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commands import call, refusal, train_only
from tests.runs import SMALL
from vaeflow.evaluation.measures import MEASURES
from vaeflow.evaluation.results import rounded


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("diagnose") / "vae"
    train_only(*SMALL, "--config.train.steps=10", f"--workdir={workdir}")
    return workdir


def written(workdir: Path, name: str = "diagnostics.json") -> dict:
    return json.loads((workdir / name).read_text())


def test_list_shows_every_check_and_setting():
    text = call("diagnose", "--list")
    for name, check in MEASURES.items():
        assert check.title in text
        for key, value in check.defaults._asdict().items():
            assert f"--{name}.{key}={value}" in text


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (["--measures=iwe"], ["--measures='iwe'", "did you mean 'iwae'", "bdmc"]),
        (["--measures=iwae", "--iwae.kk=3"], ["iwae: the key='kk'", "known: k"]),
        (["--measures=iwae", "--iwae.k=0"], ["iwae.k=0 is invalid; it must be >= 1"]),
        (["--measures=iwae", "--iwae.k=many"], ["iwae.k='many' has the wrong type; it must be int"]),
        (["--measures=ais", "--ais.start=encoder"], ["ais.start='encoder'", "posterior, prior"]),
        (["--measures=iwae", "--ais.chains=3"], ["--ais.chains=3", "not asked for", "--measures=iwae"]),
        (["--measures=iwae", "--aiss.chains=3"], ["the measure='aiss'", "did you mean 'ais'"]),
        (["--measures=iwae", "--examples=1"], ["--examples=1 is invalid; it must be >= 2"]),
        (["--measures=iwae"], ["workdir=nowhere does not exist"]),
        (["--measure=iwae"], ["--measure is not a flag of", "did you mean --measures?"]),
        ([], ["--measures", "known measures: elbo, information"]),
    ],
)
def test_wrong_commands_are_one_line(words, held):
    line = refusal("diagnose", "--workdir=nowhere", *words)
    assert all(word in line for word in held), line


def test_the_table_and_the_file_of_several_checks_one_after_another(vae):
    text = call("diagnose", f"--workdir={vae}", "--measures=iwae", "--examples=7", "--iwae.k=30")
    assert "test split: 7 of 300 examples" in text and "IWAE-30" in text and str(vae / "diagnostics.json") in text
    first = written(vae)["iwae"]
    assert first["settings"] == {"k": 30} and first["examples"] == 7 and first["split"] == "test" and first["params"] == "best"
    assert np.isfinite(first["numbers"]["log_p"]["value"]) and first["numbers"]["log_p"]["se"] > 0
    (line,) = [line.split() for line in text.splitlines() if line.strip().startswith("log_p ")]
    assert line[1:3] == list(rounded(first["numbers"]["log_p"]["value"], first["numbers"]["log_p"]["se"]))

    few = ("--refine.steps=2", "--refine.draws=1", "--refine.k=4")
    call("diagnose", f"--workdir={vae}", "--measures=refine", "--examples=7", *few)
    assert list(written(vae)) == ["iwae", "refine"] and written(vae)["iwae"] == first

    call("diagnose", f"--workdir={vae}", "--measures=iwae", "--examples=7", "--iwae.k=30", "--config.eval.batch=3")
    again = written(vae)["iwae"]["numbers"]
    assert again["log_p"]["value"] == pytest.approx(first["numbers"]["log_p"]["value"], rel=1e-5)  # whatever the batches
    call("diagnose", f"--workdir={vae}", "--measures=iwae", "--examples=3", "--split=val", "--iwae.k=30")
    assert written(vae, "diagnostics_val.json")["iwae"]["split"] == "val" and written(vae)["iwae"]["numbers"] == again


def test_a_check_that_does_not_apply_is_named_before_any_runs(vae):
    before = (vae / "diagnostics.json").read_text() if (vae / "diagnostics.json").exists() else ""
    line = refusal("diagnose", f"--workdir={vae}", "--measures=iwae,hmc", "--hmc.limit=1")
    assert "--measures=hmc does not apply" in line and "hmc.limit=1" in line
    assert before == ((vae / "diagnostics.json").read_text() if before else "")


def test_it_starts_from_the_settings_of_the_run(vae, tmp_path):
    """eval.settings of the workdir's config, then the command line."""
    copy = tmp_path / "vae"
    shutil.copytree(vae, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["eval"]["settings"] = {"iwae": {"k": 21}}
    (copy / "config.json").write_text(json.dumps(stored))
    for words, k in (((), 21), (("--iwae.k=22",), 22)):
        call("diagnose", f"--workdir={copy}", "--measures=iwae", "--examples=3", *words)
        assert written(copy)["iwae"]["settings"] == {"k": k}
    assert "known: k" in refusal("diagnose", f"--workdir={copy}", "--measures=iwae", "--iwae.kk=3")
