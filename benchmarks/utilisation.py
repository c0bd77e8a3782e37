"""How near training is to what the device can do: model FLOPs utilisation of flows and VAEs, by number format and mapping to devices.

    python -m benchmarks.utilisation --output=results/speed_utilisation.md
    python -m benchmarks.utilisation --gpu --output=results/speed_utilisation_gpu.md

    utilisation = (operations of a step) / (its seconds) / (rate of a matrix product of the same format, measured in the same process)

Operations are those of the model: 3 times what the loss takes, one forward pass and two products for each in the backward one; what a
step computes again to save memory counts as time and not as work. float32 products are at jax's default precision (TF32 on NVIDIA GPUs),
and so is the rate. bfloat16 is of the networks; log-determinants, losses, parameters and the optimiser stay float32. Steps run eight in
one dispatch on data that lie on the device, as `experiments.train` runs them. --gpu: the rows for accelerators, larger batches and the
papers' networks.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import common
from benchmarks.peers import with_vaeflow, works
from benchmarks.peers.process import measure
from benchmarks.steps import Took, made_of, trained

CPU = ("spline", "maf", "vae", "configs/mnist_flow.py:glow", "configs/mnist_flow.py:jet")
GPU = (
    "spline",
    "spline x 64",
    "maf",
    "maf x 64",
    "vae",
    "vae x 16",
    "configs/cifar10_flow.py:glow,paper",
    "configs/mnist_flow.py:jet,paper",
)


def config(name: str, dtype: str, mapping: str) -> Any:
    """A config, or one of works.WORKS, "x N" with N times its batch; networks in `dtype`."""
    base, _, times = name.partition(" x ")
    c = with_vaeflow.configured(base) if base in works.WORKS else common.load(base, {})
    c.data.batch *= int(times or 1)
    c.devices.mapping = mapping
    for part in c.parts.values():
        if "dtype" in part:
            part["dtype"] = dtype
    return c


def rate(dtype: str, n: int) -> float:
    """10^12 operations a second of a product of two n x n matrices."""
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(jnp.matmul)
    return 2e-9 * n**3 / measure(lambda: product(a, a).block_until_ready(), seconds=1.0)


def main() -> None:
    """Measure, print, write."""
    p = common.parser(__doc__)
    p.add_argument("--gpu", action="store_true", help="the rows for accelerators")
    p.add_argument("--configs", nargs="*", help=f"configs, or {', '.join(works.WORKS)} (' x N': N times the batch)")
    p.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    p.add_argument("--mappings", nargs="*", default=["jit"], choices=["jit", "pmap", "shard_map", "fsdp"])
    flags = p.parse_args()
    rates = {dtype: rate(dtype, 8192 if flags.gpu else 1024) for dtype in flags.dtypes}
    rows = []
    for name in flags.configs or (GPU if flags.gpu else CPU):
        for dtype in flags.dtypes:
            for mapping in flags.mappings:
                c = config(name, dtype, mapping)
                took: Took = trained(made_of(c))
                done = took.gflop / took.ms / (1 if mapping == "jit" else jax.device_count())  # 10^12 operations a second, of one device
                numbers = (took.gflop, took.ms, done, 100 * done / rates[dtype], took.first)
                rows.append([name, c.data.batch, dtype, mapping, *(f"{number:.3g}" for number in numbers)])
                print(*rows[-1], sep="  ", flush=True)
    titles = (
        "work",
        "batch",
        "networks",
        "mapping",
        "GFLOP a step",
        "ms a step",
        "TFLOP/s a device",
        "utilisation [%]",
        "first dispatch [s]",
    )
    device = jax.devices()[0]
    told = ", ".join(f"{dtype} {found:.3g} TFLOP/s" for dtype, found in rates.items())
    notes = f"{jax.device_count()} x {device.device_kind}; matrix products: {told}. Medians of dispatches; one process, nothing in turns."
    command = f"benchmarks.utilisation{' --gpu' * flags.gpu}"
    common.sheet("Model FLOPs utilisation of a training step", titles, rows, notes, flags.output, command)


if __name__ == "__main__":
    main()
