"""Nothing is written or deleted through a link, and nothing that another program has made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import jax.numpy as jnp
import pytest

from tests.commands import FLOW, call, refusal, train_only
from tests.runs import run
from vaeflow.errors import RunFailed, UserError
from vaeflow.runs import guard, unfinished, workdir
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.checkpoint_writer import Checkpoints
from vaeflow.runs.files import write_atomic
from vaeflow.runs.metrics import Metrics
from vaeflow.tables import spec

WORDS = (*FLOW, "--config.train.steps=20", "--config.eval.k=2")
MORE = ("--config.train.steps=20", "--config.eval.k=3")  # evaluated again: the run is finished with eval.k=2


def content(folder: Path) -> dict[str, str]:
    """{path: hash of the file, target of the link, or ""} of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        text = os.readlink(path) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = text
    return found


def foreign(folder: Path) -> Path:
    """What another program, or another run, may have in its folder of checkpoints."""
    for name in ("7", "10", "20", "8.deleting", "9.orbax-checkpoint-tmp", "10.orbax-checkpoint-tmp-123", "damaged-3", "mine"):
        (folder / name / "params").mkdir(parents=True)
        (folder / name / "params" / "array").write_text(f"the values of {name}")
    (folder / "notes.txt").write_text("keep")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run; the tests copy it."""
    path = tmp_path_factory.mktemp("guard") / "run"
    call("train", *WORDS, f"--workdir={path}")
    return path


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """A run that was killed after step 10."""
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    for series in ("last", "best"):
        shutil.rmtree(path / "checkpoints" / series / "20")
    (path / "results.json").unlink()
    return path


@pytest.mark.parametrize("which", ["checkpoints", "checkpoints/last", "checkpoints/best", "checkpoints/fixed"])
def test_linked_checkpoints_of_a_new_run(tmp_path, which):
    other = foreign(tmp_path / "other" / "last").parent
    foreign(other)
    link = tmp_path / "run" / which
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    before = content(tmp_path)
    line = refusal("train", *WORDS, f"--workdir={tmp_path / 'run'}")
    assert f"{link} is a link to {other}, outside workdir={tmp_path / 'run'}" in line and "remove the link" in line
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    "which", ["checkpoints", "checkpoints/last", "checkpoints/best", "checkpoints/fixed", "checkpoints/last/10", "checkpoints/last/30"]
)
def test_linked_checkpoints_of_a_run_that_is_resumed(killed, tmp_path, which):
    link, other = killed / which, foreign(tmp_path / "other")
    if link.exists():
        other = Path(shutil.copytree(link, other, dirs_exist_ok=True))
        shutil.rmtree(link)
    link.symlink_to(os.path.relpath(other, link.parent))
    before = content(tmp_path)
    assert f"{link} is a link to {other}" in refusal("train", *WORDS, f"--workdir={killed}")
    assert content(tmp_path) == before


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("which", ["metrics.jsonl", ".lock", "data.json", "env.json", "results.json", "failed.txt"])
def test_a_linked_file(tmp_path, which, exists):
    (tmp_path / "run").mkdir()
    other = tmp_path / "other"
    if exists:
        other.write_text("[]\n")
    (tmp_path / "run" / which).symlink_to(other)
    before = content(tmp_path)
    assert f"{tmp_path / 'run' / which} is a link to {other}" in refusal("train", *WORDS, f"--workdir={tmp_path / 'run'}")
    assert content(tmp_path) == before


@pytest.mark.parametrize("which", ["tensorboard", "figures", "figures/curves.png", "profile"])
def test_a_linked_folder(tmp_path, which):
    other, link = foreign(tmp_path / "other"), tmp_path / "run" / which
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    before = content(tmp_path)
    assert f"{link} is a link to {other}" in refusal("train", *WORDS, f"--workdir={tmp_path / 'run'}")
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "words", "which"),
    [
        ("evaluate", (), "figures"),
        ("evaluate", (), "results.json"),
        ("evaluate", ("--split=val",), "results_val.npz"),
        ("sample", (), "figures"),
        ("sample", (), "samples.npz"),
        ("encode", ("--split=val",), "encoded_val.npz"),
        ("explore", ("--show=recon_kl",), "explore"),
        ("diagnose", ("--measures=sample_quality",), "diagnostics.json"),
    ],
)
def test_the_other_commands(finished, tmp_path, command, words, which):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    other = foreign(tmp_path / "other")
    if (folder / which).is_dir():
        shutil.rmtree(folder / which)
    (folder / which).unlink(missing_ok=True)
    (folder / which).symlink_to(other)
    before = content(tmp_path)
    assert f"{folder / which} is a link to {other}" in refusal(command, f"--workdir={folder}", *words)
    assert content(tmp_path) == before


def test_every_cell_of_a_table_is_checked_before_one_is_trained(tmp_path):
    words = ("--config=configs/table_vae_guide.py", f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'results'}")
    todo = spec.cells(spec.plan("configs/table_vae_guide.py", ()), tmp_path / "runs", 0)
    link = todo[-1].directory / "checkpoints"
    link.parent.mkdir(parents=True)
    link.symlink_to(foreign(tmp_path / "other"))
    before = content(tmp_path)
    assert f"{link} is a link to {tmp_path / 'other'}" in refusal("table", *words)
    assert content(tmp_path) == before


def test_the_line_and_the_exit_code(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").symlink_to(tmp_path / "other")
    code, _, err = run(*WORDS, f"--workdir={tmp_path / 'run'}")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "is a link to" in err


def test_the_workdir_may_be_a_link_and_links_inside_it_stay(tmp_path):
    (tmp_path / "there" / "figures").mkdir(parents=True)
    (tmp_path / "there" / "figures" / "final.png").symlink_to("curves.png")
    (tmp_path / "there" / "data").symlink_to(foreign(tmp_path / "other"))  # no name that a run writes
    (tmp_path / "run").symlink_to("there")
    before = content(tmp_path / "other")
    call("train", *WORDS, f"--workdir={tmp_path / 'run'}")
    call("sample", f"--workdir={tmp_path / 'run'}")
    assert (tmp_path / "run").is_symlink() and content(tmp_path / "other") == before
    assert (tmp_path / "there" / "figures" / "final.png").resolve() == tmp_path / "there" / "figures" / "curves.png"
    assert committed_steps(tmp_path / "there" / "checkpoints" / "last") == [20, 10]


def test_every_name_that_a_run_writes_is_checked(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for command, words in (("evaluate", ("--config.eval.params=last",)), ("evaluate", ("--split=val",)), ("sample", ())):
        call(command, f"--workdir={folder}", *words)
    written = {path.name for path in folder.iterdir()} - {"samples.npz"}
    assert {"figures", "figures+eval.params=last", "results_val.npz", "metrics.jsonl"} <= written
    assert [name for name in written if not any(fnmatch(name, known) for known in guard.TRAINED)] == []


def test_a_link_that_appears_later_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("rows\n")
    for name in ("metrics.jsonl", f".results.json.{os.getpid()}.tmp"):
        (tmp_path / name).symlink_to(other)
    with pytest.raises(RunFailed, match=r"metrics.jsonl: Too many levels of symbolic links"):
        Metrics(tmp_path)
    with pytest.raises(OSError, match="Too many levels"):
        write_atomic(tmp_path / "results.json", "new")
    assert other.read_text() == "rows\n"


@pytest.mark.parametrize("which", ["checkpoints/last", "checkpoints", "metrics.jsonl", "results.json"])
def test_a_new_run_refuses_a_folder_of_another_program(tmp_path, which):
    if which.startswith("checkpoints"):
        foreign(tmp_path / "run" / which)
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / which).write_text('{"step": 1}\n')
    before = content(tmp_path)
    line = refusal("train", *WORDS, f"--workdir={tmp_path / 'run'}")
    assert f"workdir={tmp_path / 'run'} has {which.split('/')[0]} but no config.json of a run" in line and "use another workdir" in line
    assert content(tmp_path) == before


def test_a_folder_with_a_commit_of_ours_or_empty_folders_is_a_workdir(tmp_path):
    (tmp_path / "checkpoints" / "last").mkdir(parents=True)
    guard.make_workdir(tmp_path)
    foreign(tmp_path / "checkpoints" / "best")
    (tmp_path / "checkpoints" / "best" / "7" / "sha256.json").write_text(json.dumps({"sha256": "0", "files": {}, "progress": {}}))
    with pytest.raises(UserError, match=r"has checkpoints but no config\.json"):
        guard.make_workdir(tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints" / "last")
    checkpoints.save(1, {"x": jnp.ones(3)}, {})
    checkpoints.close()
    with workdir.lock(tmp_path):
        pass


def test_foreign_checkpoints_in_the_folders_of_a_run_stay(killed, tmp_path, capfd):
    """They are renamed where they have the name of a step that is saved; the run is resumed and evaluated."""
    other = foreign(tmp_path / "other")
    shutil.rmtree(other / "10")  # the run has its own step 10
    last, best = (Path(shutil.copytree(other, killed / "checkpoints" / series, dirs_exist_ok=True)) for series in ("last", "best"))
    call("train", *WORDS, f"--workdir={killed}")
    said = f"{last / '20'} is not recorded as an unfinished checkpoint of this run: renamed to aside-20, not deleted"
    assert said in capfd.readouterr().err
    assert committed_steps(last) == [20, 10] and json.loads((killed / "results.json").read_text())["steps"] == 20
    for folder in (last, best):
        assert {path.read_text() for path in other.glob("*/params/array")} <= {path.read_text() for path in folder.glob("*/params/array")}
        assert (folder / "7" / "params" / "array").exists() and (folder / "notes.txt").read_text() == "keep"


@pytest.mark.parametrize("at", ["temporary", "renamed", "deleting"])
def test_what_a_killed_run_leaves_unfinished_is_deleted(tmp_path, at):
    folder, state = tmp_path / "last", {"x": jnp.ones(3)}
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, state, {})
    checkpoints.close()
    unfinished.claim(folder, [3, 1], pytest.fail)
    (folder / "3.orbax-checkpoint-tmp").mkdir()
    (folder / "3.orbax-checkpoint-tmp" / "array").write_text("half")
    if at != "temporary":
        (folder / "3.orbax-checkpoint-tmp").rename(folder / "3")
    if at == "deleting":
        (folder / "1").rename(folder / "1.deleting")
        next(path for path in (folder / "1.deleting").iterdir() if path.is_file()).unlink()
    foreign(folder)
    kept = content(folder)
    checkpoints = Checkpoints(folder)
    assert (checkpoints.restore(state, lambda _: None) or pytest.fail())[0] == 2
    gone = {name for name in kept if name.startswith(("3", "1.deleting", unfinished.RECORD))}
    assert content(folder) == {name: text for name, text in kept.items() if name not in gone}
    checkpoints.save(3, state, {})
    assert checkpoints.close() == 3 and committed_steps(folder) == [3, 2] and not (folder / unfinished.RECORD).exists()


def test_a_record_that_was_cut_off_is_none(tmp_path):
    foreign(tmp_path / "last")
    for text in ("", "[7, 1", "[7]", "7\n", "{\n"):
        (tmp_path / "last" / unfinished.RECORD).write_text(text)
        unfinished.clear(tmp_path / "last")
        assert content(tmp_path / "last") == content(foreign(tmp_path / "again")), text
        shutil.rmtree(tmp_path / "again")


def test_a_save_without_a_kill_prints_nothing_and_leaves_no_record(tmp_path, capfd):
    train_only(*WORDS, f"--workdir={tmp_path / 'run'}")
    assert capfd.readouterr().err == ""
    assert not list((tmp_path / "run").rglob(f"{unfinished.RECORD}*"))
