"""Figures of a run: one line each. Training draws those with default=True into WORKDIR/figures, `explore` draws any into WORKDIR/explore.

To add one: write `draw(subject)`, which writes its PNG by `canvas` and returns the paths, and `needs(subject)`, which raises a UserError
where the figure does not apply; then add its line. The command's --show and --list follow from that.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vaeflow.errors import UserError, unknown_kind
from vaeflow.figures import curves, of_dynamics, of_edits, of_latents, of_paths, of_samples, of_text, of_training
from vaeflow.figures.canvas import captioned
from vaeflow.figures.figure import Figure, Subject, latent_of, look_at, needs_decoded_pictures
from vaeflow.figures.of_edits import edit_table
from vaeflow.figures.of_samples import draw_samples, what_samples
from vaeflow.figures.of_text import lines_of, write_text
from vaeflow.figures.without_data import draw_without_data
from vaeflow.runs.progress import phase

__all__ = [
    "FIGURES",
    "Figure",
    "Subject",
    "draw",
    "draw_all",
    "draw_samples",
    "draw_without_data",
    "edit_table",
    "known",
    "lacking",
    "lines_of",
    "look_at",
    "what_samples",
    "write_text",
]

FIGURES: dict[str, Figure] = {
    "curves": Figure(of_training.curves, of_training.needs_losses, "loss, reconstruction and KL over training", default=True),
    "recon_kl": Figure(
        of_training.recon_kl,
        of_training.needs_recon_kl,
        "the path of training in the plane of KL and reconstruction",
        default=True,
        several=curves.recon_kl_runs,
    ),
    "samples": Figure(of_samples.samples, of_samples.needs_samples_alone, "samples: pictures, or points beside the data", default=True),
    "text": Figure(of_text.text, of_text.needs_text, "samples of text, and examples of the split (text.txt)", default=True),
    "marginals": Figure(of_samples.marginals, of_samples.needs_vectors, "histograms of the dimensions of samples and data", default=True),
    "density": Figure(of_samples.density, of_samples.needs_density, "data, samples and density in the plane", default=True),
    "pairs": Figure(of_samples.pairs, of_samples.needs_pairs, "x0, the data that belong to them, and samples given x0", default=True),
    "trajectories": Figure(
        of_dynamics.trajectories,
        of_dynamics.needs_trajectories,
        "draws on their way from source to data along the ODE",
        default=True,
    ),
    "round_trips": Figure(of_dynamics.round_trips, of_dynamics.needs_round_trips, "data, where the ODE takes them, and back"),
    "edits": Figure(of_edits.edits, of_edits.needs_edits, "examples, what is known of them, and draws of the rest", default=True),
    "reconstructions": Figure(of_latents.reconstructions, needs_decoded_pictures, "data and the means of p(x|z)", default=True),
    "latents": Figure(of_latents.scatter, of_latents.needs_distances, "latents of a split by label", default=True),
    "manifold": Figure(of_latents.manifold, of_latents.needs_plane, "the decoder's mean over the plane of two latents", default=True),
    "kl": Figure(of_latents.kl, of_latents.needs_units, "KL and variance of every latent dimension, active ones in colour", default=True),
    "prior": Figure(of_latents.prior, latent_of, "histograms of the aggregate posterior beside the prior", default=True),
    "prior_hole": Figure(
        of_latents.prior_hole, of_latents.needs_second_stage, "the prior before and after a second stage, beside q(z)", default=True
    ),
    "traversals": Figure(
        of_paths.traversals, needs_decoded_pictures, "one latent dimension after the other, at an example's latents (--examples)"
    ),
    "interpolation": Figure(
        of_paths.interpolation, of_paths.needs_pairs, "between two examples (--examples=a,b or a,b,c,d), linear and spherical"
    ),
    "temperatures": Figure(of_samples.temperatures, of_samples.needs_temperature, "samples at several temperatures, with the same noise"),
}


def known(names: Iterable[str], key: str) -> None:
    """UserError: one of `names`, the value of the flag `key`, has no figure."""
    for name in names:
        if name not in FIGURES:
            raise unknown_kind(key, name, FIGURES)


def lacking(name: str, subject: Subject) -> str:
    """Why a figure does not apply; "" if it does."""
    try:
        FIGURES[name].needs(subject)
    except UserError as error:
        return str(error)
    return ""


def draw(name: str, subject: Subject) -> list[Path]:
    """The paths of a figure that applies. The line below it names the run, the split and the parameters."""
    with phase(f"drawing {name}"), captioned(subject.caption):
        return FIGURES[name].draw(subject)


def draw_all(subject: Subject) -> list[Path]:
    """Draw the figures of training that apply (`Figure.default`) and return their paths."""
    names = [name for name, figure in FIGURES.items() if figure.default and not lacking(name, subject)]
    return [path for name in names for path in draw(name, subject)]
