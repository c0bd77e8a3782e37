"""What the process of a library and the benchmark that asks it say to each other: lines of JSON on standard output.

The libraries' environments have neither vaeflow nor its requirements, so this file needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
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
