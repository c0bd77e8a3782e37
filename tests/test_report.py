"""metrics.jsonl without gap or duplicate, the progress lines, the tables."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import on_a_terminal
from vaeflow.errors import UserError
from vaeflow.runs.metrics import Metrics, Progress, aligned_table, read_metrics


def write(metrics: Metrics, steps: range, rate: float) -> None:
    for step in steps:
        metrics.write(step, "train", {"loss": float(np.float32(1 / step)), "kl": 2.0}, seconds=step * rate, steps_per_second=rate)


def test_going_on_leaves_neither_gap_nor_duplicate(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with Metrics(tmp_path / "a") as whole:
        write(whole, range(1, 7), 10.0)
    with Metrics(tmp_path / "b") as killed:
        write(killed, range(1, 4), 20.0)
        position = killed.position()
        write(killed, range(4, 6), 20.0)
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "split": "tr')  # killed in the middle of a row
    assert len(read_metrics(tmp_path / "b")) == 5
    with Metrics(tmp_path / "b", position) as again:
        assert again.position() == position
        write(again, range(4, 7), 30.0)
    assert read_metrics(tmp_path / "b", clock=False) == read_metrics(tmp_path / "a", clock=False)
    assert read_metrics(tmp_path / "b")[-1] == {
        "step": 6, "split": "train", "loss": float(np.float32(1 / 6)), "kl": 2.0, "seconds": 180.0, "steps_per_second": 30.0,
    }  # fmt: skip
    with Metrics(tmp_path / "b") as fresh:
        assert fresh.position() == 0
    assert read_metrics(tmp_path / "b") == []


def test_lost_rows_are_said_and_other_processes_write_nothing(tmp_path: Path, capsys):
    with Metrics(tmp_path, 1000) as metrics:
        write(metrics, range(1, 2), 1.0)
    assert "metrics.jsonl has 0 bytes, where the checkpoint has seen 1000" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    with Metrics(tmp_path / "other", enabled=False) as silent:
        silent.write(1, "train", {"loss": 1.0})
        assert silent.position() == 0
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(UserError, match=r"has no metrics.jsonl"):
        read_metrics(tmp_path / "other")


def test_nonfinite_values_are_null(tmp_path: Path):
    with Metrics(tmp_path) as metrics:
        metrics.write(1, "val", {"loss": math.inf, "kl": math.nan})
    assert '"loss": null, "kl": null' in (tmp_path / "metrics.jsonl").read_text()
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def events(path: Path) -> list[Any]:
    """The records of an event file: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    event: Any = event_pb2
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:8], "little")
        content = data[12 : 12 + length]
        assert len(content) == length
        assert data[8:12] == masked_crc32c(data[:8]).to_bytes(4, "little")
        assert data[12 + length : 16 + length] == masked_crc32c(content).to_bytes(4, "little")
        found.append(event.Event.FromString(content))
        data = data[16 + length :]
    return found


def test_the_checksum_is_crc32c():
    from tensorboardX.record_writer import crc32c  # type: ignore[attr-defined]

    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def test_tensorboard_events(tmp_path: Path):
    with Metrics(tmp_path) as metrics:
        metrics.write(5, "train", {"loss": 0.25, "kl": math.nan}, seconds=2.0)
        (path,) = (tmp_path / "tensorboard").iterdir()
        first, row = events(path)  # nothing waits in a buffer
    assert first.file_version == "brain.Event:2" and row.step == 5 and abs(row.wall_time - time.time()) < 60
    values = {value.tag: value.simple_value for value in row.summary.value}
    assert values.keys() == {"train/loss", "train/kl", "train/seconds"}
    assert values["train/loss"] == 0.25 and math.isnan(values["train/kl"])


def test_going_on_hides_what_a_killed_run_wrote(tmp_path: Path):
    for step in (5, 4, 3):  # each within a second of the one before
        with Metrics(tmp_path) as metrics:
            metrics.write(step, "train", {"loss": 1.0})
    paths = sorted((tmp_path / "tensorboard").iterdir())
    assert [[event.step for event in events(path)] for path in paths] == [[0, 5], [0, 4, 4], [0, 3, 3]]
    assert [events(path)[1].HasField("session_log") for path in paths] == [False, True, True]
    assert events(paths[2])[1].session_log.status == 1  # START: forget everything from this step on
    assert paths[0].name.startswith("events.out.tfevents.")


def test_plain_lines_when_piped(capsys):
    with Progress(1000, every=0.0) as bar:
        bar.say("resuming from step 100 [of 1000]")
        bar.start(100)
        bar.update(108, 123.456, 0.0)
        bar.saved(100)
        bar.update(200, 99.5, 1234.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "resuming from step 100 [of 1000]"
    assert lines[1] == "step 108/1,000  loss 123.5"
    assert lines[2].startswith("step 200/1,000  loss 99.5  1,234 steps/s  0 s left") and lines[2].endswith("  saved 100")
    with Progress(1000, every=60.0) as bar:
        for step in range(1, 50):
            bar.update(step, 1.0, 2.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("step 49/1,000  loss 1  2.50 steps/s")  # the first and the last
    with Progress(10, enabled=False) as bar:
        bar.say("x")
        bar.update(1, 1.0, 1.0)
    assert capsys.readouterr().out == ""


def test_a_bar_on_a_terminal():
    script = """
from vaeflow.runs.metrics import Progress
with Progress(100) as bar:
    bar.start(0)
    bar.update(50, 1.25, 10.0)
    bar.say("checkpoint [10] is damaged")
    bar.update(100, 1.0, 10.0)
"""
    shown = on_a_terminal(script)
    assert "━" in shown and "step 100/100  loss 1  10 steps/s" in shown
    assert "\x1b[2Kcheckpoint [10] is damaged\r\n" in shown  # on a line of its own


def test_table_lines_up():
    rows = [["vae", (92.12345, 0.05), 5000, 1.5], ["vae + flow prior", (101.5, 12.25), 7, None], ["none", None, "", float("nan")]]
    text = aligned_table(["model", "NLL [nats]", "k", "bits/dim"], rows, digits={"NLL [nats]": 2, "bits/dim": 4})
    assert text.splitlines() == [
        "model                 NLL [nats]      k  bits/dim",
        "----------------  --------------  -----  --------",
        "vae                92.12 ±  0.05  5,000    1.5000",
        "vae + flow prior  101.50 ± 12.25      7",
        "none                                          nan",
    ]


def test_markdown_table():
    text = aligned_table(["run", "NLL | nats"], [["a|b", np.float32(1.5)], ["c", 10]], digits=1, markdown=True)
    assert text.splitlines() == [
        "| run | NLL \\| nats |",
        "| --- | ---------: |",
        "| a\\|b |        1.5 |",
        "| c   |         10 |",
    ]


def test_empty_table():
    assert aligned_table(["run", "NLL"], []).splitlines() == ["run  NLL", "---  ---"]
