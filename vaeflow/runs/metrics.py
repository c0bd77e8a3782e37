"""What a run reports while it trains: metrics.jsonl, TensorBoard events, the progress bar; and the plain tables.

metrics.jsonl has one JSON object a line: `step`, `split` ("train", "val"), the values, and the keys in WALL_CLOCK, the
only ones that differ between two runs of one config and seed. Non-finite values are written as null. Imports no jax.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vaeflow.errors import RunFailed, UserError
from vaeflow.runs import progress
from vaeflow.runs.events import Events
from vaeflow.runs.files import append, naming, no_follow

WALL_CLOCK = ("seconds", "steps_per_second")


class Metrics:
    """Appends rows to metrics.jsonl and to TensorBoard. A context manager.

    position: length in bytes of metrics.jsonl at the checkpoint that the run resumes from (`position()` of then, kept in its
    `progress`): what was written later is cut off and written again, so there is neither gap nor duplicate.
    """

    def __init__(self, directory: str | Path, position: int = 0, enabled: bool = True):
        self._directory = Path(directory)
        self._path = self._directory / "metrics.jsonl"
        self._file: io.FileIO | None = None
        self._events: Events | None = None
        if not enabled:
            return
        have = self._path.stat().st_size if self._path.exists() else 0
        if have < position:
            lost = f"{self._path} has {have} bytes, where the checkpoint has seen {position}: earlier rows are lost"
            print(lost, file=sys.stderr, flush=True)
        with self._failing(), naming(self._path):
            self._file = io.FileIO(self._path, "a", opener=no_follow)
            self._file.truncate(min(have, position))

    def write(self, step: int, split: str, values: Mapping[str, float], **clock: float) -> None:
        """One row. `clock`: seconds and steps_per_second, see WALL_CLOCK. RunFailed: the disk refuses."""
        if self._file is None:
            return
        numbers = {name: float(value) for name, value in {**values, **clock}.items()}
        row = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        with self._failing():
            append(self._file, self._path, (json.dumps({"step": step, "split": split, **row}) + "\n").encode())
            if self._events is None:
                self._events = Events(self._directory / "tensorboard", step)
            self._events.write(step, {f"{split}/{name}": value for name, value in numbers.items()})

    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the files. RunFailed: a network's disk says only now that it is full."""
        with self._failing():
            try:
                if self._file is not None:
                    with naming(self._path):
                        self._file.close()
            finally:
                if self._events is not None:
                    self._events.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """An OSError of the block as the one line that ends the run."""
        try:
            yield
        except OSError as error:
            kept = "the checkpoints are intact, and the same command resumes from the newest"
            raise RunFailed(f"could not write {error.filename}: {error.strerror}; {kept}") from error


def read_metrics(directory: str | Path, clock: bool = True) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl (null as nan); `clock=False` leaves out the keys in WALL_CLOCK. UserError: no such file."""
    path = Path(directory) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"workdir={directory} has no metrics.jsonl: is it the workdir of a run?")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1):
        if line.endswith("\n"):  # else: the run is writing it just now
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError(f"{path}: line {number} is damaged: {line.strip()[:60]!r}") from None
            rows.append({k: math.nan if v is None else v for k, v in row.items() if clock or k not in WALL_CLOCK})
    return rows


class Progress:
    """A progress bar on a terminal, a line that is rewritten below a notebook's cell, plain lines every few seconds where the output is a
    file or a pipe. A context manager.

    total: steps of the whole run. No thread draws it: `update`, called once a dispatch, does.
    """

    def __init__(self, total: int, enabled: bool = True, every: float = 5.0):
        self._total, self._enabled, self._every = total, enabled, every
        self._times: deque[tuple[float, int]] = deque()  # (time, step) of the last half minute, for the time left
        self._printed, self._line, self._shown, self._saved = 0.0, "", "", ""
        self._bar: Any = None
        self._task: Any = None
        self._terminal, self._hosted, self._cell = progress.terminal(), contextlib.ExitStack(), progress.cell_line()

    def __enter__(self) -> Progress:
        if self._enabled and self._cell is not None:
            self._hosted.enter_context(progress.hosted(self._show))
        elif self._enabled and self._terminal:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            # Named colours: rich's own ones all become the same grey on a terminal with 16 colours.
            column = BarColumn(bar_width=24, style="bright_black", complete_style="green", finished_style="green")
            self._bar = Bar(column, TextColumn("{task.fields[line]}"), auto_refresh=False)
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, line="")
            self._hosted.enter_context(progress.hosted(self._show))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._hosted.close()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif kind is None and self._line and self._cell is None:
            self._print(self._line)
        self._line = ""

    def start(self, step: int) -> None:
        """The run starts or resumes at `step`."""
        self._times.clear()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, refresh=True)

    def update(self, step: int, loss: float, rate: float) -> None:
        """Show the step, the loss and the rate [steps/s] (0: not known yet) after a dispatch."""
        if not self._enabled:
            return
        now = time.monotonic()
        self._times.append((now, step))
        while now - self._times[0][0] > 30 and len(self._times) > 2:
            self._times.popleft()
        (then, first), speed = self._times[0], f"{rate:,.{0 if rate >= 10 else 2}f} steps/s" if rate else ""
        left = f"{progress.duration((self._total - step) * (now - then) / (step - first))} left" if step > first else ""
        words = (f"step {step:,}/{self._total:,}", f"loss {loss:.4g}", speed, left, self._saved)
        self._line = "  ".join(word for word in words if word)
        if self._bar is not None:
            self._shown = self._line
            self._bar.update(self._task, completed=step, line=self._line, refresh=True)
        elif self._cell is not None:
            self._shown = self._line
            self._cell(self._line)
        elif now - self._printed >= self._every:
            self._print(self._line)
            self._printed, self._line = now, ""

    def _show(self, words: str) -> None:
        """A phase within training (progress.py), in place of the step's line until it ends."""
        if self._bar is not None:
            self._bar.update(self._task, line=words or self._shown, refresh=True)
        elif self._cell is not None:
            self._cell(words or self._shown)

    def saved(self, step: int) -> None:
        """A checkpoint was committed."""
        self._saved = f"saved {step:,}"

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(line)

    @staticmethod
    def _print(line: str) -> None:
        print(line, flush=True)


def aligned_table(titles: Sequence[str], rows: Sequence[Sequence[Any]], digits: int | Mapping[str, int] = 3, markdown: bool = False) -> str:
    """An aligned table in plain text or Markdown. Titles carry the units: "NLL [nats]".

    Cells: text, integers, floats with `digits` decimals (of all columns, or by title; 3 where it is not named), pairs
    (value, standard error) printed as value ± error, None or "" for nothing. Columns with a number are flush right, so that
    decimal points and ± stand below each other.
    """
    columns = []
    for i, title in enumerate(titles):
        places = digits if isinstance(digits, int) else digits.get(title, 3)
        cells = [row[i] for row in rows]
        columns.append(_column(title, cells, places))
    lines = [[c[j] for c in columns] for j in range(len(rows) + 1)]
    if markdown:
        lines = [[text.replace("|", "\\|") for text in line] for line in lines]
        rule = ["-" * (len(c[0]) - 1) + ":" if _numeric([row[i] for row in rows]) else "-" * len(c[0]) for i, c in enumerate(columns)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
    rule = ["-" * len(c[0]) for c in columns]
    return "\n".join("  ".join(line).rstrip() for line in [lines[0], rule, *lines[1:]])


def _column(title: str, cells: Sequence[Any], digits: int) -> list[str]:
    """The title and the cells, all of one width."""
    parts = [_text(cell, digits) for cell in cells]
    room = max((len(error) for _, error in parts), default=0)
    texts = [value if not room else f"{value} ± {error:>{room}}" if error else value + " " * (room + 3) for value, error in parts]
    width = max(len(text) for text in [title, *texts, "---"])
    return [text.rjust(width) if _numeric(cells) else text.ljust(width) for text in [title, *texts]]


def _text(cell: Any, digits: int) -> tuple[str, str]:
    """(the value, its error or "")."""
    if isinstance(cell, (tuple, list)):
        value, error = cell
        return _text(value, digits)[0], _text(error, digits)[0]
    if cell is None or isinstance(cell, (str, bool)):
        return ("" if cell is None else str(cell)), ""
    if hasattr(cell, "item"):  # a numpy or jax scalar
        cell = cell.item()
    return (f"{cell:,}" if isinstance(cell, int) else f"{cell:.{digits}f}"), ""


def _numeric(cells: Sequence[Any]) -> bool:
    return any(cell is not None and not isinstance(cell, (str, bool)) for cell in cells)
