"""CSV files with any of the usual separators, with or without a header line.

The separator is a tab, a semicolon, a comma, a bar or white space: the first of these that cuts the first two lines into equally many
cells, at least two. The first line is a header unless one of its cells is a number; without a header the columns are called 0, 1, ...
Numbers are read by numpy, which needs no further package and whose reader has no silent repairs: a short line, an empty cell and a cell
that is no number are errors with their line.
"""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from vaeflow.errors import UserError, unknown

SEPARATORS = ("\t", ";", ",", "|", None)  # None: white space


class Layout(NamedTuple):
    """columns    their names
    separator  one of SEPARATORS
    header     whether the first line names the columns
    """

    columns: list[str]
    separator: str | None
    header: bool


def read_csv(path: Path, label: str) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """The numbers of a CSV file, and its labels.

    Args:
        path: the file, in UTF-8.
        label: the column of the labels; "": there is none.

    Returns:
        (names of all columns, numbers [N, D] float32 of those that are no labels, labels [N] as text or None).

    Raises:
        UserError: the file cannot be read, or has a cell that is no number; the line names its line and column.
    """
    try:
        found = _layout(path, label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} cannot be read as csv: {error}") from None
    if label and label not in found.columns:
        hint = "" if found.header else " (its first line has numbers, so that it is no header)"
        raise UserError(f"{unknown(f'{str(path)!r}: data.label', label, found.columns)}{hint}")
    use = [i for i, name in enumerate(found.columns) if name != label]
    if not use:
        raise UserError(f"{str(path)!r} has no column beside the label {label!r}")

    def columns(use: list[int], dtype: type) -> np.ndarray:
        with path.open(newline="", encoding="utf-8-sig") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of no rows, which is our error below
            if found.header:
                next(filter(None, _rows(file, found.separator)))
            return np.loadtxt(file, dtype, delimiter=found.separator, quotechar='"', comments=None, usecols=use, ndmin=2)

    try:
        x = columns(use, np.float64).astype(np.float32)
        labels = columns([found.columns.index(label)], np.str_)[:, 0] if label else None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} cannot be read as csv: {error}") from None
    except ValueError as error:
        _explain(path, found, label, error)
    if not len(x):
        raise UserError(f"{str(path)!r} has a header but no rows")
    return found.columns, x, labels


def _rows(lines: Iterator[str], separator: str | None) -> Iterator[list[str]]:
    """The cells of every line."""
    if separator is None:
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=separator)


def _layout(path: Path, label: str) -> Layout:
    """How the file is written, from its first two lines that are not empty."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(itertools.islice(filter(str.strip, file), 2))
    if not lines:
        raise UserError(f"{str(path)!r} is empty")
    for separator in SEPARATORS:
        cells = list(_rows(iter(lines), separator))
        if len(cells[0]) > 1 and len({len(row) for row in cells}) == 1:
            break
    else:  # one column, or a second line that is too short
        separator = ","
        cells = list(_rows(iter(lines), separator))
    first = [name.strip() for name in cells[0]]
    # A label that is a number is a place in a file without a header, and may also be a value of its first line.
    header = (label in first and not _is_number(label)) or not any(map(_is_number, first))
    return Layout(first if header else [str(i) for i in range(len(first))], separator, header)


def _explain(path: Path, found: Layout, label: str, error: ValueError) -> NoReturn:
    """The error for the first cell that is no number."""
    width, source = len(found.columns), "the header" if found.header else "the first line"
    with path.open(newline="", encoding="utf-8-sig") as file:
        number = 0

        def counted() -> Iterator[str]:
            nonlocal number
            for line in file:
                number += 1
                yield line

        reader = filter(None, _rows(counted(), found.separator))
        if found.header:
            next(reader)
        for row in reader:
            if len(row) != width:
                raise UserError(f"{str(path)!r}, line {number}: {len(row)} cells where {source} has {width}") from None
            for name, cell in zip(found.columns, row, strict=True):
                if name != label and not _is_number(cell):
                    hint = "" if label else "; a column of labels is named in data.label"
                    hint = "; numbers need a decimal point" if _is_number(cell.replace(",", ".")) else hint
                    if not found.header and number == 1:
                        hint = "; the first line has numbers, so that it is no header"
                    raise UserError(f"{str(path)!r}, line {number}: column {name!r} is not a number: {cell!r}{hint}") from None
    raise UserError(f"{str(path)!r} cannot be read as csv: {' '.join(str(error).split())}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
