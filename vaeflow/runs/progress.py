"""Progress of everything that lasts: phases with their share and the time left, on a terminal or in plain lines.

    with reporting():                                   # once per command
        with phase("likelihood, IWAE-100"):             # what is running now; phases may nest
            for i in range(n):
                advance(i, n)                           # the share that is done, where it is known

A terminal and a notebook's cell show one live line. A pipe or a file gets a line every few seconds, and none from a phase that is shorter.
A thread writes these lines, so a long compilation or a long dispatch is not silent. Without `reporting`, `phase` and `advance` do nothing.
Imports no jax.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

EVERY = 5.0  # seconds between plain lines
_TICK = 0.5  # seconds between looks at the clock


def terminal() -> bool:
    """True if standard output is a terminal that can rewrite a line."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def cell_line() -> Callable[[str], None] | None:
    """A function that shows a line below a notebook's cell in place of the one that it showed before; None outside a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        return None
    display: Any = sys.modules["IPython"].display.display
    shown: list[Any] = []  # the handle of the line

    def show(line: str) -> None:
        data = {"text/plain": line}
        if shown:
            shown[0].update(data, raw=True)
        elif line:
            shown.append(display(data, raw=True, display_id=True))

    return show


def duration(seconds: float) -> str:
    """12 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class _Phase:
    """A phase that is running: its name, when it started, the share that is done."""

    def __init__(self, name: str):
        self.name, self.began, self.share = name, time.monotonic(), 0.0
        self.first: tuple[float, float] | None = None  # (time, share) of the first advance: compilation comes before it

    def advance(self, share: float) -> None:
        now = time.monotonic()
        if self.first is None or share < self.share:  # the first of a loop, or of another one in the same phase
            self.first = now, share
        self.share = share

    def line(self) -> str:
        now = time.monotonic()
        if not self.share:
            return f"{self.name}: {duration(now - self.began)}"
        then, start = self.first or (self.began, 0.0)
        if self.share > start:
            left = (1 - self.share) * (now - then) / (self.share - start)
        else:
            left = (1 - self.share) * (now - self.began) / self.share
        return f"{self.name}: {self.share:.0%}, {duration(left)} left"


class Reporter:
    """Shows the innermost phase. `every`: seconds between plain lines. One per command, see `reporting`."""

    def __init__(self, every: float = EVERY):
        self._every, self._stack, self._lock = every, list[_Phase](), threading.RLock()
        self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._cell = cell_line()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self.host: Callable[[str], None] | None = None  # a live display that shows the line instead: the training bar

    def start(self) -> None:
        """Start the thread that writes the lines."""
        self._thread.start()

    def stop(self) -> None:
        """End the live line and the thread."""
        self._ended.set()
        with self._lock:
            self._stack.clear()
            self._clear()
        if self._thread.is_alive():
            self._thread.join()

    def push(self, name: str) -> _Phase:
        """Start a phase."""
        with self._lock:
            self._stack.append(_Phase(name))
            self._show()
            return self._stack[-1]

    def pop(self, one: _Phase) -> None:
        """End a phase."""
        with self._lock:
            if one in self._stack:
                self._stack.remove(one)
            if self._stack:
                self._show()
            else:
                self._clear()

    def advance(self, done: float, total: float) -> None:
        """done / total of the innermost phase."""
        with self._lock:
            if self._stack:
                self._stack[-1].advance(done / total)
                self._show()

    def _watch(self) -> None:
        while not self._ended.wait(min(_TICK, self._every)):
            with self._lock:
                try:
                    self._show()
                except (OSError, ValueError):  # standard output is closed or full: the next print of the command raises it
                    self._ended.set()

    def _show(self) -> None:
        if not self._stack or self._ended.is_set():
            return
        line, share = self._stack[-1].line(), self._stack[-1].share
        if self.host is not None:
            self.host(line)
        elif self._cell is not None:
            self._cell(line)
        elif terminal():
            self._live(line, share)
        elif time.monotonic() - max(self._printed, self._stack[-1].began) >= self._every:
            print(line, flush=True)
            self._printed = time.monotonic()

    def _live(self, line: str, share: float) -> None:
        if self._bar is None:
            from rich.progress import BarColumn, Progress, TextColumn

            column = BarColumn(bar_width=24, style="bright_black", complete_style="green", finished_style="green", pulse_style="green")
            self._bar = Progress(column, TextColumn("{task.fields[line]}"), auto_refresh=False, transient=True)
            self._task = self._bar.add_task("", total=None, line=line)
            self._bar.start()
        self._bar.update(self._task, completed=share, total=1.0 if share else None, line=line, refresh=True)

    def _clear(self) -> None:
        if self.host is not None:
            self.host("")
        elif self._cell is not None:
            self._cell("")
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @contextlib.contextmanager
    def hosted(self, host: Callable[[str], None]) -> Iterator[None]:
        """While another live display is there, it shows the phases' line."""
        with self._lock:
            self._clear()
            self.host = host
        try:
            yield
        finally:
            with self._lock:
                self.host = None


_current: Reporter | None = None


@contextlib.contextmanager
def reporting(enabled: bool = True, every: float = EVERY) -> Iterator[None]:
    """Show the phases of the block. Nested in another `reporting`, or not enabled, it changes nothing."""
    global _current
    if not enabled or _current is not None:
        yield
        return
    _current = Reporter(every)
    _current.start()
    try:
        yield
    finally:
        mute()


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """What the block does, in a few words."""
    reporter = _current
    if reporter is None:
        yield
        return
    one = reporter.push(name)
    try:
        yield
    finally:
        reporter.pop(one)


def mute() -> None:
    """Stop showing progress in this process: process 0 of the run shows it."""
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def advance(done: float, total: float) -> None:
    """done / total of the innermost phase's work is finished."""
    if _current is not None:
        _current.advance(done, total)


def hosted(host: Callable[[str], None] | None) -> contextlib.AbstractContextManager[Any]:
    """See `Reporter.hosted`; None, or without a reporter: nothing."""
    return contextlib.nullcontext() if _current is None or host is None else _current.hosted(host)
