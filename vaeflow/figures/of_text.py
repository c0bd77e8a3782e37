"""Samples of text (data.kind=text), a line each: line breaks and other characters that do not print are escaped, as \\n."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaeflow.data.text import decode
from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.figures.draws import conditions, draw_x
from vaeflow.figures.figure import Subject, needs_samples
from vaeflow.runs.files import write_atomic

_EXAMPLES = 8  # of the split


def needs_text(subject: Subject) -> None:
    """UserError: there are no samples, or they are not text."""
    needs_samples(subject)
    if not subject.run.source.alphabet:
        raise UserError("needs text, which these data are not")


def text(subject: Subject) -> list[Path]:
    """text.txt: config.sample.n samples, and examples of the split."""
    alphabet, n = subject.run.source.alphabet or (), subject.run.config.sample.n
    drawn = draw_x(subject, conditions(subject, n), n)
    data = lines_of(np.asarray(evenly(subject.run.split, _EXAMPLES).x), alphabet)
    lines = [subject.caption, "", "samples", *lines_of(drawn, alphabet), "", "data", *data]
    return [write_text(subject.path("text").with_suffix(".txt"), lines)]


def lines_of(x: np.ndarray, alphabet: Sequence[str]) -> list[str]:
    """Sequences of integers [N, L] as lines. Characters that do not print are escaped: a stranger's alphabet writes to a terminal."""
    shown = tuple(a if a.isprintable() else a.encode("unicode_escape").decode() for a in alphabet)
    return decode(x, shown)


def write_text(path: Path, lines: Sequence[str]) -> Path:
    """Write lines to a file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines) + "\n")
    return path
