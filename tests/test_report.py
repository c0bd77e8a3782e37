"""metrics.jsonl without gap or duplicate, the progress lines, the tables."""

from __future__ import annotations

import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vaeflow.errors import UserError
from vaeflow.report import Metrics, Progress, read_metrics, table


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


def test_tensorboard_events(tmp_path: Path):
    from tensorboardX.proto import event_pb2

    with Metrics(tmp_path) as metrics:
        metrics.write(5, "train", {"loss": 0.25})
        metrics.image(5, "samples", np.zeros((4, 4, 3), np.uint8))
    (path,) = (tmp_path / "tensorboard").iterdir()
    event: Any = event_pb2
    data, events = path.read_bytes(), []  # records: length (8 bytes), its checksum (4), the event, its checksum (4)
    while data:
        length = int.from_bytes(data[:8], "little")
        events.append(event.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    values = {v.tag: v for event in events for v in event.summary.value}
    assert values["train/loss"].simple_value == 0.25 and values["samples"].image.width == 4


def test_plain_lines_when_piped(capsys):
    with Progress(1000, every=0.0) as bar:
        bar.say("going on from step 100 [of 1000]")
        bar.start(100)
        bar.update(108, 123.456, 0.0)
        bar.saved(100)
        bar.update(200, 99.5, 1234.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "going on from step 100 [of 1000]"
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
from vaeflow.report import Progress
with Progress(100) as bar:
    bar.start(0)
    bar.update(50, 1.25, 10.0)
    bar.say("checkpoint [10] is damaged")
    bar.update(100, 1.0, 10.0)
"""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", script], stdout=theirs, env=env, check=True)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    shown = text.decode()
    assert "━" in shown and "step 100/100  loss 1  10 steps/s" in shown
    assert "\x1b[2Kcheckpoint [10] is damaged\r\n" in shown  # on a line of its own


def test_table_lines_up():
    rows = [["vae", (92.12345, 0.05), 5000, 1.5], ["vae + flow prior", (101.5, 12.25), 7, None], ["none", None, "", float("nan")]]
    text = table(["model", "NLL [nats]", "k", "bits/dim"], rows, digits={"NLL [nats]": 2, "bits/dim": 4})
    assert text.splitlines() == [
        "model                 NLL [nats]      k  bits/dim",
        "----------------  --------------  -----  --------",
        "vae                92.12 ±  0.05  5,000    1.5000",
        "vae + flow prior  101.50 ± 12.25      7",
        "none                                          nan",
    ]


def test_markdown_table():
    text = table(["run", "NLL | nats"], [["a|b", np.float32(1.5)], ["c", 10]], digits=1, markdown=True)
    assert text.splitlines() == [
        "| run | NLL \\| nats |",
        "| --- | ---------: |",
        "| a\\|b |        1.5 |",
        "| c   |         10 |",
    ]


def test_empty_table():
    assert table(["run", "NLL"], []).splitlines() == ["run  NLL", "---  ---"]
