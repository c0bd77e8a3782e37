"""What the process of a library and the benchmark that asks it say to each other: lines of JSON on standard output.

The libraries' environments have neither vaeflow nor its requirements, so this file needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Answer = dict[str, Any]


def ask(python: str, module: str, task: str, *words: object) -> list[Answer]:
    """The answers of `python -m benchmarks.peers.<module> <task> <words>`; ends with one line when it fails. All on the CPU."""
    command = [str(Path(python).expanduser()), "-m", f"benchmarks.peers.{module}", task, *(str(word) for word in words)]
    try:
        found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    except OSError as error:
        sys.exit(f"cannot start {python}: {error.strerror}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{module} {task} ended with status {error.returncode}; its own message is above")
    return [json.loads(line) for line in found.stdout.splitlines()]


def serve(**tasks: Callable[[list[str]], Iterable[Answer]]) -> None:
    """The main function of a library's process: the first argument is the task, the rest are its words."""
    for answer in tasks[sys.argv[1]](sys.argv[2:]):
        print(json.dumps(answer), flush=True)


def measure(run: Callable[[], Any], seconds: float = 4.0, least: int = 3, most: int = 25) -> float:
    """The median milliseconds of a call of `run`, which returns when its result is there; one call before is not counted."""
    run()
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < most):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


Run = Callable[[], Any]  # one call; returns when its result is there


def requests(runs: Mapping[str, Run], per_call: Mapping[str, int] | None = None) -> Iterator[Answer]:
    """The second half of a library's task that is timed in turns with others: for every line `NAME SECONDS` of standard input, calls of
    runs[NAME] for about that long, and {ms: the median of one; calls; peak_mb: the most memory that the process had meanwhile}. per_call:
    how many repetitions one call stands for (1 where it says nothing)."""
    for line in sys.stdin:
        name, seconds = line.split()
        _forget_peak()
        times: list[float] = []
        while not times or sum(times) < float(seconds):
            began = time.perf_counter()
            runs[name]()
            times.append(time.perf_counter() - began)
        one = (per_call or {}).get(name, 1)
        yield {"ms": 1e3 * statistics.median(times) / one, "calls": len(times), "peak_mb": _peak()}


def _forget_peak() -> None:
    """The system's record of this process's largest memory begins anew (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The largest memory since then in MB; since the process began where the system cannot forget."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [float(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class Worker:
    """A library's process that waits for requests: its first answer, and those that follow."""

    def __init__(self, python: str, module: str, task: str, *words: object):
        command = [str(Path(python).expanduser()), "-m", f"benchmarks.peers.{module}", task, *map(str, words)]
        env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
        try:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        except OSError as error:
            sys.exit(f"cannot start {python}: {error.strerror}")
        self._name = f"{module} {task}"
        self.first = self._answer()

    def ask(self, *words: object) -> Answer:
        """One request."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._name} ended with status {self._process.wait()}; its own message is above")
        return json.loads(line)
