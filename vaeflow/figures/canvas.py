"""One look for all figures, drawn without pyplot and written whole or not at all.

matplotlib takes 1.5 s to import, so it is imported where a figure is made. The style holds inside `canvas` only.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaeflow.runs.files import naming, no_follow

DPI = 150
COLOURS = ("#2a6f97", "#d1495b", "#3a8f5c", "#e09f3e", "#7a5195", "#5f6b73", "#a0522d", "#17a2a2")
INK = "#33383d"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
}


# Run, split and parameters of the figures drawn now: printed below each of them.
_CAPTION: contextvars.ContextVar[str] = contextvars.ContextVar("caption", default="")


@contextlib.contextmanager
def captioned(text: str) -> Iterator[None]:
    """Figures drawn in the block have this line below them."""
    token = _CAPTION.set(text)
    try:
        yield
    finally:
        _CAPTION.reset(token)


@contextlib.contextmanager
def canvas(path: str | Path, width: float, height: float) -> Iterator[Any]:
    """A Figure of width x height inches in the project's style, written to `path` (PNG, 150 dots per inch) at the end."""
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: dict[Any, Any] = STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        if caption := _CAPTION.get():
            characters = max(30, int(width * 17))  # of 6.5 points
            figure.supxlabel("\n".join(textwrap.wrap(caption, characters)), x=0.01, ha="left", fontsize=6.5, color="#6b737b")
        _write(figure, Path(path))


def _write(figure: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb", opener=no_follow) as file:
                figure.savefig(file, format="png", dpi=DPI, metadata={"Software": "vaeflow"})
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
