"""--import=FILE: a user's own kinds in every command; recorded in env.json, never executed because a workdir names it."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vaeflow
from tests.commands import FLOW, call, refusal
from tests.runs import ROOT, finish, run, start_together
from vaeflow import config, data
from vaeflow.bijectors import BIJECTORS
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import MEASURES
from vaeflow.models import MODELS
from vaeflow.models.parts.bases import BASES
from vaeflow.nets import NETS
from vaeflow.runs import workdir
from vaeflow.training import agreement

REGISTRIES = (MODELS, BIJECTORS, NETS, BASES, data.SOURCES, MEASURES)

OWN = (ROOT / "tests" / "own_kinds.py").read_text()

TRAIN = (
    *(*FLOW, "--config.train.steps=20", "--config.model.kind=my_flow", "--config.parts.net.kind=my_net", "--config.model.base=my_base"),
    *("--config.parts.first.kind=my_coupling", "--config.data.kind=my_points", "--config.data.name="),
)


@pytest.fixture(autouse=True)
def new_process():
    """forget(): the registries as a new process has them, here and after every test."""
    before = [dict(registry) for registry in REGISTRIES]

    def forget() -> None:
        for registry, entries in zip(REGISTRIES, before, strict=True):
            registry.clear()
            registry.update(entries)  # type: ignore[arg-type]
        config.import_files(())

    yield forget
    forget()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def times(file: Path) -> int:
    """How often OWN was executed as this file."""
    path = file.with_suffix(".ran")
    return len(path.read_text()) if path.exists() else 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """(own_kinds.py, the workdir of a run with kinds of it): by the command in a process of its own."""
    folder = tmp_path_factory.mktemp("import")
    file = write(folder / "own_kinds.py", OWN)
    code, out, err = run(*TRAIN, f"--import={file}", f"--import={file}", f"--workdir={folder / 'run'}")
    assert code == 0, err
    assert f"train configs/densities.py --import={file} " in out
    return file, folder / "run"


def test_it_is_executed_once_and_recorded(trained):
    file, directory = trained
    assert times(file) == 1
    recorded = [{"path": str(file.resolve()), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}]
    assert json.loads((directory / "env.json").read_text())[-1]["imports"] == recorded
    assert json.loads((directory / "results.json").read_text())["imports"] == recorded
    assert workdir.read_config(directory).to_dict()["model"]["kind"] == "my_flow"


def test_every_command_takes_it(trained, tmp_path, new_process):
    file, before = trained
    directory = shutil.copytree(before, tmp_path / "run")
    own, where = f"--import={file}", f"--workdir={directory}"
    start = times(file)
    assert "NLL" in call("evaluate", own, where)
    new_process()
    assert "3 samples" in call("sample", own, where, "--config.sample.n=3")
    new_process()
    assert "z (100, 2)" in call("encode", own, where)
    new_process()
    assert "largest" in call("diagnose", own, where, "--measures=my_measure", "--examples=10", "--my_measure.n=3")
    new_process()
    assert "--my_measure.n=2  (int >= 1)" in call("diagnose", own, "--list")
    new_process()
    assert "temperatures.png" in call("explore", own, where, "--show=temperatures")
    new_process()
    more = [word.replace("steps=20", "steps=40") if "train.steps" in word else word for word in TRAIN]
    assert "my_flow" in call("train", *more, own, f"--workdir={tmp_path / 'other'}", "--dry_run")
    assert times(file) == start + 7
    new_process()
    assert "run" in call("compare", directory, f"--output={tmp_path / 'curves.png'}")  # needs no kinds


def commands(directory: Path) -> list[tuple[str, ...]]:
    where = f"--workdir={directory}"
    checks = ("diagnose", where, "--measures=iwae")
    return [("evaluate", where), ("sample", where), ("encode", where), ("explore", where, "--show=temperatures"), checks]


def test_without_it_every_command_ends_with_a_line_and_executes_nothing(trained, new_process, tmp_path):
    file, before = trained
    directory = shutil.copytree(before, tmp_path / "run")
    start, line = times(file), f"a kind of your own needs --import=FILE (this run was launched with --import={file.resolve()})"
    for words in commands(directory):
        found = refusal(*words)
        assert found.startswith("model.kind='my_flow' is unknown (did you mean ") and found.endswith(line), found
    (directory / "results.json").unlink()  # the same command again, which would evaluate
    assert refusal("train", *TRAIN, f"--workdir={directory}").endswith(line)
    with pytest.raises(UserError, match="needs --import=FILE"):
        vaeflow.load(directory)
    kept = json.loads((directory / "config.json").read_text())
    for part, value, key in (
        (kept["model"], {"kind": "flow"}, "parts.first.kind='my_coupling'"),
        (kept["parts"]["first"], {"kind": "affine_coupling"}, "parts.net.kind='my_net'"),
        (kept["parts"]["net"], {"kind": "mlp"}, "model.base='my_base'"),
        (kept["model"], {"base": "logistic"}, "data.kind='my_points'"),
    ):
        part |= value
        (directory / "config.json").write_text(json.dumps(kept))
        found = refusal("evaluate", f"--workdir={directory}")
        assert found.startswith(f"{key} is unknown") and found.endswith(line), found
    assert refusal("diagnose", f"--workdir={directory}", "--measures=my_measure").endswith("a kind of your own needs --import=FILE")
    assert times(file) == start


def test_the_process_without_it_prints_one_line(trained):
    _, directory = trained
    code, out, err = run(f"--workdir={directory}", module="experiments.evaluate")
    assert code == 2 and err.count("\n") == 1 and "model.kind='my_flow' is unknown" in err and out.startswith(f"evaluating {directory}")


@pytest.mark.parametrize("imports", [[{"path": "/x/\x1b[2J\nown.py", "sha256": ""}], [{}], [7], 7, "own.py", None])
def test_what_a_workdir_says_of_its_imports_is_text(trained, imports, tmp_path):
    file, before = trained
    directory = shutil.copytree(before, tmp_path / "run")
    if isinstance(imports, list) and imports[0] and imports != [7]:
        evil = write(tmp_path / "evil.py", "from pathlib import Path\nPath(__file__).with_suffix('.ran').write_text('x')\n")
        imports.append({"path": str(evil), "sha256": hashlib.sha256(evil.read_bytes()).hexdigest()})
    (directory / "env.json").write_text(json.dumps([{"imports": imports}]))
    for words in commands(directory):
        assert refusal(*words).isprintable()
    call("evaluate", f"--import={file}", f"--workdir={directory}")  # and it is no obstacle
    assert not (tmp_path / "evil.ran").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "encode", "explore", "diagnose", "table", "compare", "prepare"])
def test_the_help_of_the_commands_that_look_up_kinds_has_it(command, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"experiments.{command}").main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ("--import FILE" in shown and "--import=own_kinds.py" in shown) == (command not in ("compare", "prepare"))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("x = 1\ny = (", "line 2: SyntaxError: '(' was never closed"),
        ("import nothing_here", "line 1: ModuleNotFoundError: No module named 'nothing_here'"),
        ("def f():\n    return 1 / 0\n\n\nf()", "line 2: ZeroDivisionError: division by zero"),
        ("from vaeflow.models import MODELS\nMODELS['no']", "line 2: KeyError: 'no'"),
        ("\nassert 1 > 2, 'two\\nlines'", "line 2: AssertionError: two lines"),
        ("from pathlib import Path\nPath('/no/where').read_text()", "line 2: FileNotFoundError"),
        ("import json\njson.loads('{')", "line 2: JSONDecodeError"),
        ("x = 'caf\udce9'", "SyntaxError"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text, held, tmp_path):
    file = tmp_path / "own.py"
    file.write_bytes(f"{text}\n".encode("utf-8", "surrogateescape"))
    for command in ("train", "evaluate"):
        words = ["--config=configs/digits_vae.py"] if command == "train" else ["--workdir=no/where"]
        line = refusal(command, f"--import={file}", *words)
        assert line.startswith(f"--import={file}") and held in line, line


def test_a_missing_file_is_one_line(tmp_path):
    for path, held in ((tmp_path / "no.py", "does not exist"), (tmp_path, "is not a file"), (write(tmp_path / "a.txt", ""), "NAME.py")):
        line = refusal("train", "--config=configs/digits_vae.py", f"--import={path}")
        assert line.startswith(f"--import={path}") and held in line, line
    assert "--import: it is empty" in refusal("train", "--import=")


def test_files_of_one_name_are_two_modules_in_the_order_given(tmp_path):
    one = write(tmp_path / "a" / "own.py", 'from vaeflow.nets import NETS\nNETS["one"] = lambda: None\n')
    two = write(tmp_path / "b" / "own.py", 'from vaeflow.nets import NETS\nNETS["two"] = NETS["one"]\n')
    config.import_files([one, two, one])
    assert [Path(file["path"]) for file in config.imported()] == [one.resolve(), two.resolve()]
    assert NETS["one"] is NETS["two"]
    config.import_files([one])
    assert len(config.imported()) == 1


def test_an_entry_may_be_the_maker_itself(tmp_path):
    file = write(tmp_path / "own.py", 'from vaeflow.models import MODELS\nMODELS["bare"] = MODELS["flow"].make\n')
    assert "bare" in call("train", *FLOW, f"--import={file}", "--config.model.kind=bare", "--dry_run")


def test_a_table_trains_a_kind_of_the_user(tmp_path):
    """The table's config names the kind; without the flag the cell's line names it."""
    own = write(tmp_path / "own_kinds.py", OWN)
    table = write(
        tmp_path / "table_own.py",
        f"""
from vaeflow.override import override
from vaeflow.training import configure
ROWS = {{"flow": "mine"}}
TABLE = dict(title="t", source="s", number="nll", unit="nats", better="lower", seeds=1, together=False)
BUDGETS = {{"paper": "p", "cpu": "c"}}
PUBLISHED = {{"flow": None}}


def get_config(row):
    c = configure.load("configs/densities.py")
    for word in {TRAIN[1:]!r}:
        override(c, *word.removeprefix("--config.").split("="))
    return c
""",
    )
    words = ("table", f"--config={table}", f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'results'}")
    with pytest.raises(UserError, match="1 of 1 cells"):
        call(*words)
    failed = tmp_path / "runs" / "table_own_cpu" / "flow_seed0" / "failed.txt"
    assert "model.kind='my_flow' is unknown" in failed.read_text() and "--import=FILE" in failed.read_text()
    text = call(*words, f"--import={own}")
    assert f"--import={own}" in text and not failed.exists()
    assert json.loads((failed.parent / "env.json").read_text())[-1]["imports"][0]["path"] == str(own.resolve())


def test_processes_compare_the_files(tmp_path):
    one, two = write(tmp_path / "a" / "own.py", "x = 1\n"), write(tmp_path / "b" / "own.py", "x = 1\n")
    values: list[dict[str, str]] = []
    files: list[Callable[[], list[Path]]] = [lambda: [one], lambda: [two], lambda: [write(two, "x = 2\n")], lambda: [one, two], lambda: []]
    for file in files:
        config.import_files(file())
        values.append(agreement.code_values())
    assert agreement.differences([values[0], values[1]]) == ""  # each host may have it elsewhere
    assert "file 1 of --import is own.py sha256:" in agreement.differences([values[0], values[2]])
    assert "file 2 of --import is missing in process 0, own.py sha256:" in agreement.differences([values[0], values[3]])
    assert "missing in process 1" in agreement.differences([values[0], values[4]])


def test_two_processes_with_different_files_end_with_one_line_each(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32))
    files = [write(tmp_path / name / "own_kinds.py", OWN + f"# {name}\n") for name in ("a", "b")]
    words = ("--config=configs/own_table.py:npz", "--config.data.batch=16", f"--config.data.path={tmp_path / 'a.npz'}")
    started = start_together(*words, f"--workdir={tmp_path / 'run'}", own=[[f"--import={file}"] for file in files])
    for code, _, err in map(finish, started):
        assert code == 2 and "error: processes disagree: file 1 of --import is own_kinds.py sha256:" in err, err
        assert "all need the same code and packages" in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()
    assert [times(file) for file in files] == [1, 1]


def test_a_file_that_makes_arrays_before_the_processes_meet_is_one_line(tmp_path):
    own = write(tmp_path / "own.py", "import jax.numpy as jnp\nX = jnp.zeros(3)\n")
    words = ("--coordinator=127.0.0.1:1", "--processes=2", "--process=0", f"--workdir={tmp_path / 'run'}")
    code, _, err = run("--config=configs/digits_vae.py", *words, f"--import={own}")
    assert code == 2 and f"error: --import={own} makes arrays of jax before the processes have met" in err, err
