"""The process of nflows, in its own environment: `agreement FILE ...`, `sampling D ...` and `speed WORK` (process.py)."""
# pyright: reportMissingImports=false
# No requirement of vaeflow: the environment that pyright looks into does not have these libraries.

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.autoregressive import MaskedAutoregressiveFlow
from nflows.flows.base import Flow
from nflows.nn.nets import MLP
from nflows.transforms.autoregressive import (
    MaskedAffineAutoregressiveTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
)
from nflows.transforms.base import CompositeTransform, InverseTransform
from nflows.transforms.coupling import AffineCouplingTransform, PiecewiseRationalQuadraticCouplingTransform
from nflows.transforms.permutations import Permutation, ReversePermutation

from benchmarks.peers import process, weights, with_torch, works

VERSIONS = {name: metadata.version(name) for name in ("nflows", "torch")}


class AffineCoupling(AffineCouplingTransform):
    """nflows' coupling with the scale exp(cap * tanh(raw / cap)); its own is below 1.001."""

    def __init__(self, cap: float, *args: Any):
        """cap, then the arguments of AffineCouplingTransform."""
        super().__init__(*args)
        self.cap = cap

    def _scale_and_shift(self, transform_params):
        shift, raw = transform_params.split(self.num_transform_features, dim=1)
        return torch.exp(self.cap * torch.tanh(raw / self.cap)), shift


class AffineMaf(MaskedAffineAutoregressiveTransform):
    """nflows' layer with x = z * scale + shift where its own has z = x * scale + shift, and given the number that its
    softplus(number) + epsilon makes exp(cap * tanh(raw / cap)) of."""

    def __init__(self, cap: float, **options: Any):
        """cap, then the arguments of MaskedAffineAutoregressiveTransform."""
        super().__init__(**options)
        self.cap = cap

    def _unconstrained_scale_and_shift(self, autoregressive_params):
        shift, raw = autoregressive_params.view(-1, self.features, 2).unbind(-1)
        scale = torch.exp(self.cap * torch.tanh(raw / self.cap)) - self._epsilon
        return scale + torch.log(-torch.expm1(-scale)), shift

    _elementwise_forward = MaskedAffineAutoregressiveTransform._elementwise_inverse
    _elementwise_inverse = MaskedAffineAutoregressiveTransform._elementwise_forward


class SplineMaf(MaskedPiecewiseRationalQuadraticAutoregressiveTransform):
    """nflows' layer with x = spline(z) where its own has z = spline(x)."""

    _elementwise_forward = MaskedPiecewiseRationalQuadraticAutoregressiveTransform._elementwise_inverse
    _elementwise_inverse = MaskedPiecewiseRationalQuadraticAutoregressiveTransform._elementwise_forward


class Net(MLP):
    """nflows' perceptron as a coupling calls it: with a context, None here."""

    hidden_features = 1  # widths and heights are divided by its root

    def forward(self, inputs, context=None):
        """inputs [N, kept] -> [N, numbers]."""
        return super().forward(inputs)


def load(modules: list[Any], values: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Set the weights and biases of linear modules."""
    for module, (weight, bias) in zip(modules, values, strict=True):
        module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        module.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))


def same_layer(case: weights.Case, i: int) -> list[Any]:
    """nflows' transforms, data -> noise, with the weights of layer i."""
    layer, own, d = case.layers[i], case.weights[i], case.x.shape[-1]
    spline: dict[str, Any] = {}
    if "bins" in layer:
        least = dict(min_bin_width=layer["min_width"], min_bin_height=layer["min_height"], min_derivative=layer["min_slope"])
        spline = dict(num_bins=layer["bins"], tails="linear", tail_bound=layer["bound"], **least)
        # vaeflow's softplus is 1 - min_slope at 0, so that the slope is 1; that of nflows is not shifted.
        bias = own["head/bias"].reshape(case.size, -1)
        bias[2 * layer["bins"] :] += np.log(np.expm1(1 - layer["min_slope"]))
    if "order" in layer:
        options = dict(features=d, hidden_features=case.hidden[0], num_blocks=len(case.hidden) - 1, use_residual_blocks=False)
        found = SplineMaf(**options, **spline) if spline else AffineMaf(layer["cap"], **options)
        net = found.autoregressive_net
        linear = [net.initial_layer, *(block.linear for block in net.blocks), net.final_layer]
        values = weights.masked(case, i, [module.mask.numpy() for module in linear], np.arange(d))
        order = Permutation(torch.from_numpy(own["order"]))
        transforms = [order, found, InverseTransform(order)]
    else:
        mask = torch.from_numpy(np.where(weights.kept(layer, d), 0, 1))

        def create(inputs, outputs):
            return Net([inputs], [outputs], case.hidden)

        found = (
            PiecewiseRationalQuadraticCouplingTransform(mask, create, **spline) if spline else AffineCoupling(layer["cap"], mask, create)
        )
        net = found.transform_net
        linear = [net._input_layer, *net._hidden_layers, net._output_layer]
        values = [(own[f"{name}/kernel"].T, own[f"{name}/bias"]) for name in weights.names(case)]
        transforms = [InverseTransform(found)]
    if spline and "order" not in layer:  # its affine coupling has the numbers on the leading axis, as vaeflow has
        values[-1] = weights.by_dimension(values[-1][0], case.size), weights.by_dimension(values[-1][1], case.size)
    load(linear, values)
    return transforms


def agreement(files: list[str]) -> Iterator[process.Answer]:
    """Build each file's flow; the differences of log-densities and of samples."""
    for file in files:
        case = weights.read(file)
        torch.set_default_dtype(torch.from_numpy(case.x).dtype)
        with torch.no_grad():
            transform = CompositeTransform([t for i in range(len(case.layers)) for t in same_layer(case, i)])
            flow = Flow(transform, StandardNormal([case.x.shape[-1]]))
            log_prob = flow.log_prob(torch.from_numpy(case.x)).numpy()
            sample = transform.inverse(torch.from_numpy(case.z))[0].numpy()
        yield weights.difference(case, log_prob, sample) | {"versions": VERSIONS}


def sampling(words: list[str]) -> Iterator[process.Answer]:
    """MaskedAutoregressiveFlow.sample, and the log-density of the inverse flow (IAF), for each D."""
    layers, units, points, *dimensions = map(int, words)
    torch.manual_seed(0)
    for d in dimensions:
        maf = MaskedAutoregressiveFlow(d, units, layers, num_blocks_per_layer=1, use_residual_blocks=False)
        iaf = Flow(InverseTransform(maf._transform), StandardNormal([d]))
        with torch.inference_mode():
            z = torch.randn(points, d)
            back = maf._transform(maf._transform.inverse(z)[0])[0]
            yield {
                "library": "nflows",
                "d": d,
                "sample": process.measure(lambda maf=maf: maf.sample(points)),
                "density": process.measure(lambda iaf=iaf, z=z: iaf.log_prob(z)),
                "round_trip": float(((back - z).abs() / (1 + z.abs())).max()),
                "versions": VERSIONS,
                "threads": torch.get_num_threads(),
            }


def speed(words: list[str]) -> Iterator[process.Answer]:
    """One of works.WORKS: a training step with Adam, log_prob of a batch, draws."""
    w = works.WORKS[words[0]]
    torch.manual_seed(0)
    if words[0] == "spline":
        transforms, mask = [], torch.arange(w["d"]) >= w["d"] // 2
        for _ in range(w["layers"]):
            transforms += [
                PiecewiseRationalQuadraticCouplingTransform(
                    mask.int(),
                    lambda inputs, outputs: Net([inputs], [outputs], [w["units"]] * 2),
                    num_bins=w["bins"],
                    tails="linear",
                    tail_bound=w["bound"],
                ),
                ReversePermutation(w["d"]),
            ]
        model = Flow(CompositeTransform(transforms), StandardNormal([w["d"]]))
    else:
        model = MaskedAutoregressiveFlow(w["d"], w["units"], w["layers"], num_blocks_per_layer=1, use_residual_blocks=False)
    data = torch.randn(works.ROWS, w["d"])

    def loss(x):
        return -model.log_prob(x).mean()

    yield from with_torch.speed(words[0], model, data, loss, lambda: model.sample(works.POINTS), VERSIONS)


if __name__ == "__main__":
    process.serve(agreement=agreement, sampling=sampling, speed=speed)
