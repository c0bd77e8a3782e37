"""All processes of a run compare config, code, data and workdir: the comparison alone, between threads, and in two processes."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import finish, start_together
from vaeflow.data.source import Source, Split
from vaeflow.errors import RunFailed, UserError
from vaeflow.training import agreement, configure, devices

FLOW = ("--config=configs/own_table.py:npz", "--config.train.steps=40", "--config.data.batch=16")


def test_equal_values_have_no_differences():
    assert agreement.differences([{"a": "1", "b": "x"}, {"b": "x", "a": "1"}]) == ""
    assert agreement.differences([{"a": "1"}]) == ""


def test_a_difference_names_the_key_the_values_and_the_processes():
    rate = "optim.learning_rate"
    assert agreement.differences([{rate: "0.001"}, {rate: "0.01"}]) == f"{rate} is 0.001 in process 0, 0.01 in process 1"
    found = [{"a": "1"}, {"a": "2"}, {"a": "1"}, {}]
    assert agreement.differences(found) == "a is 1 in processes 0, 2, 2 in process 1, missing in process 3"
    many = [{"a": "1"}] * 60 + [{"a": "2"}]
    assert agreement.differences(many) == "a is 1 in processes 0, 1, 2 and 57 more, 2 in process 60"


def test_the_line_of_many_differences_is_short():
    found = [{f"key{i}": f"{process}" * 1000 for i in range(100)} for process in range(50)]
    words = agreement.differences(found)
    assert words.startswith("key0 is 000") and words.endswith("; and 96 more") and len(words) < 2000


def test_the_config_is_compared_without_what_each_host_may_have_of_its_own():
    c = configure.load("configs/digits_vae.py")
    before = agreement.config_values(c)
    c.data.dir, c.data.path, c.data.cache_dir = "a", "b", "c"
    assert agreement.config_values(c) == before
    c.train.steps += 1
    assert {k for k, v in agreement.config_values(c).items() if v != before[k]} == {"train.steps"}


def test_the_code_is_compared_file_by_file():
    values = agreement.code_values()
    assert {"Python", "jax", "vaeflow/training/agreement.py", "vaeflow/data/source.py"} <= set(values)


def test_the_data_are_compared_by_type_shape_and_content(monkeypatch):
    x = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    source = Source(Split(x, label=np.zeros(1000, np.int32)), Split(x[:10]), None, 0)

    def differing(other: Source) -> set[str]:
        a, b = agreement.data_values(source), agreement.data_values(other)
        return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}

    changed = x.copy()
    changed[999, 2] += 1
    train = source.train
    assert not differing(source._replace(train=train._replace(x=np.asfortranarray(x))))
    assert differing(source._replace(train=train._replace(x=changed))) == {"data.train.x"}
    assert differing(source._replace(train=train._replace(x=x.astype(np.float64)))) == {"data.train.x"}
    assert differing(source._replace(train=train._replace(label=None))) == {"data.train.label"}
    assert differing(source._replace(levels=2, val=None)) == {"data.levels", "data.val.x"}
    monkeypatch.setattr(agreement, "HASHED_WHOLE_BYTES", 1000)  # of larger arrays only some rows are read
    monkeypatch.setattr(agreement, "HASHED_ROWS_BYTES", 120)
    assert differing(source._replace(train=train._replace(x=changed))) == {"data.train.x"}
    assert len(list(agreement._rows(x))) == 10


@pytest.fixture
def together(monkeypatch) -> Callable[..., list[BaseException | None]]:
    """together(f, g): what f raises as process 0 and g as process 1, in threads with a stub of the coordination service."""
    who, posted, news = threading.local(), {}, threading.Condition()

    def post(key: str, value: str) -> bool:
        with news:
            news.notify_all()
            return posted.setdefault(key, value) is value

    def read(key: str, seconds: float) -> str | None:
        with news:
            news.wait_for(lambda: key in posted, min(seconds, 0.02))
            return posted.get(key)

    monkeypatch.setattr(devices, "member", lambda: (who.process, 2))
    monkeypatch.setattr(devices, "post", post)
    monkeypatch.setattr(devices, "read", read)
    monkeypatch.setattr(agreement, "_exit_alone", lambda: None)

    def run(*calls: Callable[[], Any]) -> list[BaseException | None]:
        errors: list[BaseException | None] = [None] * len(calls)

        def process(i: int) -> None:
            who.process = i
            try:
                with agreement.failures_shared():
                    calls[i]()
            except (UserError, ArithmeticError) as error:
                errors[i] = error

        threads = [threading.Thread(target=process, args=(i,)) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return errors

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_the_failure_of_one_process_is_every_processs_with_its_exit_code(together):
    source = Source(Split(np.zeros((3, 2))), None, None, 0)
    errors = together(lambda: agreement.check_data(source), raising(UserError("data.dir='/no' does not exist")))
    assert str(errors[0]) == "process 1 could not start: data.dir='/no' does not exist" and not isinstance(errors[0], RunFailed)


def test_the_failure_that_is_no_user_error_is_one_too(together):
    errors = together(raising(ZeroDivisionError("a bug")), lambda: agreement.check_folder(Path("/no")))
    assert str(errors[1]) == "process 0 could not start: ZeroDivisionError: a bug" and isinstance(errors[1], RunFailed)


def test_a_process_that_reports_nothing_is_named(together, monkeypatch):
    monkeypatch.setattr(agreement, "START_SECONDS", 0.1)
    c = configure.load("configs/digits_vae.py")
    errors = together(lambda: agreement.check_start(c, Path("/no"), ""), lambda: time.sleep(0.5))
    assert "process 1 has joined, but did not report within 0 s" in str(errors[0])


def test_a_workdir_that_is_not_shared_is_found(together, tmp_path, monkeypatch):
    monkeypatch.setattr(agreement, "FOLDER_SECONDS", 0.2)
    shared, other = tmp_path / "a" / "run", tmp_path / "b" / "run"
    shared.mkdir(parents=True)
    (shared / "env.json").write_text("[1]")
    errors = together(lambda: agreement.check_folder(shared), lambda: agreement.check_folder(other))
    words = "is another folder in process 1 than in process 0; all need the same folder"
    assert all(words in str(error) for error in errors)


def test_a_file_system_that_shows_the_workdir_late_is_waited_for(together, tmp_path):
    shared, late = tmp_path / "a", tmp_path / "b"
    shared.mkdir()
    (shared / "env.json").write_text("[1]")
    copier = threading.Timer(0.3, lambda: shutil.copytree(shared, late))
    copier.start()
    assert together(lambda: agreement.check_folder(shared), lambda: agreement.check_folder(late)) == [None, None]


def test_processes_that_see_different_checkpoints_do_not_resume(together, tmp_path, monkeypatch):
    steps = {tmp_path / "a" / "run": [200, 100], tmp_path / "b" / "run": []}
    monkeypatch.setattr(agreement, "committed_steps", lambda directory: steps[directory.parents[1]])
    c = configure.load("configs/digits_vae.py")
    errors = together(*[lambda d=directory: agreement.check_start(c, d, "configs/digits_vae.py") for directory in steps])
    words = "the newest checkpoint of workdir=run is 200 in process 0, none in process 1; all need the same folder"
    assert all(words in str(error) for error in errors)


@pytest.mark.parametrize("case", ["config", "data", "missing"])
def test_two_processes_that_disagree_end_with_one_line_each(case, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "b.npz", x=x + 1)
    a, b, no = (f"--config.data.path={tmp_path / name}.npz" for name in ("a", "b", "no"))
    lines = {
        "config": [
            "processes disagree: optim.learning_rate is 0.001 in process 0, 0.01 in process 1; train.steps is 40 in process 0, 80 in"
        ]
        * 2,
        "data": ["processes disagree: data.train.x is float32[80, 6] sha256:"] * 2,
        "missing": ["process 1 could not start: data.path=", "data.path="],
    }
    own = {
        "config": [(a, "--config.optim.learning_rate=0.001"), (a, "--config.optim.learning_rate=0.01", "--config.train.steps=80")],
        "data": [(a,), (b,)],
        "missing": [(a,), (no,)],
    }
    processes = start_together(*FLOW, f"--workdir={tmp_path / 'run'}", own=own[case])
    try:
        results = [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for (code, out, err), line in zip(results, lines[case], strict=True):
        said = [said for said in err.splitlines() if "waiting for" not in said]
        assert code == 2 and len(said) == 1 and said[0].startswith(f"error: {line}"), (code, out, err)
        assert all(shown.startswith(("train configs/", "importing jax: ", "loading data: ")) for shown in out.splitlines())
    assert not (tmp_path / "run").exists()
