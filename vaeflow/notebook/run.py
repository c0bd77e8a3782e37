"""Run: a trained model in a notebook."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vaeflow import data
from vaeflow.config import plain
from vaeflow.data import kept
from vaeflow.data.contexts import class_numbers, conditions, read_labels
from vaeflow.data.from_arrays import more
from vaeflow.data.source import Source, Split, rows
from vaeflow.errors import UserError, unknown
from vaeflow.evaluation import evaluate, likelihood, sampling, store
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.evaluation.results import flat
from vaeflow.model import Model, Params, split_params
from vaeflow.models import build_model
from vaeflow.notebook.pictures import Pictures
from vaeflow.rng import eval_key
from vaeflow.run import BY_HAND
from vaeflow.runs import guard, metrics, progress, workdir
from vaeflow.schema import of_section
from vaeflow.training import devices
from vaeflow.training.frozen import fingerprint
from vaeflow.training.warm_start import UNNAMED

PICTURES = "notebook"  # folder of `Run.plot` in the workdir


class Run:
    """A trained model: what `fit` and `load` return.

    model      pure functions (vaeflow/model.py)
    params     the parameters that it is evaluated with
    config     the locked config of the run
    directory  its workdir
    """

    def __init__(self, model: Model, params: Params, config: ConfigDict, directory: Path, source: Source | None = None, keep: Any = None):
        self.model, self.params, self.config, self.directory = model, params, config, directory
        self._source, self._keep = source, keep

    def __repr__(self) -> str:
        made = getattr(self.model, "spec", None) or self.config.model.kind
        number = {"exact": "log p(x)", "weight": "IWAE-k", "bound": "mean of k lower bounds", "estimate": "mean of k estimates of log p(x)"}
        what = number.get(self.model.density, "not available")
        size = sum(np.size(leaf) for leaf in jax.tree.leaves(split_params(self.params)[0]))
        step = max((row["step"] for row in self.metrics), default=0)
        return f"Run({made}\n    {size:,} parameters, {step:,} steps; log_prob: {what}; directory {self.directory})"

    @property
    def named(self) -> str:
        """What a config calls the run's parameters: its folder, or "sha256:..." where that is temporary, or has others by default."""
        default = ConfigDict({"eval": {"params": "auto"}})
        lasts = self._keep is None and workdir.which_params(self.directory, self.config) == workdir.which_params(self.directory, default)
        return str(self.directory) if lasts else f"{UNNAMED}{fingerprint(self.params)}"

    @property
    def source(self) -> Source:
        """The data that the run was trained on. UserError: they were arrays, too large to be stored with it."""
        if self._source is None:
            self._source = store.load_data(self.directory, self.config)
        return self._source

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict per row of metrics.jsonl: step, split ("train" or "val"), loss, ..."""
        return metrics.read_metrics(self.directory)

    def log_prob(self, x: Any, context: Any = None, *, k: int | None = None, seed: int = 0) -> np.ndarray:
        """log p(x|context) in nats of every example, with respect to x as given.

        Args:
            x: [N, *event], as for `fit`.
            context: [N, C] or class labels [N], as in training; one row is used for all examples.
            k: draws per example of a model whose log_prob is not exact: importance weighting (IWAE-k) of a VAE, else the mean of k draws;
                None: eval.k of the config (100).
            seed: of the draws.

        Returns:
            [N] float32. Only an "exact" density (`run.model.density`) does not depend on k and the seed.
        """
        split = self._split(x, context)
        if self.model.log_prob is None:
            raise UserError(f"model.kind={self.config.model.kind!r} has no density: log_prob is not available")
        draws, chunk = int(self.config.eval.k if k is None else k), self.config.eval.chunk
        if draws < 1:
            raise UserError(f"k={k} is invalid; it must be at least 1")
        if self.model.density == "weight":
            return self._over(likelihood.importance(self.model, draws, chunk), split, seed, draws)["log_prob"]
        draws = draws if self.model.density in ("bound", "estimate") and likelihood.draws_noise(self.model, self.params, split) else 1
        return self._over(likelihood.average(self.model, draws, chunk), split, seed, draws)["log_prob"]

    def encode(self, x: Any, context: Any = None, *, seed: int = 0) -> np.ndarray:
        """Latents of every example: the posterior's mean of a VAE with a Gaussian q(z|x), else one draw; f^-1(x) of a flow.

        Args:
            x, context: as for `log_prob`.

        Returns:
            [N, *latent].
        """
        split = self._split(x, context)
        if self.model.latent is None and self.model.encode is None:
            raise UserError(f"model.kind={self.config.model.kind!r} has no latents: encode is not available")
        found = self._over(evaluate.encoder(self.model), split, seed)
        return found["mean" if "mean" in found else "z"]

    def sample(self, n: int = 1, context: Any = None, *, seed: int = 0, **options: Any) -> np.ndarray:
        """n draws x [n, *event]; see `draw`."""
        return self.draw(n, context, seed=seed, **options)["x"]

    def draw(self, n: int = 1, context: Any = None, *, seed: int = 0, x0: Any = None, reference: Any = None, **options: Any) -> dict:
        """n draws with all that the model knows of them.

        Args:
            n: number of draws.
            context: of a conditional model: numbers [C] or [N, C], or class labels, used in turn.
            seed: of the draws.
            x0: of a model of pairs, [N, *event0]; reference: of a model that completes examples, [N, *event]. Used in turn.
            options: of the section sample of the config, such as temperature=0.8, steps=20 or sampler="heun".

        Returns:
            {"x": [n, *event], ...}: latents "z", evaluations "nfe" and what else the family gives, [n, ...] each.
        """
        if not isinstance(n, int | np.integer) or n < 1:
            raise UserError(f"n={n!r} is invalid; it must be a whole number >= 1")
        if options and str(self.config.model.kind).startswith(BY_HAND):
            raise UserError(f"{', '.join(options)}: this model was made by hand, and its sampling has no options")
        model = self._sampled(options) if options else self.model
        given = {"context": self._context(context), "x0": x0, "reference": reference}
        for name, takes in (("x0", model.paired), ("reference", model.edits)):
            if takes != (given[name] is not None):
                raise UserError(f"{name}: this model {'needs one' if takes else 'does not take one'}")
        return sampling.draw(model, self.params, jax.random.key(seed), int(n), given)

    def evaluate(
        self,
        x: Any = None,
        context: Any = None,
        *,
        label: Any = None,
        x0: Any = None,
        mask: Any = None,
        measures: str | Sequence[str] = (),
        k: int | None = None,
    ) -> dict[str, Any]:
        """The measures of a split: what experiments.evaluate stores in results.json.

        Args:
            x, context: test examples, as for `log_prob`; None: the test split of the run's data, else its validation split.
            label: class labels [N] of x, of a model that learns them and of measures that read them (probes); one is used for all examples.
            x0, mask: of x, as for `fit`.
            measures: a name or several (experiments.diagnose --list); (): those that apply by default.
            k: draws per example, as for `log_prob`.

        Returns:
            {"nll": nats per example, "nll_se": its standard error over examples, ...}, and what the numbers are.
        """
        source = self._tested(x, context, label=label, x0=x0, mask=mask)
        config = ConfigDict(self.config.to_dict())
        config.eval.measures = (measures,) if isinstance(measures, str) else tuple(measures or config.eval.measures)
        config.eval.k = config.eval.k if k is None else k
        with progress.reporting():
            how = devices.for_evaluation(config.devices.mapping)
            return flat(evaluate.measured(self.model, self.params, source, data.named_split(source), config.lock(), how)[0])

    def plot(self, x: Any = None, context: Any = None, *, label: Any = None, x0: Any = None, mask: Any = None) -> Pictures:
        """The figures of a run: losses, samples beside the data, a density in the plane, reconstructions, ... as far as they apply.

        Args:
            x, context, label, x0, mask: examples that are shown, as for `evaluate`; None: those of the run's data. Of a run whose data are
                not known, losses and samples are drawn, and a line on stderr says what is left out.

        Returns:
            What a notebook shows as pictures; `.paths` are the PNG files.
        """
        from vaeflow import figures

        guard.check_links(self.directory, [PICTURES])
        run, to = (self.model, self.params, self.config), self.directory / PICTURES
        try:
            source = self._tested(x, context, label=label, x0=x0, mask=mask)
        except UserError as error:
            if any(given is not None for given in (x, context, label, x0, mask)):
                raise
            with progress.reporting():
                paths = figures.draw_without_data(self.directory, to, *run, self.metrics)
            of_data = [name for name, figure in figures.FIGURES.items() if figure.default and figure.several is None]
            left_out = [name for name in of_data if name not in {path.stem for path in paths}]
            print(f"not drawn: {', '.join(left_out)}, which show examples; run.plot(x) draws them: {error}", file=sys.stderr)
            return Pictures(paths)
        with progress.reporting():
            return Pictures(figures.draw_all(figures.look_at(self.directory, to, *run, source, self.metrics)))

    def save(self, directory: str | Path) -> Path:
        """Copy the run's workdir to a new folder, for `load` and the commands; with it arrays of up to 64 MB that the run was trained on.
        UserError: the folder is there already."""
        to = Path(directory).expanduser()
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise UserError(f"directory={str(to)!r} exists already; save into a new folder")
        shutil.copytree(self.directory, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        if self._source is not None and self.config.data.kind == "arrays" and not kept.place(to) and not kept.store(to, self._source):
            print(f"the arrays are larger than {kept.MOST >> 20} MB and are not stored with the run", file=sys.stderr)
        return to

    def _sampled(self, options: Mapping[str, Any]) -> Model:
        """The model with other sampling options: its own, or those of the model in it (of a standardised one)."""
        whole = {name: plain(self.config[name]) for name in ("model", "parts", "sample")}
        known = [name for name in of_section(whole, "sample") if name != "n"]
        for name, value in options.items():
            if name not in known:
                raise unknown("the sampling option", name, known)
            whole["sample"][name] = value.item() if isinstance(value, np.generic) else value
        return _built(json.dumps(whole))

    def _split(self, x: Any, context: Any = None, *, label: Any = None, x0: Any = None, mask: Any = None) -> Split:
        """Examples as the model takes them."""
        about = self._about
        split, known = more(x, event=tuple(about["event"]), levels=about["levels"], x0=x0, mask=mask), self._context(context)
        n, names = len(split.x), tuple(about["labels"])
        if known is not None and len(known) not in (1, n):
            raise UserError(f"context has {len(known)} rows, and x has {n}")
        known = known if known is None or len(known) == n else np.repeat(known, n, 0)
        labels = known.argmax(1).astype(np.int32) if known is not None and self.config.data.context == "label" else None
        if label is not None:
            if not names:
                raise UserError("label: the model was trained on data without labels; leave it out")
            labels = class_numbers(read_labels([label] * n if np.ndim(label) == 0 else label, n, "label"), names, "label")
        seen = np.ones(split.x.shape, bool) if self.model.masked and split.mask is None else split.mask
        return split._replace(context=known, label=labels, mask=seen)

    @property
    def _about(self) -> dict[str, Any]:
        """data.json: what the training data were."""
        return workdir.read_json(self.directory / "data.json")

    def _context(self, context: Any) -> np.ndarray | None:
        """[N, C], as in training; [1, C] of one label or row. UserError: a context where there was none in training, or the reverse."""
        width, names = self._about["context"], self._about["labels"] if self.config.data.context == "label" else ()
        if (context is not None) != bool(width):
            raise UserError(f"context: the model was trained {f'with one of width {width}; give it' if width else 'without one'}")
        if context is None:
            return None
        single = np.ndim(context) == 0 or (not names and np.ndim(context) == 1 and len(context) == width > 1)
        given = [context] if single else context
        return conditions(given, len(given), width=width, label_names=tuple(names))

    def _tested(self, x: Any, context: Any, **given: Any) -> Source:
        """The run's data, or where examples are given a source whose test split has them; its training split is the run's, or these
        examples where that is not known."""
        if x is None:
            if context is not None or any(value is not None for value in given.values()):
                raise UserError("context, label, x0 and mask belong to x, which is missing")
            return self.source
        split, about = self._split(x, context, **given), self._about
        for name, takes in (("label", self.model.classes > 0), ("x0", self.model.paired)):
            if takes and getattr(split, name) is None:
                raise UserError(f"{name}: this model needs one")
        for name, takes in (("x0", self.model.paired), ("mask", self.model.masked)):
            if getattr(split, name) is not None and not takes:
                raise UserError(f"{name}: this model does not take one")
        known = self._source or Source(split, None, None, about["levels"], tuple(about["labels"]) or None)
        return known._replace(val=None, test=split)

    def _over(self, fn: Any, split: Split, seed: int, draws: int = 1) -> dict[str, np.ndarray]:
        """`fn` of every example. Rows are repeated to a few sizes, so that other numbers of examples rarely compile again."""
        n, batch, key = len(split.x), self.config.eval.batch, eval_key(seed)
        size = 1 << (n - 1).bit_length() if n <= batch else batch << (-(-n // batch) - 1).bit_length()
        padded = rows(split, np.minimum(np.arange(size), n - 1))
        levels = self._about["levels"] if self.config.data.binarize == "dynamic" else 0
        with progress.reporting():
            found = gather(map_split(fn, padded, key, batch=batch, levels=levels, draws=draws)(self.params))
            return {name: a[:n] for name, a in found.items()}


@functools.lru_cache(maxsize=32)
def _built(sections: str) -> Model:
    """The model of the sections model, parts and sample as JSON: the same one for the same values, as programs are kept by it."""
    return build_model(json.loads(sections))
