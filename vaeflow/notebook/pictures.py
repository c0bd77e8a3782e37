"""Figures that a notebook shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path


class Pictures:
    """Figures of a run, which a notebook shows. paths: the PNG files."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._bytes = {path.stem: path.read_bytes() for path in paths}  # a temporary run's folder may be gone when they are shown

    def __repr__(self) -> str:
        return "\n".join(map(str, self.paths))

    def _repr_html_(self) -> str:
        pictures = {name: base64.b64encode(found).decode() for name, found in self._bytes.items()}
        text = '<img alt="{}" style="max-width: 100%" src="data:image/png;base64,{}"><br>'
        return "".join(text.format(name, picture) for name, picture in pictures.items())
