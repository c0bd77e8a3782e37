"""Figures that a notebook shows."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path


class Pictures:
    """Figures of a run, which a notebook shows. paths: PNG files, and text files of samples of text."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._bytes = {path: path.read_bytes() for path in paths}  # a temporary run's folder may be gone when they are shown

    def __repr__(self) -> str:
        return "\n".join(map(str, self.paths))

    def _repr_html_(self) -> str:
        return "".join(_shown(path, found) for path, found in self._bytes.items())


def _shown(path: Path, found: bytes) -> str:
    """HTML of a PNG file or of a text."""
    if path.suffix == ".txt":
        return f"<pre>{html.escape(found.decode())}</pre>"
    return f'<img alt="{path.stem}" style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(found).decode()}"><br>'
