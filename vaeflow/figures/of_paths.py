"""Figures of pictures along paths through a latent space: one latent after the other, and from one example to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation import latent_paths, latent_space, trajectories
from vaeflow.figures import latents
from vaeflow.figures.figure import Subject, latent_of, needs_decoded_pictures, needs_pictures

_DEVIATIONS = np.linspace(-3, 3, 13)  # of the prior, in a traversal
_ROWS = 16  # variables in a traversal
_STEPS = np.linspace(0, 1, 11)  # of an interpolation
_PAIRS = 4  # of examples, where none are named


def traversals(subject: Subject) -> list[Path]:
    """traversals_EXAMPLE.png: one variable after the other through the prior's range, the others as an example has them."""
    space, drawn = subject.space(), []
    picked = latent_space.most_active(space, _ROWS)
    carried, what = latent_space.activity(space)
    for i in subject.examples or _pairs(subject)[0][:1]:
        sweep = latent_paths.sweep(space, _encode(subject, [i])[1][0], picked, _DEVIATIONS)
        x, title = (
            _decode(subject, sweep.z, _context(subject, [i])),
            f"decoder means around {_called(subject, i)}, whose own values are framed",
        )
        seen = np.flatnonzero(np.ptp(x, 1).reshape(len(x), -1).any(1))
        if 0 < len(seen) < len(x):  # such as the upper levels of a hierarchy whose decoder has the first one alone
            title += f"\n{len(x) - len(seen)} of the {len(x)} most active latents are left out: p(x|z) does not depend on them"
        else:
            seen = np.arange(len(x))
        x, shown, columns = x[seen], picked[seen], sweep.names
        framed = [(row, int(column)) for row, column in enumerate(sweep.own[seen]) if column >= 0]
        rows = [f"{name}   {carried[v]:.2f}" for name, v in zip(latent_space.names(space, shown), shown, strict=True)]
        labels = "category" if space.width else "value of the latent, in standard deviations of the prior about its mean", f"latent, {what}"
        if 2 * len(columns) < len(rows):  # bits: the longer side lies
            x, framed, labels = x.swapaxes(0, 1), [(column, row) for row, column in framed], labels[::-1]
            rows, columns = columns, [name.replace("   ", "\n") for name in rows]
        path = subject.path(f"traversals_{i}")
        options = dict[str, Any](rows=rows, columns=columns, framed=framed, title=title, xlabel=labels[0], ylabel=labels[1])
        drawn.append(latents.picture_table(x, path, subject.top, **options))
    return drawn


def needs_pairs(subject: Subject) -> None:
    """UserError: no continuous latent and no ODE from noise, the examples are not pictures, or an odd number is asked for."""
    if subject.run.model.dynamics is None or subject.run.model.paired:
        needs_decoded_pictures(subject)
        if latent_of(subject).discrete:
            raise UserError("needs a continuous latent, and this model's is discrete")
    needs_pictures(subject)
    if len(subject.examples) % 2:
        raise UserError(f"needs an even number of --examples (each two are a pair), not {len(subject.examples)}")


def interpolation(subject: Subject) -> list[Path]:
    """interpolation.png: from one example's latents to another's, in a straight line and along a great circle, with the examples at both
    ends. The latents of a continuous-time model are the source that its ODE takes an example to (Song et al. 2021, arXiv 2010.02502)."""
    blocks, titles = [], []
    for i, j in zip(subject.examples[::2], subject.examples[1::2], strict=True) if subject.examples else _pairs(subject):
        x, z = _encode(subject, [i, j])
        given = _context(subject, [i, j])
        context = None if given is None else latent_paths.lerp(given[0], given[1], _STEPS)
        path = np.stack([way(z[0], z[1], _STEPS) for way in (latent_paths.lerp, latent_paths.slerp)])
        ends = [np.broadcast_to(end, (2, 1, *end.shape)) for end in x]
        blocks.append(np.concatenate([ends[0], _decode(subject, path, context), ends[1]], 1))
        titles.append(f"{_called(subject, i)} to {_called(subject, j)}")
    columns = ["data", *(f"{t:g}" for t in _STEPS), "data"]
    options = dict[str, Any](rows=[("linear", "spherical")] * len(blocks), columns=columns, titles=titles)
    options["framed"] = [(row, column) for row in (0, 1) for column in (0, len(columns) - 1)]
    xlabel = f"share of the way in z{'' if subject.run.split.context is None else ' (and in the context)'}"
    return [latents.picture_blocks(blocks, subject.path("interpolation"), subject.top, xlabel=xlabel, **options)]


def _pairs(subject: Subject) -> list[tuple[int, int]]:
    """Examples by chance, two by two, of different classes where there are labels."""
    split = subject.run.split
    rest = np.random.default_rng(subject.seed).permutation(len(split.x))
    label = np.arange(len(rest)) if split.label is None else np.asarray(split.label)
    pairs: list[tuple[int, int]] = []
    while len(rest) > 1 and len(pairs) < _PAIRS:
        others = rest[label[rest] != label[rest[0]]]
        i, j = int(rest[0]), int(others[0] if len(others) else rest[1])
        pairs.append((i, j))
        rest = rest[(rest != i) & (rest != j)]
    return pairs


def _called(subject: Subject, i: int) -> str:
    label, names = subject.run.split.label, subject.run.source.label_names
    return f"{subject.run.name} example {i}" + (f" ({names[label[i]]})" if label is not None and names else "")


def _encode(subject: Subject, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(x as the model sees it [n, *event], z [n, D]) of examples."""
    run = subject.run
    some = jax.tree.map(lambda a: np.asarray(a[list(rows)]), run.split)
    if run.model.latent is None:
        z = trajectories.encode(run.model, run.params, some.x, some.context)
        return some.x, z.reshape(len(z), -1)
    return latent_paths.encode(run.model, run.params, some, run.key, **run.options)


def _context(subject: Subject, rows: Sequence[int]) -> np.ndarray | None:
    """[n, C] of examples."""
    context = subject.run.split.context
    return None if context is None else np.asarray(context[list(rows)])


def _decode(subject: Subject, z: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Means of p(x|z), or x at the end of the ODE: z [*rows, D], context that broadcasts to [*rows, C]."""
    given = None if context is None else np.broadcast_to(context, (*z.shape[:-1], context.shape[-1]))
    if (dynamics := subject.run.model.dynamics) is not None and subject.run.model.latent is None:
        flat = None if given is None else given.reshape(-1, given.shape[-1])
        x = trajectories.decode(subject.run.model, subject.run.params, z.reshape(-1, *dynamics.shape), flat)
        return x.reshape(*z.shape[:-1], *x.shape[1:])
    return latent_paths.decode(subject.run.model, subject.run.params, subject.space(), z, given)
