"""Numbers over training, from the rows of metrics.jsonl: {"step", "split", "loss", "recon", "kl", ...} in nats per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import COLOURS, INK, canvas

Rows = Sequence[Mapping[str, Any]]
_PANELS = (("loss", "loss"), ("recon", "reconstruction"), ("kl", "KL"))
_DOTS = {
    "train": dict(s=9, zorder=2, label="training"),
    "val": dict(s=34, marker="D", zorder=3, edgecolors=INK, linewidths=0.8, label="validation"),
}
_COLOUR = {"train": COLOURS[0], "val": COLOURS[1]}


def series(rows: Rows, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric; rows without it are left out."""
    found = [(row["step"], row[name]) for row in rows if row.get("split") == split and row.get(name) is not None]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, values


def shown_panels(rows: Rows) -> list[tuple[str, str]]:
    """(name, title) of the metrics that `training_curves` shows."""
    return [(name, title) for name, title in _PANELS if any(len(series(rows, split, name)[0]) for split in _COLOUR)]


def training_curves(rows: Rows, path: Path) -> Path:
    """Loss, and where there are such reconstruction and KL, of training and validation against the step: at least one of `shown_panels`."""
    panels = shown_panels(rows)
    with canvas(path, 3.6 * len(panels) + 0.6, 3.2) as figure:
        for ax, (name, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            shown = []
            for split, colour in _COLOUR.items():
                steps, values = series(rows, split, name)
                if not len(steps):
                    continue
                shown.append(values)
                marker = dict(marker="o", markersize=2.5) if split == "val" else dict(alpha=0.9)
                ax.plot(steps, values, color=colour, label={"train": "training", "val": "validation"}[split], **marker)
                if split == "val" and name == "loss" and np.isfinite(values).any():
                    best = int(np.nanargmin(values))
                    label = f"best {values[best]:.2f} at step {steps[best]:,.0f}"
                    ax.plot(steps[best], values[best], "o", ms=8, mfc="none", mec=colour, label=label)
            ax.set(title=title, xlabel="step", ylabel="nats per example", ylim=_limits(shown))
            ax.legend()
    return path


def recon_kl_plane(rows: Rows, path: Path) -> Path:
    """The path of (KL, reconstruction) over training, coloured by the step, on lines of equal -ELBO = their sum. At least one split has a
    `recon_kl_path`."""
    paths = {split: found for split in ("train", "val") if (found := recon_kl_path(rows, split)) is not None}
    with canvas(path, 5.6, 4.4) as figure:
        ax = figure.subplots()
        last = max(float(steps[-1]) for steps, _, _ in paths.values())
        points = None
        for split, (steps, kl, recon) in paths.items():
            ax.plot(kl, recon, color="#b8bfc6", lw=0.8, zorder=1)
            style = _DOTS[split]
            points = ax.scatter(kl, recon, c=steps, cmap="viridis", vmin=0, vmax=last, **style)
        assert points is not None
        ax.set_ylim(_limits([recon for _, _, recon in paths.values()]))
        ax.set_xlim(_limits([kl[recon <= ax.get_ylim()[1]] for _, kl, recon in paths.values()], high=1.0))
        _equal_sums(ax)
        ax.set_title("reconstruction against KL over training (dashed: equal sum)")
        ax.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none")
        figure.colorbar(points, ax=ax, label="step")
    return path


def recon_kl_runs(runs: Mapping[str, Rows], path: Path) -> Path | None:
    """The paths of several runs in the plane of (KL, reconstruction), one colour a run: of the validation split, without one of training.

    A ring is where a path starts, a square where it ends; its dots grow with the step. Runs that log no KL are left out; None: no run logs
    it. One run: `recon_kl_plane`.
    """
    paths = {}
    for name, rows in runs.items():
        found = {split: p for split in ("val", "train") if (p := recon_kl_path(rows, split)) is not None}
        if found and len(runs) == 1:
            return recon_kl_plane(rows, path)
        for split, way in [*found.items()][:1]:
            paths[name if split == "val" else f"{name} (training)"] = way
    if not paths:
        return None
    with canvas(path, 7.0, 5.0) as figure:
        ax = figure.subplots()
        for i, (name, (steps, kl, recon)) in enumerate(paths.items()):
            colour = COLOURS[i % len(COLOURS)]
            ax.plot(kl, recon, ("-", "--", ":", "-.")[i // len(COLOURS) % 4], color=colour, lw=0.9, alpha=0.8)
            ax.scatter(kl, recon, s=3 + 17 * steps / steps[-1], color=colour, linewidths=0, zorder=2)
            ax.plot(kl[0], recon[0], "o", ms=8, mfc="white", mec=colour, mew=1.4, zorder=3)
            ax.plot(kl[-1], recon[-1], "s", ms=8, mfc=colour, mec=INK, mew=0.8, zorder=4, label=f"{name}: {kl[-1] + recon[-1]:.2f}")
        ax.margins(0.08)
        _equal_sums(ax)
        ax.set_title("reconstruction against KL over training (ring: first, square: last; dashed: equal sum)")
        ax.legend(title="validation: reconstruction + KL at the end", loc="best", ncols=2 if len(paths) > 8 else 1)
    return path


def recon_kl_path(rows: Rows, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(steps, KL, reconstruction) of the rows of a split that have both finite; None for fewer than two."""
    found = [(row["step"], row.get("kl"), row.get("recon")) for row in rows if row.get("split") == split]
    found = [point for point in found if None not in point and np.isfinite(point).all()]
    if len(found) < 2:
        return None
    steps, kl, recon = np.array(found, np.float64).T
    return steps, kl, recon


def _equal_sums(ax: Any) -> None:
    """Dashed lines of equal reconstruction + KL, which is -ELBO, over the axes as they are, and the axes' names."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x, y = np.meshgrid(np.linspace(left, right, 50), np.linspace(low, high, 50))
    lines = ax.contour(x, y, x + y, levels=8, colors="#9aa2a9", linewidths=0.6, linestyles="dashed", zorder=0)
    ax.clabel(lines, fmt="%.4g", fontsize=7)
    ax.grid(False)
    ax.set(xlabel="KL(q(z|x) || p(z)) [nats per example]", ylabel="reconstruction -E log p(x|z) [nats per example]")


def run_curves(runs: Mapping[str, Rows], path: Path, data: Mapping[str, str] | None = None) -> Path:
    """Losses of several runs against the step: a panel per data set and split, since losses of other data or splits do not compare.

    Args:
        runs: {name: rows of metrics.jsonl}; the validation loss is drawn, the training loss of a run without validation.
        data: {name: its data set}; None: one data set.
    """
    panels: dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, rows in runs.items():
        split = "val" if len(series(rows, "val", "loss")[0]) else "train"
        if len(series(rows, split, "loss")[0]):
            panels.setdefault(((data or {}).get(name, ""), split), {})[name] = series(rows, split, "loss")
    with canvas(path, 6.8, 4.0 * max(len(panels), 1)) as figure:
        axes = figure.subplots(max(len(panels), 1), 1, squeeze=False)[:, 0]
        for ax, ((of, split), found) in zip(axes, panels.items(), strict=False):
            for i, (name, (steps, values)) in enumerate(found.items()):
                style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
                ax.plot(steps, values, style, marker="o", markersize=2.5, color=COLOURS[i % len(COLOURS)], label=name)
            what = {"val": "validation", "train": "training"}[split]
            limits = _limits([values for _, values in found.values()])
            ax.set(xlabel="step", ylabel=f"{what} loss [nats per example]", ylim=limits, title=of)
            ax.legend(ncols=2 if len(found) > 6 else 1)
    return path


def _limits(values: list[np.ndarray], high: float = 0.95) -> tuple[float, float] | None:
    """Limits that show where the curves end: the first steps may be far above everything that follows."""
    joined = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.zeros(0)
    if not len(joined):
        return None
    low, top = float(joined.min()), float(np.quantile(joined, high))
    margin = 0.06 * (top - low) or 0.5
    return low - margin, top + margin
