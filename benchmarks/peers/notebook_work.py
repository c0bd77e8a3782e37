"""What the notebook scripts of all libraries share: the arrays from a file, the watch, the answers as lines of JSON (numpy alone)."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from benchmarks.peers import process

SPLITS = ("x_train", "x_val", "x_test")


def serve(fit: Callable[..., Any], packages: Sequence[str]) -> None:
    """The main function of a notebook script: `fit FILE STEPS SEED ...`. Per seed one line of JSON with the mean held-out log-likelihood,
    that of every test example in nats, and the seconds from the library's import to them; the first seed's contain import and compilation.

    Args:
        fit: (x_train, x_val, x_test, *, steps, seed) -> log p(x_test) [N].
        packages: names whose versions are reported.
    """

    def task(words: list[str]) -> Iterator[process.Answer]:
        file, steps, *seeds = words
        with np.load(file) as stored:
            data = [stored[name] for name in SPLITS]
        for seed in map(int, seeds):
            began = time.perf_counter()
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for the answers
                log_prob = np.asarray(fit(*data, steps=int(steps), seed=seed), np.float64)
            seconds = time.perf_counter() - began
            versions = {name: metadata.version(name) for name in packages}
            yield {"seed": seed, "mean": log_prob.mean(), "log_prob": log_prob.tolist(), "seconds": seconds, "versions": versions}

    process.serve(fit=task)
