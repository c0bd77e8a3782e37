"""The commands one after another, as a user goes: train, evaluate, sample, encode, compare; own data; runs that start from others."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import vaeflow
from tests.commands import FLOW, call, refusal
from tests.data_toys import images, save_png
from tests.runs import ROOT, SMALL, environment
from vaeflow.commands import train
from vaeflow.config import module
from vaeflow.evaluation.results import flat
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import read_metrics

STEPS = ("--config.train.steps=40", "--config.train.log_every=10", "--config.train.eval_every=20", "--config.train.checkpoint_every=20")
# A spline flow of a table, small.
TABLE = (
    *("--config.model.event=3", "--config.data.batch=16", "--config.parts.steps.n=1", "--config.parts.net.hidden=8"),
    *("--config.parts.coupling.bins=4", *STEPS),
)
COMMANDS = ("train", "evaluate", "sample", "encode", "explore", "diagnose", "compare", "prepare")


def trained(tmp: Path, *words: object) -> Path:
    call("train", *words, f"--workdir={tmp}")
    return tmp


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("commands") / "vae", *SMALL, *STEPS)


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("commands") / "flow", *FLOW, *STEPS)


def results(workdir: Path, name: str = "results.json") -> dict:
    return flat(json.loads((workdir / name).read_text()))


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(("name", "event"), [("vae", (8, 8, 1)), ("flow", (2,))])
def test_evaluate_sample_encode(name, event, request):
    workdir = request.getfixturevalue(name)
    first = {key: value for key, value in results(workdir).items() if not key.endswith(("seconds", "measures"))}
    assert "last parameters" in call("evaluate", f"--workdir={workdir}", "--config.eval.params=last")
    text = call("evaluate", f"--workdir={workdir}")
    assert first.items() <= results(workdir).items()  # the run's own table, number by number
    for word in (first["estimator"], "test split", "seed 0", "40 steps", "best parameters", f"commit {first['commit'][:10]}"):
        assert word in text
    assert all((workdir / figure).stat().st_size > 5000 and str(workdir / figure) in text for figure in first["figures"])
    call("evaluate", f"--workdir={workdir}", "--split=val")
    assert results(workdir, "results_val.json")["split"] == "val" and first.items() <= results(workdir).items()

    text = call("sample", f"--workdir={workdir}", "--config.sample.n=5", "--config.sample.temperature=0", "--seed=3")
    options = "denoise True, guidance 1, " if workdir.name == "flow" else ""
    assert f"5 samples, {options}temperature 0, seed 3" in text and (workdir / "figures" / "samples_drawn.png").stat().st_size > 2000
    x = np.load(workdir / "samples.npz")["x"]
    assert x.shape == (5, *event) and np.allclose(x, x[0])  # the middle of the prior, five times

    call("encode", f"--workdir={workdir}", "--split=val")
    found = dict(np.load(workdir / "encoded_val.npz"))
    loss = -found.pop("log_prob").mean()
    n = results(workdir, "results_val.json")["examples"]
    assert {key: value.shape for key, value in found.items()} == ({"mean": (n, 2), "std": (n, 2)} if name == "vae" else {"z": (n, 2)})
    selected = min(row["loss"] for row in read_metrics(workdir) if row["split"] == "val")
    assert loss == pytest.approx(selected, rel=0.05 if name == "vae" else 1e-4)  # a VAE's is another draw


def test_results_say_what_they_stand_on(vae):
    found = results(vae)
    for key, value in {"split": "test", "examples": 300, "estimator": "IWAE-4", "seed": 0, "steps": 40, "params": "best"}.items():
        assert found[key] == value
    assert found["config"] == "configs/digits_vae.py" and found["trained_on"] == ["cpu"] and found["seconds_trained"] > 0
    assert len(found["commit"]) in (0, 40) and found["trained_commit"] == found["commit"]


def test_best_is_by_the_validation_split(vae):
    losses = {row["step"]: row["loss"] for row in read_metrics(vae) if row["split"] == "val"}
    assert set(losses) == {20, 40}
    assert results(vae)["params_step"] == min(losses, key=lambda step: losses[step]) == committed_steps(vae / "checkpoints" / "best")[0]


def test_compare(vae, flow, tmp_path):
    shutil.copytree(vae, tmp_path / "other" / "vae")
    text = call("compare", vae, flow, tmp_path / "other" / "vae", f"--output={tmp_path / 'new' / 'curves.png'}", "--markdown")
    lines = text.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == [f"{vae.parent.name}/vae", f"{flow.parent.name}/flow", "other/vae"]
    assert "-ELBO [nats]" in lines[0] and "steps" in lines[0] and "seed" in lines[0]
    assert all((tmp_path / "new" / name).stat().st_size > 5000 for name in ("curves.png", "recon_kl.png", "densities.png"))


def test_list_shows_every_config_and_row():
    lines = call("train", "--list").splitlines()
    for path in (ROOT / "configs").glob("*.py"):
        if path.stem not in ("__init__", "base", "gans", "vaes"):
            for row, line in module(path).ROWS.items():
                name = f"configs/{path.name}{':' if row else ''}{row}"
                assert any(shown.startswith(f"{name} ") and shown.endswith(line) for shown in lines), name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_three_commands_that_run(command, monkeypatch):
    """They parse, their configs and overrides exist, and each ends in one call of the library."""
    ran = []
    monkeypatch.setattr(train, "introduce", lambda *_, **__: None)
    for file, function, result in (
        *(
            ("commands.train", "launch", None),
            ("commands.train", "evaluate_run", None),
            ("commands.outputs", "draw_samples", None),
            ("commands.outputs", "encode", None),
        ),
        *(("commands.compare", "compare", None), ("commands.explore", "explore", None), ("evaluation.diagnose", "diagnose", None)),
        *(("data.prepared", "prepare", (Path("data"), True)), ("data.gas", "convert", Path("data"))),
    ):
        found = importlib.import_module(f"vaeflow.{file}")
        monkeypatch.setattr(found, function, lambda *_, result=result, **__: (ran.append(1), result)[1])
    with pytest.raises(SystemExit, match="0"):
        call(command, "--help")
    shown = [shlex.split(line) for line in importlib.import_module(f"experiments.{command}").EXAMPLES.splitlines() if line.startswith("  ")]
    assert len(shown) == 3
    commands = [words[3:] for words in shown if words[:3] == ["python", "-m", f"experiments.{command}"]]
    for words in commands:
        call(command, *words)
    assert len(ran) == len(commands) >= 2


def test_dry_run_shows_everything_and_writes_nothing(tmp_path):
    text = call("train", *FLOW, *STEPS, "--dry_run", f"--workdir={tmp_path / 'run'}")
    for held in ("--config.optim.learning_rate=0.002", "layer/00/", "trained", "MFLOP", "memory: ", " MB", "40 steps of 64 examples"):
        assert held in text, held
    assert list(tmp_path.iterdir()) == []


def test_load_in_a_notebook(vae):
    run = vaeflow.load(vae)
    assert run.config.model.latent == 2 and set(run.params) == {"encoder", "decoder"}
    assert run.sample(3).shape == (3, 8, 8, 1)
    last = vaeflow.load(str(vae), {"eval.params": "last"}).params
    assert jax.tree.structure(last) == jax.tree.structure(run.params)


def test_a_finished_run_answers_without_data_and_checkpoints(vae):
    code = (
        "import sys, vaeflow, experiments.train\n"
        "experiments.train.main(sys.argv[1:])\n"
        "assert 'vaeflow.evaluation.store' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    words = [sys.executable, "-c", code, *SMALL, *STEPS, f"--workdir={vae}"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "is finished; its results" in done.stdout and "IWAE" in done.stdout and str(vae / "figures" / "curves.png") in done.stdout


def test_init_from_starts_where_the_other_run_ended(vae, tmp_path):
    words = (*SMALL, "--config.train.steps=1", "--config.optim.name=sgd", "--config.optim.learning_rate=1e-12", "--config.seed=1")
    text = call("train", *words, f"--config.init_from={vae}", f"--workdir={tmp_path / 'tuned'}")
    assert f"init_from={vae}: 8 of 8 arrays" in text
    for new, old in zip(leaves(vaeflow.load(tmp_path / "tuned").params), leaves(vaeflow.load(vae).params), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-7)


def test_fixed_from_trains_a_prior_on_a_frozen_vae(vae, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(vae, source)
    words = [word.replace(".py", ".py:realnvp_prior") for word in SMALL]
    small = (*STEPS, "--config.parts.prior.n=1", "--config.parts.prior_net.hidden=8", "--config.seed=1")
    text = call("train", *words, *small, f"--config.fixed_from={source}", f"--workdir={tmp_path / 'prior'}")
    assert f"fixed_from={source}: 8 arrays stay as they are" in text
    source.rename(tmp_path / "gone")
    before, after = vaeflow.load(vae).params, vaeflow.load(tmp_path / "prior").params
    for part in ("encoder", "decoder"):
        for new, old in zip(leaves(after[part]), leaves(before[part]), strict=True):
            np.testing.assert_array_equal(new, old)
    assert any(leaf.any() for leaf in leaves(after["prior"]))
    rows = [row["loss"] for row in read_metrics(tmp_path / "prior") if row["split"] == "val"]
    assert rows[-1] != rows[0]  # the prior moved
    assert "NLL" in call("evaluate", f"--workdir={tmp_path / 'prior'}")
    call("sample", f"--workdir={tmp_path / 'prior'}")


def test_own_tables(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 3)), rng.integers(0, 2, 120)
    lines = ["a,b,kind,c", *(f"{a},{b},{'no' if k else 'yes'},{c}" for (a, b, c), k in zip(x, y, strict=True))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    csv = (f"--config.data.path={tmp_path / 'table.csv'}", "--config.data.label=kind", "--config.data.context=label")
    workdir = trained(tmp_path / "csv", "--config=configs/own_table.py", *TABLE, *csv)
    (tmp_path / "table.csv").unlink()  # sampling needs the workdir alone
    for label, drawn in ((1, [1, 1, 1]), (-1, [0, 1, 0])):
        call("sample", f"--workdir={workdir}", f"--label={label}", "--config.sample.n=3")
        found = np.load(workdir / "samples.npz")
        assert found["x"].shape == (3, 3) and found["label"].tolist() == drawn
    line = refusal("sample", f"--workdir={workdir}", "--label=2")
    assert "--label=2" in line and "0 to 1" in line
    assert results(workdir)["density"] == "exact" and results(workdir)["examples"] == 12

    np.savez(tmp_path / "table.npz", x=x, context=x[:, :1].astype(np.float32))
    npz = (f"--config.data.path={tmp_path / 'table.npz'}", "--config.data.context=array", "--config.data.test_fraction=0")
    workdir = trained(tmp_path / "npz", "--config=configs/own_table.py:npz", *TABLE, *npz)
    assert results(workdir)["split"] == "val"  # there is no test split
    call("sample", f"--workdir={workdir}")
    assert np.load(workdir / "samples.npz")["context"].shape == (64, 1)


def test_own_pictures(tmp_path):
    for i, x in enumerate(images(60, (8, 6, 3))):
        save_png(tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png", x)
    words = (
        f"--config.data.path={tmp_path / 'pictures'}",
        "--config.model.event=8,6,3",
        "--config.data.batch=8",
        "--config.model.latent=2",
    )
    nets = [f"--config.parts.{part}.{size}" for part in ("encoder", "decoder") for size in ("channels=4", "hidden=8")]
    cache = ("--config.eval.k=2", "--config.eval.chunk=2", f"--config.data.cache_dir={tmp_path / 'cache'}")
    workdir = trained(tmp_path / "run", "--config=configs/own_images.py", *words, *nets, *STEPS, *cache)
    assert {Path(figure).stem for figure in results(workdir)["figures"]} >= {"curves", "samples", "reconstructions", "latents"}
    assert results(workdir)["bits_per_dim"] > 0


def test_a_config_that_was_edited_is_checked_again(vae, tmp_path):
    shutil.copytree(vae, tmp_path / "run")
    kept = json.loads((vae / "config.json").read_text())
    for change, held in (
        ({"sample": 3}, "sample=3"),
        ({"more": 3}, "'more'"),
        ({"data": {}}, "missing data.kind"),
        ({"model": {}}, "model.kind"),
    ):
        (tmp_path / "run" / "config.json").write_text(json.dumps(kept | change))
        assert held in refusal("evaluate", f"--workdir={tmp_path / 'run'}")
    (tmp_path / "run" / "config.json").write_text("[]")
    assert "config.json" in refusal("sample", f"--workdir={tmp_path / 'run'}")


def test_early_stopping_says_so(tmp_path):
    words = (*FLOW, "--config.train.steps=1000", "--config.train.patience=2", "--config.optim.learning_rate=1e-30", "--config.optim.ema=0")
    text = call("train", *words, f"--workdir={tmp_path / 'run'}")
    assert "early stopping at step 30: no better validation loss in 2 evaluations" in text
    found = results(tmp_path / "run")
    assert (found["steps"], found["params"], found["params_step"]) == (30, "best", 10)
    text = call("train", *words, f"--workdir={tmp_path / 'run'}")
    assert "is finished" in text and "30 steps" in text
