"""The only file that knows devices: how the per-device step is mapped, how batches are divided, how processes meet.

The step is written once, for one device's share of the batch. One device: jit. Several: pmap (the default) or
jit(shard_map), both over a one-axis mesh of all devices of all processes. State, parameters and resident data are
replicated global arrays without a device axis (pmap with in_axes=None, out_axes=None), so nothing is replicated or
unreplicated by hand and a checkpoint does not know how many devices wrote it. Losses and gradients are means over devices.

fsdp is for models that do not fit one device: parameters, moving average and optimiser state lie divided over the devices (the largest
axis of every leaf that the number of devices divides; Rajbhandari et al. 2020, "ZeRO", stage 3), the batch is divided too, and the compiler
puts in the all-gathers and reduce-scatters. The step then sees the whole batch, as on one device, and gives its numbers up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed as distributed_state
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vaeflow.config import imported
from vaeflow.errors import UserError

AXIS = "devices"


class DevicesConfig(NamedTuple):
    """The section `config.devices`. auto: jit on one device, pmap on several."""

    mapping: Literal["auto", "jit", "pmap", "shard_map", "fsdp"] = "auto"


# Leaves with fewer numbers are whole on every device.
_LEAST = 1024


class Devices(NamedTuple):
    """A mesh of all devices and the way the step is mapped over it."""

    mesh: Mesh
    mapping: str

    @property
    def count(self) -> int:
        return self.mesh.size

    @property
    def primary(self) -> bool:
        """Whether this process speaks, writes logs and figures."""
        return jax.process_index() == 0

    @property
    def shares(self) -> int:
        """Into how many parts the step's batch is cut: the step sees one of them."""
        return self.count if self.mapping in ("pmap", "shard_map") else 1

    def slots(self, batch: int) -> np.ndarray:
        """The slots of the global batch that this process holds, [local devices, batch / devices]."""
        if batch % self.count:
            raise UserError(f"data.batch={batch} is not divisible by the {self.count} devices; use a multiple of {self.count}")
        mine = [i for i, d in enumerate(self.mesh.devices.flat) if d.process_index == jax.process_index()]
        return np.arange(batch).reshape(self.count, -1)[mine]

    def whole(self) -> NamedSharding:
        """The sharding of what every device has whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def divided(self, axis: int) -> NamedSharding:
        """The sharding of what is divided among the devices along one axis."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))

    def replicate(self, tree: Any) -> Any:
        """Host arrays, or this process's copies, as replicated global arrays."""
        return jax.tree.map(lambda a: self._put(a, self.whole()), tree)

    def home(self, shape: tuple[int, ...]) -> NamedSharding:
        """Where a leaf of the state lies: whole on every device, or for fsdp divided along one axis."""
        able = [axis for axis, size in enumerate(shape) if size % self.count == 0] if self.mapping == "fsdp" else []
        if not able or np.prod(shape) < _LEAST:
            return self.whole()
        return self.divided(max(able, key=lambda i: shape[i]))

    def homes(self, make: Callable[..., Any], *args: Any) -> Any:
        """The out_shardings of `jit(make)(*args)`, parameters or a state: made where they lie, so that no device ever has all of fsdp's.
        None, for the default device, of the other mappings."""
        return jax.tree.map(lambda s: self.home(s.shape), jax.eval_shape(make, *args)) if self.mapping == "fsdp" else None

    def place(self, tree: Any) -> Any:
        """Parameters or a state, the same in every process, as global arrays where they lie."""
        return jax.tree.map(lambda a: self._put(a, self.home(np.shape(a))), tree)

    def spread(self, tree: Any, axis: int) -> Any:
        """Whole host arrays (the same in every process) as global arrays divided along `axis`."""
        sharding = self.divided(axis)
        return jax.tree.map(lambda a: jax.make_array_from_callback(np.shape(a), sharding, lambda index, a=a: np.asarray(a)[index]), tree)

    def _put(self, a: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(a, jax.Array) and a.sharding == sharding:
            return a
        if jax.process_count() == 1:
            return jax.device_put(a, sharding)
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(self._put(np.asarray(jax.random.key_data(a)), sharding), impl=jax.random.key_impl(a))
        return jax.make_array_from_callback(np.shape(a), sharding, lambda index: np.asarray(a)[index])

    def mean(self, tree: Any) -> Any:
        """Mean over devices of what each computed on its share; inside the mapped step. (fsdp: of the whole batch already; here it is said
        that a gradient lies where its parameter does.)"""
        if self.mapping == "fsdp":
            return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self.home(a.shape)), tree)
        return tree if self.mapping == "jit" else jax.lax.pmean(tree, AXIS)

    def index(self) -> Any:
        """Which of the `shares` of the batch this is; inside the mapped step."""
        return jnp.zeros((), jnp.int32) if self.shares == 1 else jax.lax.axis_index(AXIS)

    def map(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """step(state, shared, chunk) -> (state, log) over devices: `state` as `place` gives it, `shared` replicated, `chunk` a tree of this
        process's [local devices, capacity, share, ...]; the log is replicated. The state is donated, in one process (pmap with
        in_axes=None loses donated arrays in two)."""
        donate = (0,) if jax.process_count() == 1 else ()
        if self.mapping == "jit":
            # One device: the leading axis of length 1 goes away on the host side, not in the program.
            jitted = jax.jit(step, donate_argnums=donate)
            return lambda state, shared, chunk: jitted(state, shared, jax.tree.map(lambda a: a[0], chunk))
        if self.mapping == "pmap":
            return jax.pmap(
                step, axis_name=AXIS, in_axes=(None, None, 0), out_axes=None, donate_argnums=donate, devices=list(self.mesh.devices.flat)
            )
        whole, divided = PartitionSpec(), PartitionSpec(AXIS)

        def share(state, shared, chunk):
            return step(state, shared, jax.tree.map(lambda a: a[0], chunk))

        def all_of_it(state, shared, chunk):
            def joined(a):  # [devices, capacity, share, ...] -> [capacity, batch, ...], the batch divided
                a = jnp.moveaxis(a, 0, 1).reshape(a.shape[1], -1, *a.shape[3:])
                return jax.lax.with_sharding_constraint(a, self.divided(1))

            state, log = step(state, shared, jax.tree.map(joined, chunk))
            return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self.home(a.shape)), state), log

        if self.mapping == "fsdp":
            mapped = all_of_it
        else:
            mapped = jax.shard_map(share, mesh=self.mesh, in_specs=(whole, whole, divided), out_specs=whole, check_vma=False)
        jitted = jax.jit(mapped, donate_argnums=donate)
        return lambda state, shared, chunk: jitted(
            state, shared, jax.tree.map(lambda a: jax.make_array_from_process_local_data(self.divided(0), a), chunk)
        )

    def agree(self, stop: bool, count: int) -> tuple[bool, int]:
        """(any process wants to stop, the smallest count): what all processes do next must be the same."""
        if jax.process_count() == 1:
            return stop, count
        all_ = np.asarray(multihost_utils.process_allgather(np.array([int(stop), count])))
        return bool(all_[:, 0].any()), int(all_[:, 1].min())


def make_devices(config: DevicesConfig) -> Devices:
    """All devices of all processes. The process set-up (`distributed`) must have run before."""
    found = np.array(jax.devices())
    mapping = config.mapping
    if mapping == "auto":
        mapping = "jit" if found.size == 1 else "pmap"
    if mapping == "jit":
        if jax.process_count() > 1:
            raise UserError(
                f"devices.mapping='jit' runs on one device, but {jax.process_count()} processes have joined; known: pmap, shard_map"
            )
        found = found[:1]
    return Devices(Mesh(found, (AXIS,)), mapping)


def for_evaluation(trained: str) -> Devices | None:
    """All devices for a run's tables, whatever number it was trained on; None in one of several processes, where the first one alone
    evaluates, on its first device. `trained`: config.devices.mapping, for what fsdp divided stays so."""
    mapping = "fsdp" if trained == "fsdp" else "jit"
    return Devices(Mesh(np.array(jax.devices()), (AXIS,)), mapping) if jax.process_count() == 1 else None


def distributed(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Join several processes (jax.distributed). Without arguments the cluster is detected (SLURM, TPU pods, MPI)."""
    if jax.config.jax_platforms in ("cpu", "", None):  # type: ignore[attr-defined]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given: dict[str, Any] = dict(coordinator_address=coordinator, num_processes=processes, process_id=process) if coordinator else {}
    if coordinator:
        print(f"process {process}: waiting for {processes} processes at {coordinator}", file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        words = str(error).splitlines()[0]
        if imported() and "must be called before" in words:
            files = " ".join(f"--import={file['path']}" for file in imported())
            raise UserError(f"{files} makes arrays of jax before the processes have met: make them inside of functions") from None
        if coordinator:
            raise UserError(f"the processes could not meet at --coordinator={coordinator!r}: {words}") from error
        how = "on a cluster other than SLURM, a TPU pod or MPI say --coordinator=HOST:PORT --processes=N --process=I"
        raise UserError(f"--distributed: no cluster was found ({words}); {how}") from error


def barrier(name: str, hours: float = 24) -> None:
    """Wait until every process is here, through the coordination service: a collective of the devices would run into its
    time limit while process 0 evaluates."""
    client = distributed_state.global_state.client
    if client is not None:
        client.wait_at_barrier(name, int(hours * 3_600_000))


def member() -> tuple[int, int]:
    """(this process, number of processes). Unlike jax.process_index() it does not initialise the devices, which waits for all processes."""
    return distributed_state.global_state.process_id, distributed_state.global_state.num_processes


def post(key: str, value: str) -> bool:
    """Publish a value to all processes, through the coordination service. False: the key is in use already."""
    try:
        distributed_state.global_state.client.key_value_set(key, value)  # type: ignore[union-attr]
    except RuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
        return False
    return True


def read(key: str, seconds: float) -> str | None:
    """The value that a process has posted. None: there is none after that time."""
    try:
        return distributed_state.global_state.client.blocking_key_value_get(key, max(1, int(seconds * 1000)))  # type: ignore[union-attr]
    except RuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return None
