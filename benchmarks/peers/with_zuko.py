"""The process of zuko, in its own environment: `agreement FILE ...`, `sampling D ...`, `speed WORK` and
`continuous WORK` (process.py)."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import torch
import zuko

from benchmarks.peers import process, weights, with_torch, works

VERSIONS = {name: metadata.version(name) for name in ("zuko", "torch")}
FLOOR = -np.log(1e-3)  # zuko squashes an unbounded number u to u / (1 + |u / FLOOR|); widths and heights with FLOOR / 2


def unsquashed(value: torch.Tensor, floor: float) -> torch.Tensor:
    """The number that zuko squashes to `value`, |value| < floor."""
    return value / (1 - torch.abs(value / floor))


def affine(shift: torch.Tensor, raw: torch.Tensor, cap: float) -> Any:
    """Data -> noise: z = (x - shift) * exp(-s), s = cap * tanh(raw / cap)."""
    return zuko.transforms.MonotonicAffineTransform(shift, unsquashed(cap * torch.tanh(raw / cap), FLOOR)).inv


def spline(raw: torch.Tensor, layer: dict[str, Any]) -> Any:
    """Data -> noise: the inverse of the spline of raw [..., 3 bins - 1]."""
    bins = layer["bins"]

    def logits(raw, least):
        log = torch.log(least + (1 - least * bins) * torch.softmax(raw, -1))
        # Softmax does not see a shift; this one makes the largest absolute value as small as it can be.
        return unsquashed(log - (log.max(-1, keepdim=True).values + log.min(-1, keepdim=True).values) / 2, FLOOR / 2)

    widths, heights = logits(raw[..., :bins], layer["min_width"]), logits(raw[..., bins : 2 * bins], layer["min_height"])
    least = layer["min_slope"]
    slopes = least + torch.nn.functional.softplus(raw[..., 2 * bins :] + np.log(np.expm1(1 - least)))
    return zuko.transforms.MonotonicRQSTransform(widths, heights, unsquashed(torch.log(slopes), FLOOR), bound=layer["bound"]).inv


def load(modules: list[Any], values: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Set the weights and biases of linear modules."""
    for module, (weight, bias) in zip(modules, values, strict=True):
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        module.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))


def same_layer(case: weights.Case, i: int) -> Any:
    """zuko's layer with the weights of layer i."""
    layer, own, d = case.layers[i], case.weights[i], case.x.shape[-1]
    univariate = functools.partial(affine, cap=layer["cap"]) if "cap" in layer else functools.partial(spline, layer=layer)
    options: dict[str, Any] = dict(
        context=0 if case.context is None else case.context.shape[-1],
        univariate=univariate,
        shapes=((), ()) if "cap" in layer else ((case.size,),),
        hidden_features=case.hidden,
    )
    if "order" in layer:
        place = np.argsort(own["order"])
        found = zuko.flows.MaskedAutoregressiveTransform(d, order=torch.from_numpy(place), **options)
        linear = [module for module in found.hyper if hasattr(module, "weight")]
        load(linear, weights.masked(case, i, [module.mask.numpy() for module in linear], place))
        return found
    found = zuko.flows.coupling.GeneralCouplingTransform(d, mask=torch.from_numpy(weights.kept(layer, d)), **options)
    values = [(own[f"{name}/kernel"].T, own[f"{name}/bias"]) for name in weights.names(case)]
    if case.context is not None:
        values[0] = np.concatenate([values[0][0], own["context/kernel"].T], axis=1), values[0][1]
    values[-1] = weights.by_dimension(values[-1][0], case.size), weights.by_dimension(values[-1][1], case.size)
    load([module for module in found.hyper if hasattr(module, "weight")], values)
    return found


def normal(d: int) -> Any:
    """N(0, I)."""
    return zuko.lazy.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(d), torch.ones(d), buffer=True)


def agreement(files: list[str]) -> Iterator[process.Answer]:
    """Build each file's flow; the differences of log-densities and of samples."""
    for file in files:
        case = weights.read(file)
        torch.set_default_dtype(torch.from_numpy(case.x).dtype)
        with torch.no_grad():
            layers = [same_layer(case, i) for i in range(len(case.layers))]
            flow = zuko.flows.Flow(layers, normal(case.x.shape[-1]))(None if case.context is None else torch.from_numpy(case.context))
            log_prob = flow.log_prob(torch.from_numpy(case.x)).numpy()
            sample = flow.transform.inv(torch.from_numpy(case.z)).numpy()
        yield weights.difference(case, log_prob, sample) | {"versions": VERSIONS}


def sampling(words: list[str]) -> Iterator[process.Answer]:
    """MAF.sample, and the log-density of the inverse flow (IAF), for each D."""
    layers, units, points, *dimensions = map(int, words)
    torch.manual_seed(0)
    for d in dimensions:
        maf = zuko.flows.MAF(d, transforms=layers, hidden_features=(units, units))
        iaf = zuko.flows.Flow([layer.inv for layer in reversed(maf.transform.transforms)], normal(d))
        with torch.inference_mode():
            z = torch.randn(points, d)
            found = maf().transform
            back = found(found.inv(z))
            yield {
                "library": "zuko",
                "d": d,
                "sample": process.measure(lambda maf=maf: maf().sample((points,))),
                "density": process.measure(lambda iaf=iaf, z=z: iaf().log_prob(z)),
                "round_trip": float(((back - z).abs() / (1 + z.abs())).max()),
                "versions": VERSIONS,
                "threads": torch.get_num_threads(),
            }


class Vae(torch.nn.Module):
    """The VAE of zuko's tutorial on one: MLPs, a diagonal Gaussian posterior, Bernoulli pixels, a MAF as the prior."""

    def __init__(self, w: dict[str, Any]):
        super().__init__()
        hidden = (w["units"], w["units"])
        self.encoder = zuko.nn.MLP(w["d"], 2 * w["latent"], hidden)
        self.decoder = zuko.nn.MLP(w["latent"], w["d"], hidden)
        self.prior = zuko.flows.MAF(w["latent"], transforms=w["prior_layers"], hidden_features=[w["prior_units"]] * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """-ELBO, the mean over x [B, d]."""
        mean, log_std = self.encoder(x).chunk(2, -1)
        q = zuko.distributions.DiagNormal(mean, log_std.exp())
        z = q.rsample()
        recon = -torch.nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(-1)
        return -(recon + self.prior().log_prob(z) - q.log_prob(z)).mean()

    def draw(self, n: int) -> torch.Tensor:
        """n images."""
        return torch.bernoulli(torch.sigmoid(self.decoder(self.prior().sample((n,)))))


def speed(words: list[str]) -> Iterator[process.Answer]:
    """One of works.WORKS: a training step with Adam, log_prob of a batch, draws."""
    w = works.WORKS[words[0]]
    torch.manual_seed(0)
    if words[0] == "vae":
        model: Any = Vae(w)
        data, loss = (torch.rand(works.ROWS, w["d"]) < 0.3).float(), model
    else:
        hidden = (w["units"], w["units"])
        if words[0] == "spline":
            # A coupling; NSF(passes=2) is an autoregressive layer with splines on all dimensions.
            mask, shapes = torch.arange(w["d"]) < w["d"] // 2, ((w["bins"],), (w["bins"],), (w["bins"] - 1,))
            univariate = functools.partial(zuko.transforms.MonotonicRQSTransform, bound=w["bound"])
            layers = [
                zuko.flows.coupling.GeneralCouplingTransform(
                    w["d"], mask=mask if i % 2 else ~mask, univariate=univariate, shapes=shapes, hidden_features=hidden
                )
                for i in range(w["layers"])
            ]
            model = zuko.flows.Flow(layers, normal(w["d"]))
        else:
            model = zuko.flows.MAF(w["d"], transforms=w["layers"], hidden_features=hidden)
        data = torch.randn(works.ROWS, w["d"])

        def loss(x):
            return -model().log_prob(x).mean()

    def draw():
        return model.draw(works.POINTS) if words[0] == "vae" else model().sample((works.POINTS,))

    yield from with_torch.speed(words[0], model, data, loss, draw, VERSIONS)


def continuous(words: list[str]) -> Iterator[process.Answer]:
    """FFJORD of works.CONTINUOUS: zuko's CNF, whose dopri5 is adaptive (tolerances 1e-5 and 1e-6) and whose gradients are the adjoint's."""
    w = works.CONTINUOUS[words[0]]
    torch.manual_seed(0)
    (d,) = w["event"]
    flow = zuko.flows.CNF(d, freqs=w["features"] // 2, hidden_features=w["hidden"])
    data = torch.randn(works.ROWS, d)

    def loss(x):
        return -flow().log_prob(x).mean()

    calls = []
    hook = flow.transform.ode.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        loss(data[: w["batch"]])
    hook.remove()
    versions = VERSIONS | {"evaluations of a log density at the start": str(len(calls))}
    yield from with_torch.timed(w["batch"], flow, data, loss, {"sample": lambda: flow().sample((works.POINTS,))}, versions)


if __name__ == "__main__":
    process.serve(agreement=agreement, sampling=sampling, speed=speed, continuous=continuous)
