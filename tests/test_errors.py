"""A wrong command ends within seconds with one line that names the key, the value and what is known, before anything is compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import pytest

from tests.commands import FLOW, call, refusal
from tests.data_toys import images, write_tfds
from tests.runs import SMALL, run, start
from vaeflow.data import prepared

# (words after --config=..., what the line must hold); "config." keys are given without their dashes
VAE = [
    (["optm.learning_rate=1"], ["'optm'", "did you mean 'optim'", "data, devices, eval"]),
    (["optim.learning_rte=1"], ["config.optim", "'learning_rte'", "did you mean 'learning_rate'", "weight_decay"]),
    (["optim.name.x=1"], ["config.optim.name", "'adam'", "'x'"]),
    (["optim=1"], ["config.optim is a group", "learning_rate"]),
    (["parts.encodr.hidden=3"], ["config.parts", "'encodr'", "encoder"]),
    (["parts.encoder.hiden=3"], ["config.parts.encoder", "'hiden'", "hidden"]),
    (["parts.encoder.hidden=a"], ["parts.encoder.hidden[0]='a'", "int"]),
    (["parts.encoder.hidden=32,-3"], ["parts.encoder.hidden[1]=-3", ">= 1"]),
    (["parts.encoder.activation=rlu"], ["parts.encoder.activation='rlu'", "relu", "tanh"]),
    (["parts.encoder.kind=mpl"], ["parts.encoder.kind='mpl'", "mlp", "conv"]),
    (["parts.encoder.kind=affine_coupling"], ["parts.encoder.kind='affine_coupling'", "is a layer, where a net is needed", "mlp"]),
    (["model.prior=encoder"], ["parts.encoder.kind='mlp'", "is a net, where a layer is needed", "spline_coupling"]),
    (["model.encoder=nope"], ["model.encoder='nope'", "decoder", "encoder"]),
    (["model.kind=vea"], ["model.kind='vea'", "flow, flow_map, flow_mixture, flows.", "ladder, layered, standardized, two_stage, vae"]),
    (["model.kind=maf"], ["model.kind='maf'", "did you mean 'flows.maf'"]),
    (["model.kind=flow"], ["config.model", "'latent'", "flatten"]),  # the command has config.model.latent=2
    (["model.kind=classifier"], ["config.model", "'latent'", "smoothing"]),
    (["model.latent=0"], ["model.latent=0", ">= 1"]),
    (["model.latent=two"], ["model.latent='two'", "int"]),
    (["model.event=28,28,1"], ["model.event=(28, 28, 1)", "(8, 8, 1)"]),
    (["model.levels=256"], ["model.levels=256", "17"]),
    (["model.likelihood=bernoulli"], ["model.likelihood='bernoulli'", "binary", "levels=17"]),
    (["model.likelihood=bernouli"], ["model.likelihood='bernouli'", "bernoulli_intensities"]),
    (["model.objective=linear"], ["model.objective='linear'", "dreg, elbo, elbo_path, free_bits"]),
    (["model.objective=free_bits"], ["model.objective='free_bits' requires nats", "config.parts.objective.kind=free_bits with nats"]),
    (["parts.elbo.beta=linear"], ["parts.elbo.beta='linear' requires steps", "config.parts.beta.kind=linear with steps"]),
    (["parts.elbo.beta=rise"], ["parts.elbo.beta='rise' is unknown", "constant, cyclical, doubling, geometric, linear", "or a number"]),
    (["parts.elbo.beta=-1"], ["parts.elbo.beta=-1.0", ">= 0"]),
    (["parts.beta.kind=linear"], ["parts.beta", "missing parts.beta.steps (int >= 1)"]),
    (["optim.learning_rate=nan"], ["optim.learning_rate=nan", "finite"]),
    (["optim.learning_rate=inf"], ["optim.learning_rate=inf", "finite"]),
    (["optim.learning_rate=-1"], ["optim.learning_rate=-1", "> 0"]),
    (["optim.learning_rate=fast"], ["optim.learning_rate='fast'", "float"]),
    (["optim.learning_rate="], ["optim.learning_rate=''", "float"]),
    (["optim.name=adm"], ["optim.name='adm'", "adamw", "sgd"]),
    (["optim.schedule=cos"], ["optim.schedule='cos'", "cosine"]),
    (["optim.weight_decay=0.1"], ["optim.weight_decay=0.1", "'adam'", "adamw, lamb, lion"]),
    (["optim.warmup=2000", "train.steps=40"], ["optim.warmup=2000", "train.steps=40"]),
    (["optim.ema=1"], ["optim.ema=1", "< 1"]),
    (["train.steps=-3"], ["train.steps=-3", ">= 1"]),
    (["seed=99999999999999999999"], ["config.seed=99999999999999999999", "<= 4294967295"]),
    (["data.kind=mnist"], ["data.kind='mnist'", "digits, hdf5, hf, image_folder", "tfds"]),
    (["data.batch=2000"], ["data.batch=2000", "1297"]),
    (["data.train=train[:100]"], ["data.train='train[:100]'", "data.kind='digits'", "tfds"]),
    (["data.context=lable"], ["data.context='lable'", "label", "none"]),
    (["data.context=array"], ["data.context='array'", "'digits'"]),
    (["data.binarize=treshold"], ["data.binarize='treshold'", "threshold"]),
    (["data.binarize=threshold", "model.levels=17"], ["model.levels=17", "2 levels"]),
    (["data.kind=tfds", "data.name=mnist", "data.dir=/no/where"], ["data.dir='/no/where'", "experiments.prepare --dataset=mnist"]),
    (["data.kind=npz", "data.path=/no/where.npz"], ["data.path='/no/where.npz'", "does not exist", ".npz"]),
    (["data.kind=npz", "data.path=LICENSE"], ["data.path='LICENSE'", "cannot be read as npz"]),
    (["data.kind=csv", "data.path=/no/where.csv"], ["data.path='/no/where.csv'", "does not exist", ".csv"]),
    (["data.kind=image_folder", "data.path=/no/where"], ["data.path='/no/where'", "is not a folder"]),
    (["init_from=configs"], ["config.init_from='configs'", "is not a workdir"]),
    (["eval.params=bst"], ["eval.params='bst'", "auto, best, last"]),
    (["eval.k=0"], ["eval.k=0", ">= 1"]),
    (["sample.n=0"], ["sample.n=0", ">= 1"]),
    (["sample.foo=1"], ["config.sample", "'foo'", "n, temperature"]),
    (["devices.mapping=pmapp"], ["devices.mapping='pmapp'", "pmap, shard_map"]),
]
PAIR = ["data.kind=pair", "data.x.kind=density", "data.x0.kind=density"]
MOONS = [
    (["data.name=moon"], ["data.name='moon'", "did you mean 'moons'", "8gaussians"]),
    (["data.size=0"], ["data.size=0", "number of training examples"]),
    (["data.val_fraction=0", "train.patience=3"], ["train.patience=3", "validation split"]),
    (["data.val_fraction=0", "eval.params=best"], ["eval.params='best'", "validation split"]),
    (["model.layer=coupling_c"], ["model.layer='coupling_c'", "first", "flow", "second"]),
    (["parts.first.kind=affine"], ["parts.first.kind='affine'", "affine_coupling"]),
    (["parts.first.mask=checkerboard"], ["mask='checkerboard'", "(2,)"]),
    (["parts.flow.of=norm,flow"], ["parts.flow", "flow -> flow"]),
    (["parts.flow.of="], ["no parameters to train", "model.kind='flow'"]),
    (["parts.steps.n=0"], ["parts.steps.n=0", ">= 1"]),
    (["model.dequantize=uniform"], ["model.dequantize='uniform'", "model.levels=0"]),
    (["data.kind=pair"], ["data.x.kind is missing", "data.kind='pair'"]),
    (["data.x0.name=rings"], ["data.x0 is read by data.kind='pair' alone", "'density'"]),
    (["data.pairing=shuffle"], ["data.pairing='shuffle' needs x0", "'density'"]),
    (["data.x0.nam=rings"], ["config.data.x0", "'nam'", "did you mean 'name'"]),
    (["data.x0.size=many"], ["config.data.x0.size='many'", "must be int"]),
    (["data.x0=rings"], ["config.data.x0 is a group of values"]),
    ([*PAIR, "data.x0.levels=3"], ["data.x0.levels=3 is not read by data.x0.kind='density'", "set it to 0"]),
    ([*PAIR, "data.train=x"], ["data.train='x' is not read by data.x.kind='density' and data.x0.kind='density'"]),
    ([*PAIR, "data.x0.name=ring"], ["data.x0: data.name='ring'", "did you mean 'rings'"]),
]


@pytest.mark.parametrize(
    ("base", "words", "held"),
    [pytest.param(base, *case, id=" ".join(case[0])) for base, cases in ((SMALL, VAE), (FLOW, MOONS)) for case in cases],
)
def test_a_wrong_value(base, words, held, tmp_path):
    line = refusal("train", *base, f"--workdir={tmp_path / 'run'}", *(f"--config.{word}" for word in words))
    assert all(part in line for part in held), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "words", "held"),
    [
        ("train", [], ["--config", "--list"]),
        ("train", ["--confg=x"], ["--confg is not a flag of", "did you mean --config?", "--workdir"]),
        ("train", ["--config"], ["--config", "expected one argument", "--workdir"]),
        ("train", ["more"], ["unrecognized arguments: more", "--config"]),
        ("train", ["--config=configs/digit_vae.py"], ["'configs/digit_vae.py'", "did you mean 'configs/digits_vae.py'"]),
        ("train", ["--config=no/where.py"], ["'no/where.py'", "configs/digits_vae.py"]),
        ("train", ["--config=README.md"], ["'README.md'", "configs/digits_vae.py"]),
        ("train", ["--config=configs/base.py"], ["configs/base.py", "ROWS"]),
        ("train", ["--config=configs/digits_vae.py:3d"], ["configs/digits_vae.py", "'3d'", "maf_prior"]),
        ("train", [*SMALL, "--config.optim.learning_rate", "--dry_run"], ["--config.optim.learning_rate needs a value"]),
        ("train", [*SMALL, "--workdir="], ["--workdir", "empty"]),
        ("train", [*SMALL, "--processes=two"], ["--processes", "'two'"]),
        ("train", [*SMALL, "--processes=2"], ["--processes=2", "--coordinator=HOST:PORT"]),
        ("train", [*SMALL, "--coordinator=localhost", "--processes=1", "--process=0"], ["--coordinator='localhost'", "HOST:PORT"]),
        ("train", [*SMALL, "--coordinator=localhost:1234", "--processes=2", "--process=2"], ["--processes=2", "--process=2"]),
        ("train", [*SMALL, "--coordinator=no.host.invalid:1234", "--processes=2", "--process=1"], ["no.host.invalid", "not found"]),
        ("evaluate", [], ["required: --workdir", "--split"]),
        ("evaluate", ["--wrkdir=runs/a"], ["--wrkdir is not a flag of", "did you mean --workdir?"]),
        ("evaluate", ["--workdir=LICENSE"], ["workdir=LICENSE", "not a folder"]),
        ("evaluate", ["--workdir=configs"], ["workdir=configs", "config.json"]),
        ("sample", ["--workdir=no/where"], ["workdir=no/where", "does not exist"]),
        ("encode", ["--workdir=no/where"], ["workdir=no/where", "does not exist"]),
        ("compare", [], ["required: workdirs", "--output"]),
        ("compare", ["no/where"], ["workdir=no/where", "does not exist"]),
        ("compare", ["configs", "--output=figure.pdf"], ["figure.pdf", ".png"]),
        ("prepare", ["--dataset=mnist"], ["required: --data_dir", "--dataset", "--gas"]),
    ],
)
def test_a_wrong_command(command, words, held):
    line = refusal(command, *words)
    assert all(part in line for part in held), line


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished run."""
    workdir = tmp_path_factory.mktemp("errors") / "run"
    call("train", *SMALL, "--config.train.steps=10", f"--workdir={workdir}")
    return workdir


@pytest.mark.parametrize(
    ("command", "words", "held"),
    [
        ("evaluate", ["--split=tst"], ["--split", "'tst'", "'train', 'val', 'test'"]),
        ("evaluate", ["--config.optim.learning_rate=1"], ["config.optim.learning_rate", "config.eval.*"]),
        ("evaluate", ["--config.eval.j=1"], ["config.eval", "'j'", "chunk, examples, k"]),
        ("evaluate", ["--config.eval.batch=0"], ["eval.batch=0", ">= 1"]),
        ("evaluate", ["--config.eval.k=many"], ["eval.k='many'", "int"]),
        ("sample", ["--config.model.latent=3"], ["config.model.latent", "config.sample.*"]),
        ("evaluate", ["--config.sample.temprature=1"], ["config.sample", "'temprature'", "n, temperature"]),
        ("evaluate", ["--config.sample.temperature=-1"], ["sample.temperature=-1", ">= 0"]),
        ("diagnose", ["--measures=iwae", "--config.model.latent=3"], ["config.model.latent", "config.eval.*, config.sample.*"]),
        ("sample", ["--config.sample.n=0"], ["sample.n=0", ">= 1"]),
        ("sample", ["--config.sample.temperature=-1"], ["sample.temperature=-1", ">= 0"]),
        ("sample", ["--label=3"], ["--label=3", "data.context='none'"]),
        ("sample", ["--seed=-1"], ["--seed=-1", ">= 0"]),
        ("encode", ["--config.eval.batch=-5"], ["eval.batch=-5", ">= 1"]),
        ("encode", ["--config.sample.temperature=-1"], ["sample.temperature=-1", ">= 0"]),
        ("encode", ["--output=latents.csv"], ["latents.csv", ".npz"]),
        ("encode", ["--output=/dev/null/latents.npz"], ["/dev/null/latents.npz", "cannot be written"]),
    ],
)
def test_what_a_finished_run_refuses(done, command, words, held):
    before = sorted(done.rglob("*"))
    line = refusal(command, f"--workdir={done}", *words)
    assert all(part in line for part in held), line
    assert sorted(done.rglob("*")) == before


def test_other_workdirs(done, tmp_path):
    (tmp_path / "file").touch()
    for name, words in (("file/run", "Not a directory"), ("file", "File exists")):
        assert words in refusal("train", *SMALL, f"--workdir={tmp_path / name}")
    shutil.copytree(done, tmp_path / "untrained", ignore=lambda _, names: set(names) - {"config.json"})
    assert "train first" in refusal("evaluate", f"--workdir={tmp_path / 'untrained'}")
    assert "results.json; run: python -m experiments.evaluate" in refusal("compare", tmp_path / "untrained")
    assert "left out: workdir=" in call("compare", done, tmp_path / "untrained", f"--output={tmp_path / 'curves.png'}")
    (tmp_path / "untrained" / "results.json").write_text("{")
    assert "results.json cannot be read" in refusal("compare", done, tmp_path / "untrained")
    for words, held in (
        (["init_from=untrained"], ["config.init_from='", "train first"]),
        (["init_from=done", "parts.encoder.hidden=8"], ["config.init_from='", "encoder/", "16", "8"]),
        (["fixed_from=done", "model.latent=3"], ["config.fixed_from='", "has the shape"]),
        (["fixed_from=done"], ["no parameters to train", "config.fixed_from='"]),
    ):
        words = [f"--config.{w.replace('untrained', str(tmp_path / 'untrained')).replace('done', str(done))}" for w in words]
        line = refusal("train", *SMALL, f"--workdir={tmp_path / 'run'}", *words)
        assert all(part in line for part in held), line
    assert "no parameters in common" in refusal("train", *FLOW, f"--config.init_from={done}", f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_split_that_is_not_there(tmp_path):
    write_tfds(tmp_path / "sets", "tiny", {"train": images(40)})
    words = [*SMALL, "--config.data.kind=tfds", "--config.data.name=tiny", f"--config.data.dir={tmp_path / 'sets'}"]
    line = refusal("train", *words, "--config.data.train=trian", f"--workdir={tmp_path / 'run'}")
    assert "data.train='trian'" in line and "known: train (40)" in line
    line = refusal("train", *words, "--config.data.name=tinny", f"--workdir={tmp_path / 'run'}")
    assert "data.name='tinny'" in line and "tiny" in line
    call("train", *FLOW, "--config.train.steps=2", "--config.data.val_fraction=0", f"--workdir={tmp_path / 'run'}")
    line = refusal("evaluate", "--split=val", f"--workdir={tmp_path / 'run'}")
    assert "--split='val'" in line and "known: train, test" in line


def test_preparing_needs_tensorflow_and_a_network(tmp_path, monkeypatch):
    words = ["--dataset=mnist", f"--data_dir={tmp_path / 'data'}"]
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
    assert "pip install tensorflow" in refusal("prepare", *words)
    monkeypatch.undo()
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("tensorflow_datasets.builder_cls", lambda name: None)
    monkeypatch.setattr(prepared, "_connect", lambda host, port: "Network is unreachable")
    line = refusal("prepare", *words)
    assert "no network to download --dataset='mnist'" in line and "Network is unreachable" in line


def test_a_mistake_in_a_config_file(tmp_path):
    for text, held in (("ROWS = {", "SyntaxError"), ("import nothing_here", "No module named"), ("x = 1 + a", "'a' is not defined")):
        (tmp_path / "own.py").write_text(f'"""Mine."""\n{text}\n')
        line = refusal("train", f"--config={tmp_path / 'own.py'}")
        assert f"--config={tmp_path / 'own.py'}, line 2" in line and held in line
    (tmp_path / "own.py").write_text("ROWS = {'': 'mine'}\n\n\ndef get_config(row=''):\n    return {}['latent']\n")
    assert "own.py, line 5: KeyError: 'latent'" in refusal("train", f"--config={tmp_path / 'own.py'}")


@pytest.mark.parametrize(
    ("module", "words", "held"),
    [
        ("train", [*SMALL, "--config.model.latent=0", "--workdir=no/where"], "error: model.latent=0 is invalid; it must be >= 1"),
        ("evaluate", ["--workdir=no/where"], "error: workdir=no/where does not exist"),
        ("prepare", ["--gas="], "error: argument --gas: it is empty; known: --help, --dataset, --data_dir, --gas"),
    ],
)
def test_the_process_prints_one_line_and_exits_with_2(module, words, held):
    code, out, err = run(*words, module=f"experiments.{module}")
    assert (code, err) == (2, f"{held}\n")
    assert all(line.startswith(("train configs/", "importing jax: ")) for line in out.splitlines())


def test_a_reader_that_stops_reading_is_no_error():
    process = start("--list")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': no\nvisible device")

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    line = refusal("train", *SMALL, f"--workdir={tmp_path / 'run'}")
    assert line.startswith("JAX_PLATFORMS='cuda'") and line.endswith("no visible device")
    assert not (tmp_path / "run").exists()
