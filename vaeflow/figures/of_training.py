"""Figures of training, from metrics.jsonl: they need no parameters."""

from __future__ import annotations

from pathlib import Path

from vaeflow.errors import UserError
from vaeflow.figures.canvas import captioned
from vaeflow.figures.curves import recon_kl_path, recon_kl_plane, shown_panels, training_curves
from vaeflow.figures.figure import Subject


def needs_losses(subject: Subject) -> None:
    """UserError: no loss is recorded."""
    if not shown_panels(subject.rows):
        raise UserError("metrics.jsonl has no losses")


def curves(subject: Subject) -> list[Path]:
    """curves.png: loss, reconstruction and KL against the step."""
    with captioned(_caption(subject)):
        return [training_curves(subject.rows, subject.path("curves"))]


def needs_recon_kl(subject: Subject) -> None:
    """UserError: reconstruction and KL are not recorded."""
    if all(recon_kl_path(subject.rows, split) is None for split in ("train", "val")):
        raise UserError("metrics.jsonl has no reconstruction and KL, which are recorded for models with a latent variable")


def recon_kl(subject: Subject) -> list[Path]:
    """recon_kl.png: the path of training in the plane of KL and reconstruction."""
    with captioned(_caption(subject)):
        return [recon_kl_plane(subject.rows, subject.path("recon_kl"))]


def _caption(subject: Subject) -> str:
    return f"{subject.called}, seed {subject.run.seed}; training: current parameters, validation: {subject.parameters}"
