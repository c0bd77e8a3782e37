"""What --list prints: the configs and rows that match a pattern, grouped on a terminal, one per line in a pipe or a file."""

from __future__ import annotations

import difflib
import fnmatch
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

from vaeflow.config import rows
from vaeflow.errors import UserError, question

Row = tuple[str, str]  # ("configs/x.py:row", its description)


def print_rows(pattern: str) -> None:
    """Print the rows that match `pattern`. UserError: there are none."""
    found = matching(list(rows()), pattern)
    if sys.stdout.isatty():
        print(grouped(found, shutil.get_terminal_size().columns))
    else:
        print("\n".join(f"{name}  {line}" for name, line in found))


def matching(known: Sequence[Row], pattern: str) -> list[Row]:
    """The rows whose name or description contains `pattern` in any case: as a text or, where none does, as a glob. UserError: no row."""
    low = pattern.lower()
    found = [row for row in known if any(low in text.lower() for text in row)]
    found = found or [row for row in known if any(fnmatch.fnmatchcase(text.lower(), f"*{low}*") for text in row)]
    if not found:
        words = dict.fromkeys(word for name, _ in known for part in re.findall(r"\w+", name) for word in (part, *part.split("_")))
        near = difflib.get_close_matches(low, words, n=3)
        hint = question("", near) if near else "--list alone shows all"
        raise UserError(f"--list={pattern!r} matches no config, row or description; {hint}")
    return found


def grouped(found: Sequence[Row], width: int) -> str:
    """The rows below the name of their file, in lines of at most `width` characters (where one word is not longer)."""
    groups = []
    for path, members in groupby(found, lambda row: row[0].partition(":")[0]):
        of_path = [(name.removeprefix(path) or "(no row)", line) for name, line in members]
        column = min(max(len(name) for name, _ in of_path), 28, width // 3)
        lines = [path]
        for name, line in of_path:
            first, further = f"  {name:<{column}}  ", " " * (column + 4)
            lines.append(textwrap.fill(line, max(width, 40), initial_indent=first, subsequent_indent=further, break_on_hyphens=False))
        groups.append("\n".join(lines))
    return "\n\n".join(groups)
