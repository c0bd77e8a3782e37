"""Figures are written whole, with the pixels that they should have, and only where they apply."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import distrax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests import toys
from vaeflow import figures
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.density_grid import GridDensity
from vaeflow.figures import FIGURES, Figure, Subject, curves, images, latents, points, tables
from vaeflow.figures import canvas as canvas_module
from vaeflow.figures.canvas import DPI, canvas
from vaeflow.figures.curves import Rows
from vaeflow.figures.of_samples import shows_means
from vaeflow.model import Model


def rows(n: int = 30, latent: bool = True, val: bool = True) -> list[dict]:
    out = []
    for i in range(1, n + 1):
        recon, kl = 20 + 60 / i, 12 * (1 - np.exp(-i / 6))
        out.append({"step": 100 * i, "split": "train", "loss": recon + kl, **({"recon": recon, "kl": kl} if latent else {})})
        if val and i % 3 == 0:
            out.append(
                {"step": 100 * i, "split": "val", "loss": recon + kl + 1, **({"recon": recon + 0.8, "kl": kl + 0.2} if latent else {})}
            )
    return out


def size(path) -> tuple[int, int]:
    """The picture's pixels, after checking that it shows something and that no temporary file is left."""
    picture = Image.open(path)
    assert np.asarray(picture.convert("L")).std() > 1, f"{path} is blank"
    assert not list(path.parent.glob(".*")), "a temporary file is left"
    return picture.size


def near(path, width: float, height: float) -> bool:
    return np.allclose(size(path), (width * DPI, height * DPI), atol=1)


def image_split(n: int = 30):
    split = toys.split(n, (8, 8, 1))
    return split._replace(x=np.clip(np.round(4 * split.x + 8), 0, 16).astype(np.uint8))


def pictures() -> Model:
    """A VAE of the pictures of `image_split`."""
    return toys.linear_gaussian(event=(8, 8, 1))._replace(levels=17)


def looking_at(model: Model, split: Split, folder: Path, rows: Rows = (), config: Any = None, **asked: Any) -> Subject:
    """The subject of a toy model without parameters, whose figures are written to `folder`."""
    config = toys.config(levels=17) if config is None else config
    return figures.look_at(folder.parent, folder, model, {}, config, toys.source(split, 17), rows, **asked)


def test_everything_of_an_image_vae(tmp_path):
    """Curves, plane, samples, reconstructions, scatter and the manifold of a model with two latents."""
    found = figures.draw_all(looking_at(pictures(), image_split(), tmp_path / "figures", rows()))
    names = ["curves", "recon_kl", "samples", "reconstructions", "latents", "manifold", "kl", "prior", "prior_plane"]
    assert found == [tmp_path / "figures" / f"{name}.png" for name in names]
    wide, plane, samples, pairs, scatter, manifold, *_ = found
    assert near(wide, 3.6 * 3 + 0.6, 3.2) and near(plane, 5.6, 4.4) and near(scatter, 6.0, 4.8) and near(manifold, 6.0, 6.0)
    assert size(samples)[0] > 300 and size(pairs)[0] == pytest.approx((12 * 0.5 + 1.1) * DPI, abs=1)


def test_everything_of_a_flow_in_the_plane(tmp_path):
    split = toys.split(400, (2,))
    found = figures.draw_all(looking_at(toys.gaussian_flow(), split, tmp_path, rows(latent=False)))
    assert [path.name for path in found] == ["curves.png", "density.png"]
    assert near(found[0], 4.2, 3.2) and near(found[1], 3.7 * 3 + 0.4, 3.7)
    plane = density_grid.load(tmp_path / "density.npz")
    assert plane.density is not None and plane.density.integral == pytest.approx(1, abs=1e-3) and np.array_equal(plane.points, split.x)
    assert plane.samples is not None and plane.samples.shape == split.x.shape
    cells = [points.Panel(row, column, plane, "NLL 1", "") for row, column in (("a", "one"), ("a", "two"), ("b", "two"))]
    assert near(points.density_table(cells, tmp_path / "densities.png"), 1.55 * 3 + 0.4, 1.75 * 4 + 0.3)
    older = [cell._replace(plane=plane._replace(samples=None)) for cell in cells]
    assert near(points.density_table(older, tmp_path / "densities.png"), 1.55 * 3 + 0.4, 1.75 * 2 + 0.3)
    figures.draw("samples", looking_at(toys.gaussian_flow()._replace(log_prob=None, density="none"), split, tmp_path))
    samples = density_grid.load(tmp_path / "samples.npz")
    assert samples.density is None and samples.samples is not None
    cells = [cells[0]._replace(plane=samples), *older[1:2]]
    assert near(points.density_table(cells, tmp_path / "densities.png"), 1.55 * 3 + 0.4, 1.75 * 2 + 0.3)
    (tmp_path / "density.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read"):
        density_grid.load(tmp_path / "density.npz")


def test_vectors_and_models_without_a_manifold(tmp_path):
    """A vector VAE: marginals; three latents: principal components; no rows: no curves."""
    found = figures.draw_all(looking_at(toys.linear_gaussian(), toys.split(40), tmp_path))
    assert [path.name for path in found] == ["marginals.png", "latents.png", "kl.png", "prior.png", "prior_plane.png"]
    z = np.random.default_rng(0).normal(size=(300, 3)) * [3, 1, 0.1]
    for name, label in (("few", np.arange(300) % 12), ("many", np.arange(300)), ("none", None)):
        size(points.latent_scatter(z, label, [str(i) for i in range(12)], tmp_path / f"{name}.png"))
    first, share = points.principal(z)
    assert abs(abs(np.corrcoef(first[:, 0], z[:, 0])[0, 1]) - 1) < 0.01 and share[0] > 0.8
    size(points.latent_scatter(z[:, :1], None, None, tmp_path / "one.png"))


def test_a_conditional_model_gets_contexts_of_its_data(tmp_path):
    def sample(params, key, n, context=None):
        assert context.shape == (n, 2)
        return {"x": jnp.broadcast_to(context[:, :1, None, None] * 16, (n, 8, 8, 1))}

    split = image_split()._replace(context=np.eye(2, dtype=np.float32)[np.arange(30) % 2])
    found = figures.draw_all(looking_at(pictures()._replace(sample=sample), split, tmp_path))
    assert [path.name for path in found] == ["samples.png", "reconstructions.png", "latents.png", "kl.png", "prior.png", "prior_plane.png"]


def test_pictures_of_a_class_conditional_model_stand_in_one_row_a_class(tmp_path):
    def sample(params, key, n, context=None):
        return {"x": jnp.broadcast_to(8 * jnp.argmax(context, -1)[:, None, None, None], (n, 8, 8, 1))}

    split = image_split()
    split = split._replace(context=np.eye(3, dtype=np.float32)[split.label])
    subject = looking_at(pictures()._replace(sample=sample), split, tmp_path)
    (path,) = figures.draw("samples", subject)
    height = size(path)[1]
    picture = np.asarray(Image.open(path).convert("L")).astype(int)[:, -60]  # through the last column of pictures
    rows = [np.median(picture[int(height * a) : int(height * b)]) for a, b in ((0.2, 0.35), (0.5, 0.6), (0.8, 0.95))]
    assert rows[0] < rows[1] < rows[2]
    assert near(figures.draw_samples(split.x[:7], 17, tmp_path / "x.png", split.label[:7], "abc"), 3.1, 2.8)
    (path,) = figures.draw("samples", subject._replace(label=1))
    assert near(path, 3 * 0.8 + 0.2, 3 * 0.8 + 0.4)  # one class: no rows
    pixels = np.asarray(Image.open(path).convert("L"))
    assert abs(np.median(pixels[len(pixels) // 3 : -len(pixels) // 3]) - 128) < 3


def test_a_figure_is_a_function_and_a_line(tmp_path, monkeypatch):
    """A registered figure is drawn where it applies; one that is not of training only where it is asked for."""

    def draw(subject: Subject) -> list[Path]:
        with canvas(subject.path("toy"), 2, 2) as figure:
            figure.subplots().plot(subject.run.split.x[0])
        return [subject.path("toy")]

    def needs(subject: Subject) -> None:
        if subject.event != (3,):
            raise UserError("needs three numbers")

    monkeypatch.setitem(FIGURES, "toy", Figure(draw, needs, "a toy", default=True))
    vectors, plane = (looking_at(toys.gaussian_flow(), toys.split(9, event), tmp_path) for event in ((3,), (2,)))
    assert near(figures.draw("toy", vectors)[0], 2, 2) and figures.lacking("toy", plane) == "needs three numbers"
    for name in FIGURES:
        monkeypatch.setitem(FIGURES, name, FIGURES[name]._replace(default=name == "toy"))
    assert figures.draw_all(vectors) == [tmp_path / "toy.png"] and figures.draw_all(plane) == []


def test_a_model_that_draws_nothing_has_no_samples(tmp_path):
    """The others are drawn: of a two-dimensional density the panels of data and density."""
    for model, split, left in (
        (toys.gaussian_flow(), toys.split(50, (2,)), ["density"]),
        (toys.linear_gaussian(), toys.split(30), ["latents", "kl", "prior", "prior_plane"]),
    ):
        subject = looking_at(model._replace(sample=None), split, tmp_path)
        assert [path.stem for path in figures.draw_all(subject)] == left
        for name in ("samples", "marginals", "pairs", "temperatures"):
            assert "draws no samples" in figures.lacking(name, subject)
    assert near(tmp_path / "density.png", 3.7 * 2 + 0.4, 3.7)


@pytest.mark.parametrize("event", [(2,), (8, 8, 1)], ids=["plane", "pictures"])
def test_samples_of_pairs_stand_beside_their_x0(tmp_path, monkeypatch, event):
    def sample(params, key, n, context=None, x0=None):
        return {"x": x0 + 1}

    shown: list[Any] = []
    for name in ("point_panels", "picture_table"):
        monkeypatch.setattr(latents, name, lambda x, path, *_, **__: (shown.append(x), path)[1])
    split = toys.split(9, event)
    model = toys.gaussian_flow()._replace(sample=sample, paired=True, event=event)
    subject = looking_at(model, split._replace(x0=3 * split.x), tmp_path)
    assert figures.draw("pairs", subject) == [tmp_path / "pairs.png"] and not figures.lacking("pairs", subject)
    x0, x, drawn = shown[0]
    np.testing.assert_array_equal(x0, 3 * x)
    np.testing.assert_allclose(drawn, x0 + 1)
    assert "pairs" in figures.lacking("pairs", looking_at(toys.gaussian_flow(), split, tmp_path))


def test_single_figures(tmp_path):
    """What experiments.sample and experiments.compare draw."""
    x = image_split(9).x
    for name, samples in (("images", x), ("plane", x.reshape(9, -1)[:, :2]), ("vectors", x.reshape(9, -1))):
        size(figures.draw_samples(samples, 17, tmp_path / f"{name}.png"))
    runs = {f"run {i}": rows(val=i % 2 == 0) for i in range(9)}
    assert near(curves.run_curves(runs, tmp_path / "compare.png"), 6.8, 2 * 4.0)  # runs with validation, runs without
    data = {name: "one" if i < 4 else "two" for i, name in enumerate(runs)}
    assert near(curves.run_curves(runs, tmp_path / "data.png", data), 6.8, 4 * 4.0)
    size(curves.run_curves({"empty": []}, tmp_path / "empty.png"))
    colour = images.image_grid(np.random.default_rng(0).random((5, 4, 6, 3)), tmp_path / "colour.png", "colour", 0)
    assert size(colour)[0] > size(colour)[1]


def test_a_caption_names_the_run_the_split_and_the_parameters(tmp_path, monkeypatch):
    """Below every figure of a run, and of no other figure; the size stays."""
    seen = []
    monkeypatch.setattr(canvas_module, "_write", lambda figure, path: seen.append((path.stem, figure.get_supxlabel())))
    config = toys.config(levels=17)
    config.optim.ema = 0.99
    split = image_split()
    figures.draw_all(looking_at(pictures(), split, tmp_path / "my_run" / "figures", rows(), config))
    captions = dict(seen)
    assert all("my_run, seed 0" in text and "averaged over training (EMA 0.99)" in text.replace("\n", " ") for text in captions.values())
    assert "test split" in captions["samples"] and "training: current parameters" in captions["curves"].replace("\n", " ")
    figures.draw_samples(split.x[:4], 17, tmp_path / "x.png")
    assert seen[-1] == ("x", "")


def test_means_are_told_from_draws():
    model = pictures()
    assert not shows_means(model, {}) and not shows_means(toys.gaussian_flow(), {})
    shown = model._replace(latent=model.latent._replace(show=lambda key, p: p.mean()))
    assert shows_means(shown, {})


def test_curves_survive_odd_rows(tmp_path):
    """One row, non-finite values, a metric that begins late."""
    bad = [
        {"step": 1, "split": "train", "loss": float("nan")},
        *rows(2, val=False),
        {"step": 300, "split": "train", "loss": float("inf"), "kl": 1.0},
    ]
    for i, some in enumerate((bad, rows(1), bad[:1], [{"step": 1, "split": "train", "loss": 2.0}])):
        size(curves.training_curves(some, tmp_path / f"{i}.png"))
    flow, split = toys.gaussian_flow(), toys.split(30, (2,))
    assert "no losses" in figures.lacking("curves", looking_at(flow, split, tmp_path, [{"step": 1, "split": "val", "other": 1.0}]))
    assert "no reconstruction and KL" in figures.lacking("recon_kl", looking_at(flow, split, tmp_path, rows(1)))


def test_density_lies_where_the_data_lie(tmp_path):
    """The third panel has the axes of the first: a bump at (1, -1) is drawn right of and below the centre."""
    xs = ys = np.linspace(-3, 3, 60, dtype=np.float32)
    log_p = distrax.MultivariateNormalDiag(jnp.array([1.5, -1.5]), 0.2 * jnp.ones(2)).log_prob(np.stack(np.meshgrid(xs, ys), -1))
    data = np.random.default_rng(0).uniform(-2, 2, size=(500, 2))
    path = points.density_panels(data, data, GridDensity(xs, ys, np.asarray(log_p)), tmp_path / "density.png")
    picture = np.asarray(Image.open(path).convert("L")).astype(int)
    panel = picture[:, int(picture.shape[1] * 0.68) : int(picture.shape[1] * 0.9)]
    h, w = panel.shape
    dark = [(panel[i : i + h // 2, j : j + w // 2] > 100).mean() for i in (0, h // 2) for j in (0, w // 2)]
    assert np.argmax(dark) == 3


def test_a_failing_figure_leaves_no_file(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(ZeroDivisionError), canvas(path, 2, 2):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_matplotlib_is_imported_late_and_pyplot_never():
    code = "import sys; from vaeflow.figures.curves import run_curves; assert 'matplotlib' not in sys.modules; from pathlib import Path;"
    code += "import tempfile; run_curves({'a': []}, Path(tempfile.mkdtemp()) / 'x.png'); assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_labels_of_a_narrow_logarithmic_panel_stand_apart():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2, 2.0))
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.plot([1.5, 77.0], [0, 1])
    tables._logarithmic(ax)
    figure.canvas.draw()
    labels = [t for t in (*ax.get_xticklabels(), *ax.get_xticklabels(minor=True)) if t.get_text() and 1.5 <= t.get_position()[0] <= 77]
    assert [label.get_text() for label in labels] == ["3", "10", "30"]
    boxes = [label.get_window_extent() for label in labels]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert [tables.short(v) for v in (0.1, 30.0, 3e5, 1e6)] == ["0.1", "30", "300k", "1M"]
