"""Rows of a table that evaluate the run of another row: EVALUATE."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest

from tests.commands import call, refusal
from tests.runs import ROOT
from tests.test_table import TABLE, cell, results, words
from vaeflow.errors import UserError
from vaeflow.evaluation.results import flat
from vaeflow.runs.metrics import read_metrics
from vaeflow.tables import report, runner, spec

EVALUATE = 'EVALUATE = {"cool": ("small", {"sample.temperature": 0.5})}\n'
ENERGY = '    c.eval.measures = ("likelihood", "sample_quality")\n    c.eval.settings = dict(sample_quality=dict(names=("energy",)))\n'


def table(folder: Path, evaluate: str = EVALUATE, more: str = ENERGY, published: str = '{"cool": None, "small": 100.0}') -> Path:
    """The table of tests/test_table.py with one row that is trained, one seed, and EVALUATE."""
    text = TABLE.replace('{"small": 100.0, "large": None, "swap": 90.0}', published).replace('{"swap": ("small", "init_from")}', "{}")
    text = text.replace('(("large", "small"),)', '(("cool", "small"),)').replace("seeds=2, together=True", "seeds=1, together=True")
    text = text.replace('("iwae.log_p", 2)', '("iwae.log_p", 2), "energy": ("sample_quality.energy", 4)')
    (folder / "table_digits.py").write_text(text.replace("    return c\n", f"{more}    return c\n") + evaluate)
    return folder


def planned(folder: Path, *overrides: tuple[str, str]) -> spec.Plan:
    return spec.plan(str(folder / "table_digits.py"), overrides)


def cells(folder: Path, *overrides: tuple[str, str]) -> dict[str, spec.Cell]:
    return {c.row: c for c in spec.cells(planned(folder, *overrides), folder / "runs", 0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The table, by the row that is not trained alone."""
    folder = table(tmp_path_factory.mktemp("evaluate"))
    (folder / "printed").write_text(call("table", *words(folder, "--rows=cool")))
    return folder


def test_the_run_is_trained_once_and_evaluated_twice(folder):
    said = (folder / "printed").read_text()
    from_small = "evaluated from the run of small with sample.temperature=0.5"
    assert "\nsmall (seed 0)\n" in said and f"\ncool (seed 0): {from_small}\n" in said
    workdir = cell(folder, "small_seed0")
    assert [path.name for path in workdir.parent.iterdir()] == ["small_seed0"]
    own, cool = (flat(json.loads((workdir / name).read_text())) for name in ("results.json", "results+sample.temperature=0.5.json"))
    rows = results(folder)
    assert list(rows) == ["cool", "small"] and rows["cool"]["seeds"] == rows["small"]["seeds"] == [0]
    assert rows["cool"]["more"]["energy"] == [cool["sample_quality.energy"]] != [own["sample_quality.energy"]]
    assert rows["small"]["more"]["energy"] == [own["sample_quality.energy"]]
    for key in ("s/epoch", "MB"):
        assert rows["cool"]["more"][key] == rows["small"]["more"][key] and len(rows["small"]["more"][key]) == 1
    assert rows["cool"]["seconds_trained"] == rows["small"]["seconds_trained"] and rows["cool"]["steps"] == 20
    assert rows["cool"]["evaluated_from"] == {"row": "small", "with": {"sample.temperature": "0.5"}}
    assert from_small in rows["cool"]["what"] and from_small in (folder / "results" / "table_digits.md").read_text()
    assert "evaluated_from" not in rows["small"] and "evaluated" not in rows["small"]["what"]


def test_checks_and_pairs_are_of_the_rows_own_evaluation(folder):
    workdir = cell(folder, "small_seed0")
    for name, temperature in (("diagnostics.json", 1.0), ("diagnostics+sample.temperature=0.5.json", 0.5)):
        assert json.loads((workdir / name).read_text())["iwae"]["sample"]["temperature"] == temperature
    (pair,) = json.loads((folder / "results" / "table_digits.json").read_text())["pairs"]
    assert pair["rows"] == ["cool", "small"] and pair["difference"] == 0  # the likelihood does not depend on the temperature


def test_only_what_is_missing_is_evaluated_again(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "table")
    here = tmp_path / "table"
    plan, workdir = planned(here), cell(here, "small_seed0")
    small, cool = cells(here)["small"], cells(here)["cool"]
    assert runner.done(plan, small) and runner.done(plan, cool)
    assert "(seed 0)" not in call("table", *words(here))
    stored = workdir / "results+sample.temperature=0.5.json"
    found = json.loads(stored.read_text())
    for change in ({"steps": 10}, {"sample": found["sample"] | {"temperature": 0.6}}, {"eval": found["eval"] | {"k": 5}}):
        stored.write_text(json.dumps(found | change))
        assert not runner.done(plan, cool) and runner.done(plan, small)
    before = (workdir / "results.json").read_bytes(), len(read_metrics(workdir))
    said = call("table", *words(here))
    assert "\ncool (seed 0)" in said and "\nsmall (seed 0)" not in said
    assert before == ((workdir / "results.json").read_bytes(), len(read_metrics(workdir))) and runner.done(plan, cool)
    other = cells(table(here, EVALUATE.replace("0.5", "0.6")))["cool"]
    assert not runner.done(planned(here), other) and other.directory == workdir
    checks = json.loads((workdir / "diagnostics+sample.temperature=0.5.json").read_text())
    checks["iwae"]["sample"]["temperature"] = 0.6
    (workdir / "diagnostics+sample.temperature=0.5.json").write_text(json.dumps(checks))
    assert not runner.done(plan, cool) and runner.done(plan, small)


def test_sampling_options_of_the_command_line_are_those_of_the_same_runs(folder, tmp_path):
    """They train nothing, unless a measure of samples selects the checkpoint."""
    cool = ("sample.temperature", "0.25")
    assert cells(folder, cool)["small"].directory == cells(folder)["small"].directory
    assert not runner.done(planned(folder, cool), cells(folder, cool)["small"])  # its results are of another temperature
    assert cells(folder, cool)["cool"].asked().sample.temperature == 0.5
    selecting = table(tmp_path, more='    c.eval.select = "sample_quality.energy"\n')
    assert cells(selecting, cool)["small"].directory.parent.name == "table_digits_cpu+sample.temperature=0.25"


def test_a_row_whose_run_fails_gives_its_reason(tmp_path):
    lacking = table(tmp_path, more="    c.data.update(kind='npz', path='/nowhere.npz')\n")
    said = refusal("table", *words(lacking))
    assert "2 of 2 cells could not be computed: small_seed0, cool_seed0" in said
    assert "it is evaluated from the run of small:" in results(tmp_path)["cool"]["failed"][0]
    assert all("/nowhere.npz" in results(tmp_path)[row]["failed"][0] for row in ("small", "cool"))
    assert [path.name for path in cell(tmp_path, "small_seed0").glob("failed*")] == ["failed.txt"]


def test_an_evaluation_that_fails_leaves_the_run(folder, tmp_path):
    """Its reason is kept beside the run, which is done."""
    shutil.copytree(folder / "runs", tmp_path / "runs")
    table(tmp_path, 'EVALUATE = {"cool": ("small", {"eval.settings.sample_quality.neighbours": 400})}\n')
    assert "1 of 2 cells could not be computed: cool_seed0" in refusal("table", *words(tmp_path))
    rows = results(tmp_path)
    assert "too few" in rows["cool"]["failed"][0] and rows["small"]["seeds"] == [0] and not rows["small"]["failed"]
    call("table", *words(tmp_path, "--show"))
    assert "too few" in results(tmp_path)["cool"]["failed"][0]


@pytest.mark.parametrize(
    ("evaluate", "more", "held"),
    [
        ('{"col": ("small", {"sample.temperature": 1})}', "", ["EVALUATE: the row='col'", "did you mean 'cool'"]),
        ('{"cool": ("smal", {"sample.temperature": 1})}', "", ["EVALUATE['cool']: the row='smal'", "did you mean 'small'"]),
        ('{"cool": ("small", {"eval.k": 5}), "small": ("cool", {"eval.k": 6})}', "", ["EVALUATE['cool']", "'small' is one of EVALUATE"]),
        ('{"cool": ("small", {"optim.ema": 0.5})}', "", ["EVALUATE['cool']: config.optim.ema", "known: config.eval.*, config.sample.*"]),
        ('{"cool": ("small", {"data.dir": "x"})}', "", ["EVALUATE['cool']: config.data.dir", "known: config.eval.*"]),
        ('{"cool": ("small", {"sample.steps": 1})}', "", ["EVALUATE['cool']: config.sample: the key='steps'", "n, temperature"]),
        ('{"cool": ("small", {"eval.k": "many"})}', "", ["EVALUATE['cool']: config.eval.k='many'", "int"]),
        ('{"cool": "small"}', "", ["EVALUATE['cool']='small' is invalid", "(ROW, {KEY: VALUE, ...})"]),
        ('{"cool": ("small", {})}', "", ["EVALUATE['cool']", "is invalid"]),
        (EVALUATE[11:-1], 'AFTER = {"cool": ("small", "init_from")}', ["EVALUATE['cool']", "AFTER", "is not trained"]),
        (EVALUATE[11:-1], 'SHARED = {"cool": "table_other"}', ["EVALUATE['cool']", "SHARED", "is not trained"]),
        (
            EVALUATE[11:-1],
            'AFTER = {"small": ("cool", "init_from")}',
            ["EVALUATE['cool']", "'small' could start from"],
        ),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path, evaluate, more, held):
    with pytest.raises(UserError) as error:
        planned(table(tmp_path, f"EVALUATE = {evaluate}\n{more}\n"))
    assert all(part in str(error.value) for part in held), error.value


def test_an_invalid_option_is_said_before_anything_is_trained(tmp_path):
    for values, held in (('{"sample.temperature": -1}', "sample.temperature=-1"), ('{"eval.measures": "iwe"}', "eval.measures='iwe'")):
        said = refusal("table", *words(table(tmp_path, f'EVALUATE = {{"cool": ("small", {values})}}\n')))
        assert said.startswith("EVALUATE['cool']: ") and held in said and not (tmp_path / "runs").exists()


def test_stored_numbers_of_another_evaluation_are_not_kept(folder, tmp_path):
    """--keep: with no cells here, the row keeps its numbers as long as its values are the same."""
    shutil.copytree(folder / "results", tmp_path / "results")
    for temperature, kept in ((0.5, True), (0.6, False)):
        plan = planned(table(tmp_path, EVALUATE.replace("0.5", str(temperature))))
        report.write(plan, spec.cells(plan, tmp_path / "none", 0), tmp_path / "results", keep=True)
        assert ("mean" in results(tmp_path)["cool"]) is kept and "mean" in results(tmp_path)["small"]


def test_a_row_with_a_frozen_model_and_a_row_that_the_config_does_not_know(tmp_path):
    text = (ROOT / "configs" / "table_contrastive.py").read_text()
    text = text.replace('"ncp": None}', '"ncp": None, "cool": None}').replace("for row in PUBLISHED", 'for row in ("vae", "ncp")')
    for value, message in ((0.5, ""), (-1.0, r"EVALUATE\['cool'\]: sample.temperature=-1.0 is invalid")):
        path = tmp_path / "table_cool.py"
        path.write_text(f"{text}\nEVALUATE = {{'cool': ('ncp', {{'sample.temperature': {value}}})}}\n")
        p = spec.plan(str(path))
        todo = spec.cells(p, tmp_path, 1)
        assert [cell.row for cell in todo if cell.seed == 0] == ["vae", "ncp", "cool"]
        with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
            runner._check_overrides(p, todo)


def test_a_table_of_curves_has_no_figure_before_a_row_of_one_is_evaluated(folder, tmp_path):
    """The trained run is the first cell that is done, and it is not on a curve."""
    more = 'CURVES = {"cool": ("digits", "euler")}\nTABLE["against"] = "energy"\n'
    plan = planned(table(tmp_path, EVALUATE + more))
    here, absent = cells(folder), {c.row: c for c in spec.cells(plan, tmp_path / "none", 0)}
    for cool, drawn in ((absent["cool"], False), (here["cool"], True)):
        report.write(plan, [here["small"], cool], tmp_path / "results", keep=False)
        assert (tmp_path / "results" / "table_digits.png").exists() is drawn and list(results(tmp_path))
