"""experiments.table: cells run, resumed and put beside published numbers; what is missing, failed or wrong says so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.commands import call, refusal
from tests.runs import ROOT, environment
from vaeflow.errors import UserError
from vaeflow.evaluation.results import flat
from vaeflow.runs import workdir
from vaeflow.runs.files import with_values
from vaeflow.tables import report, runner, spec
from vaeflow.training import many_seeds

TABLE = '''"""A table for the tests."""
from configs import digits_vae
from configs.base import mlp

TABLE = dict(title="Digits", source="nowhere", number="nll", unit="nats", better="lower", seeds=2, together=True)
BUDGETS = {"cpu": "20 steps", "paper": "200 steps"}
PUBLISHED = {"small": 100.0, "large": None, "swap": 90.0}
AFTER = {"swap": ("small", "init_from")}
PAIRS = (("large", "small"),)
COLUMNS = {"active": ("active_units", 1), "s/epoch": ("epoch_seconds", 4), "MB": ("cost.step_mb", 2), "IWAE": ("iwae.log_p", 2)}
CHECKS = {"iwae": {"k": 4}}
ROWS = {row: f"the {row} one" for row in PUBLISHED}


def get_config(row):
    row, _, budget = row.partition(",")
    c = digits_vae.get_config()
    c.model.latent = 2
    c.parts.encoder = c.parts.decoder = mlp(16 if row == "large" else 8)
    c.data.batch = 16
    c.train.update(steps=200 if budget == "paper" else 20, log_every=10, eval_every=10, checkpoint_every=10)
    c.eval.update(k=4, chunk=2)
    return c
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The table, run once."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "table_digits.py").write_text(TABLE)
    (folder / "printed").write_text(call("table", *words(folder)))
    return folder


def words(folder: Path, *more: str, budget: str = "") -> tuple[str, ...]:
    return (f"--config={folder / 'table_digits.py'}{budget}", f"--runs={folder / 'runs'}", f"--output={folder / 'results'}", *more)


def results(folder: Path) -> dict:
    return {row["row"]: row for row in flat(json.loads((folder / "results" / "table_digits.json").read_text()))["rows"]}


def cell(folder: Path, name: str) -> Path:
    return folder / "runs" / "table_digits_cpu" / name


def test_the_files_hold_the_cells_and_say_what_they_are(folder):
    rows = results(folder)
    assert list(rows) == ["small", "large", "swap"] and all(row["seeds"] == [0, 1] for row in rows.values())
    one, two = (flat(json.loads((cell(folder, f"small_seed{i}") / "results.json").read_text()))["nll"] for i in range(2))
    assert rows["small"]["values"] == [one, two] and rows["small"]["mean"] == pytest.approx((one + two) / 2)
    assert rows["small"]["spread"] == pytest.approx(abs(one - two) / 2**0.5)
    assert rows["small"]["difference"] == pytest.approx((one + two) / 2 - 100) and rows["large"]["difference"] is None
    assert rows["small"]["of_the_papers"] == pytest.approx(0.1) and rows["small"]["estimator"].startswith("IWAE-4, upper bound (ESS ")
    assert len(rows["small"]["ess"]) == 2 and "Upper bound: the mean effective sample size" in (folder / "printed").read_text()
    text = (folder / "results" / "table_digits.md").read_text()
    assert "not the paper's protocol" in text and f"{rows['small']['mean']:.2f}" in text and "table_digits.png" in text
    (pair,) = flat(json.loads((folder / "results" / "table_digits.json").read_text()))["pairs"]
    assert pair["seeds"] == [0, 1] and pair["difference"] == pytest.approx(rows["large"]["mean"] - rows["small"]["mean"], abs=1e-3)
    assert 0 < pair["se_over_examples"] < 1 and len(pair["seed_differences"]) == 2 and pair["degrees_of_freedom"] == 1
    assert "large - small" in text and "t over seeds" in text and "t over seeds" in (folder / "printed").read_text()
    assert "not the paper's protocol" in (folder / "printed").read_text()
    assert (folder / "results" / "table_digits.png").stat().st_size > 10_000


def test_more_columns_are_of_results_checks_and_costs(folder):
    row = results(folder)["large"]
    assert {title: len(values) for title, values in row["more"].items()} == {"active": 2, "s/epoch": 2, "MB": 2, "IWAE": 2}
    found = json.loads((cell(folder, "large_seed1") / "diagnostics.json").read_text())["iwae"]
    assert found["settings"]["k"] == 4 and row["more"]["IWAE"][1] == found["numbers"]["log_p"]["value"]
    assert row["more"]["MB"][0] > results(folder)["small"]["more"]["MB"][0] > 0
    rows = [json.loads(line) for line in (cell(folder, "large_seed0") / "metrics.jsonl").read_text().splitlines()]
    rates = [row["steps_per_second"] for row in rows if row.get("steps_per_second")]  # none of the dispatch that compiles
    assert rates and row["more"]["s/epoch"][0] == pytest.approx(1297 / 16 / np.median(rates))
    assert "s/epoch" in (folder / "results" / "table_digits.md").read_text()


def test_a_row_that_starts_from_another_one_does(folder):
    config = workdir.read_config(cell(folder, "swap_seed1"))
    assert config.init_from == str(cell(folder, "small_seed1").resolve())


def test_a_deleted_cell_is_computed_alone_and_the_same(folder, monkeypatch):
    before = results(folder)
    shutil.rmtree(cell(folder, "large_seed1"))
    monkeypatch.setattr(many_seeds, "fit_together", lambda *_: pytest.fail("it is no group"))
    assert "large (seed 1)" in (said := call("table", *words(folder))) and "small (seed" not in said
    after = results(folder)
    assert after["large"]["values"] == pytest.approx(before["large"]["values"], rel=1e-4)
    assert after["small"]["values"] == before["small"]["values"]


def test_values_of_the_command_line_are_named_and_change_the_cells_alone(folder):
    plan = spec.plan(words(folder, budget=":paper")[0].removeprefix("--config="), [("train.steps", "50"), ("data.dir", "/data")])
    assert report.warning(plan).startswith("train.steps=50: not the paper's protocol")
    row, *_ = report.collected(plan, spec.cells(plan, folder / "nowhere", 1), ())
    assert row["steps"] == 50 and row["of_the_papers"] == pytest.approx(0.25)
    assert report.warning(plan._replace(overrides=[("data.dir", "/data")])) == ""


def test_other_values_have_cells_and_files_of_their_own(folder):
    before = (folder / "results" / "table_digits.md").read_text()
    elsewhere = f"--config.data.cache_dir={folder}"  # where a run is: no value of its own, and no matter of results
    assert "not run" in call("table", *words(folder, "--show", elsewhere, "--config.optim.learning_rate=0.01"))
    assert (folder / "results" / "table_digits.md").read_text() == before
    saved = (folder / "results" / "table_digits+optim.learning_rate=0.01.json").read_text()
    assert json.loads(saved)["overrides"] == ["optim.learning_rate=0.01"] and str(folder) not in saved
    own = (folder / "results" / "table_digits+optim.learning_rate=0.01.md").read_text()
    assert "optim.learning_rate=0.01: not the paper's protocol" in own
    plan = spec.plan(words(folder)[0].removeprefix("--config="), [("eval.k", "8"), ("parts.elbo.beta", "0.5")])
    assert spec.directory_of(plan, folder, "small", 0) == folder / "table_digits_cpu+parts.elbo.beta=0.5" / "small_seed0"


def test_names_of_many_values_are_cut_and_stay_different(tmp_path):
    names = [with_values("table_digits", [f"optim.learning_rate={'0' * 300}{n}", "data.name=é/è"]) for n in range(2)]
    assert names[0] != names[1] and names[0].startswith("table_digits+optim.learning_rate=000")
    for name in (*names, with_values("table_digits", ["x=" + "é" * 200])):
        (tmp_path / f"{name}.json.tmp").mkdir()


def test_results_of_other_parameters_or_checks_are_not_the_cells(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    shutil.copy(folder / "table_digits.py", tmp_path)
    plan = spec.plan(words(tmp_path)[0].removeprefix("--config="))
    one = next(c for c in spec.cells(plan, tmp_path / "runs", 0) if (c.row, c.seed) == ("swap", 0))
    assert runner.done(plan, one)  # though it names the run that it began with by the place where that was
    for name, change in (
        ("results.json", {"params": "last"}),
        ("results.json", {"eval": {"k": 5}}),
        ("diagnostics.json", {"iwae": {"examples": 9}}),
    ):
        found = json.loads((one.directory / name).read_text())
        changed = found | {key: found[key] | value if isinstance(value, dict) else value for key, value in change.items()}
        (one.directory / name).write_text(json.dumps(changed))
        assert not runner.done(plan, one)
        (one.directory / name).write_text(json.dumps(found))
    assert runner.done(plan, one)
    other = plan._replace(checks={"iwae": {"k": 5}})
    assert not runner.done(other, one)


def test_cells_that_are_missing_say_so(folder):
    assert "2 of 3" in call("table", *words(folder, "--seeds=3", "--show"))
    assert "(seed" not in call("table", *words(folder, "--seeds=1"))
    assert all(row["seeds"] == [0, 1] for row in results(folder).values())  # the seeds that another process trained stay in the table
    assert "not run" in call("table", *words(folder, "--show", budget=":paper"))
    assert (folder / "results" / "table_digits_paper.md").is_file() and not (folder / "results" / "table_digits_paper.png").exists()


def test_a_cell_that_cannot_be_computed_says_why_and_the_others_go_on(folder, tmp_path):
    lacking = TABLE.replace(
        "    return c\n", "    if row == 'large':\n        c.data.update(kind='npz', path='/nowhere.npz')\n    return c\n"
    )
    (tmp_path / "table_digits.py").write_text(lacking.replace("seeds=2", "seeds=1").replace('AFTER = {"swap"', 'AFTER = {"none"'))
    said = refusal("table", *words(tmp_path))
    assert "1 of 3 cells could not be computed: large_seed0" in said
    assert set(results(tmp_path)) == {"small", "large", "swap"} and results(tmp_path)["swap"]["seeds"] == [0]
    for again in ("--show", "--rows=small"):  # what was found out is not forgotten
        call("table", *words(tmp_path, again))
        assert "/nowhere.npz" in results(tmp_path)["large"]["failed"][0]
    assert "Failed:" in (tmp_path / "results" / "table_digits.md").read_text()


@pytest.mark.full  # half a minute: three processes that compile
def test_a_killed_table_goes_on_and_two_processes_share_the_cells(tmp_path):
    plain = (
        TABLE.replace('"swap": 90.0', "")
        .replace("seeds=2, together=True", "seeds=1, together=False")
        .replace('CHECKS = {"iwae": {"k": 4}}', "")
    )
    (tmp_path / "table_digits.py").write_text(plain.replace("else 20, log_every", "else 400, log_every"))
    command = [sys.executable, "-m", "experiments.table", *words(tmp_path)]

    def started(*more: str) -> subprocess.Popen[str]:
        env = environment() | {"PYTHONUNBUFFERED": "1"}
        return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=ROOT)

    first, last = started(), cell(tmp_path, "small_seed0") / "checkpoints" / "last"
    deadline = time.monotonic() + 60
    while not any(path.name.isdecimal() and int(path.name) >= 30 for path in last.glob("*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.kill()
    first.communicate()
    assert not (cell(tmp_path, "small_seed0") / "results.json").exists() and not cell(tmp_path, "large_seed0").exists()
    said = [process.communicate(timeout=240)[0] for process in [started(), started()]]
    assert sum("resuming from step" in text for text in said) == 1  # the killed cell, by one of the two
    assert sum(text.count("large (seed 0)\n") for text in said) == 1
    assert all(row["seeds"] == [0] for row in results(tmp_path).values())


def test_a_cell_of_another_table_is_not_computed_twice(folder, tmp_path):
    shared = TABLE + '\nSHARED = {"small": "table_digits", "large": "table_digits", "swap": "table_digits"}\n'
    (tmp_path / "table_other.py").write_text(shared)
    said = call("table", f"--config={tmp_path / 'table_other.py'}", f"--runs={folder / 'runs'}", f"--output={tmp_path}")
    assert "(seed 0)" not in said
    rows = {row["row"]: row for row in json.loads((tmp_path / "table_other.json").read_text())["rows"]}
    assert rows["swap"]["values"] == results(folder)["swap"]["values"]


def test_a_check_that_is_added_later_is_made_without_training(folder, tmp_path):
    (tmp_path / "table_digits.py").write_text(TABLE.replace('CHECKS = {"iwae": {"k": 4}}', 'CHECKS = {"iwae": {"k": 4}, "anomaly": {}}'))
    shutil.copytree(folder / "runs", tmp_path / "runs")
    said = call("table", *words(tmp_path, "--rows=small"))
    assert "small (seed 0)" in said
    trained = [(cell(where, "small_seed0") / "metrics.jsonl").read_text().count("grad_norm") for where in (folder, tmp_path)]
    assert trained[0] == trained[1] > 0
    there = cell(tmp_path, "small_seed0")  # the launch that made the check has trained nothing
    assert len(json.loads((there / "env.json").read_text())) == 2 and len(workdir.trained_by(there)) == 1
    assert all("anomaly" in json.loads((cell(tmp_path, f"small_seed{i}") / "diagnostics.json").read_text()) for i in range(2))


@pytest.mark.parametrize(
    "more, budget, held",
    [
        ((), ":papr", "the budget='papr' is unknown (did you mean 'paper'?)"),
        (("--rows=smal",), "", "--rows='smal' is unknown (did you mean 'small'?)"),
        (("--config.modle.latent=3",), "", "the key='modle' is unknown"),
        (("--config.seed=3",), "", "config.seed of a cell is the table's to set"),
        (("--seeds=-1",), "", "--seeds=-1 is invalid; it must be >= 0"),
    ],
)
def test_wrong_commands_are_one_line(folder, more, budget, held):
    assert held in refusal("table", *words(folder, *more, budget=budget))


def test_a_config_that_is_no_table_is_one_line():
    assert "has no TABLE: it is no table" in refusal("table", "--config=configs/digits_vae.py")


@pytest.mark.parametrize(
    ("more", "held"),
    [
        ('CURVES = {"smal": ("A", "x")}\nTABLE["against"] = "active"', "CURVES: the row='smal' is unknown (did you mean 'small'?)"),
        ('CURVES = {"small": ("A", "x")}', "TABLE['against']='' is invalid"),
        ('CURVES = {"small": ("A", "x")}\nTABLE["against"] = "activ"', "TABLE['against']='activ' is invalid"),
        ('TABLE["floor"] = "lowest"', "TABLE['floor']='lowest' is invalid"),
    ],
)
def test_curves_that_the_table_cannot_draw_are_one_line(tmp_path, more, held):
    (tmp_path / "table_digits.py").write_text(f"{TABLE}\n{more}\n")
    with pytest.raises(UserError, match=re.escape(held)):
        spec.plan(str(tmp_path / "table_digits.py"))


def test_seeds_of_a_row_stand_side_by_side(tmp_path, monkeypatch):
    """So that groups of cells, which are of limited size, hold all seeds of a row."""
    (tmp_path / "table_digits.py").write_text(TABLE)
    plan, seen = spec.plan(str(tmp_path / "table_digits.py")), []

    def grouped(configs, directories):
        seen.extend(directory.name for directory in directories)
        raise UserError("enough")

    monkeypatch.setattr(many_seeds, "groups", grouped)
    with pytest.raises(UserError, match="enough"):
        runner.run(plan, spec.cells(plan, tmp_path / "runs", 0), lambda: None)
    assert seen == ["small_seed0", "small_seed1", "large_seed0", "large_seed1"]


def test_rows_whose_cells_another_machine_had_keep_their_numbers(folder, tmp_path):
    """--keep: with no cells here, the stored rows and pairs stay; a row with another budget does not."""
    shutil.copytree(folder / "results", tmp_path / "results")
    elsewhere = ["--runs=" + str(tmp_path / "none") if word.startswith("--runs=") else word for word in map(str, words(folder))]
    elsewhere = ["--output=" + str(tmp_path / "results") if word.startswith("--output=") else word for word in elsewhere]
    before = (tmp_path / "results" / "table_digits.json").read_text()
    assert f"{results(folder)['small']['mean']:.2f}" in call("table", *elsewhere, "--show", "--keep")
    assert (tmp_path / "results" / "table_digits.json").read_text() == before
    stored = json.loads(before)
    stored["rows"][0]["steps"] += 1
    (tmp_path / "results" / "table_digits.json").write_text(json.dumps(stored))
    call("table", *elsewhere, "--show", "--keep")
    assert ["mean" in row for row in results(tmp_path).values()] == [False, True, True]
    call("table", *elsewhere, "--show")
    assert not any("mean" in row for row in results(tmp_path).values())
