"""Parameter groups and turns: the sections `config.optim.groups` and `config.optim.turns`.

A group is a set of top-level names of the parameters with options of its own. A config file declares the groups:

    c.optim.groups = dict(critic=dict(learning_rate=1e-4, clip_weights=(-0.01, 0.01)), generator=dict(learning_rate=5e-5))
    c.optim.turns = ("critic:5", "generator:1")

The command line overrides the values that the file gives a group, `--config.optim.groups.critic.learning_rate=2e-4`, and all turns at once,
`--config.optim.turns=critic:1,generator:1`. Parameters that no group names are the group DEFAULT.

Turns are a list because a ConfigDict sorts its keys, and their order is that of the cycle. A turn is named after a group, after a top-level
name that is in no group, or DEFAULT. In each step one group is updated. The others keep their parameters, their optimiser state and their
moving average bit for bit. Every step has a batch of its own, so the run above has train.steps / 6 generator steps. The loss of two players
is in vaeflow/objectives/turns.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import Count, Decay, Fraction, Natural, NonNegative, Positive
from vaeflow.errors import UserError, unknown
from vaeflow.model import Array, Params
from vaeflow.objectives.turns import steps_of, turn_of

DEFAULT = "default"  # name of the group of all parameters that no group names


class GroupConfig(NamedTuple):
    """One entry of `config.optim.groups`. An option that is not given has the value of the section `config.optim`."""

    names: tuple[str, ...] = ()  # top-level names of the parameters; empty: the name of the group
    clip_weights: tuple[float, ...] = ()  # (low, high): parameters are clipped to it after each update (Arjovsky et al. 2017); empty: off
    name: Literal["adam", "adamw", "adamax", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd"] | None = None
    learning_rate: Positive | None = None
    b1: Decay | None = None
    b2: Decay | None = None
    eps: Positive | None = None
    weight_decay: NonNegative | None = None
    decay_on: Literal["all", "kernels"] | None = None
    clip: NonNegative | None = None  # global norm of the gradients of this group
    schedule: Literal["constant", "cosine", "step", "exponential", "stages"] | None = None
    warmup: Natural | None = None  # this and decay_every: updates of this group
    decay_every: Count | None = None
    decay_rate: Positive | None = None
    final_fraction: Fraction | None = None

    def overrides(self) -> dict[str, Any]:
        """The given options that the section `config.optim` has too."""
        return {key: value for key, value in self._asdict().items() if key not in ("names", "clip_weights") and value is not None}


class Group(NamedTuple):
    """A group of the trained parameters of a model.

    name      its name in optim.groups or optim.turns, or DEFAULT
    names     top-level names of its parameters
    config    its entry of optim.groups; an empty one for a group that only optim.turns names
    turns     {group: steps}, the whole cycle; empty: the group is updated in every step
    """

    name: str
    names: tuple[str, ...]
    config: GroupConfig
    turns: Mapping[str, int]

    def on(self, step: Any) -> Array:
        """True if the group is updated in this step, counted from 0."""
        return turn_of(step, self.turns) == list(self.turns).index(self.name) if self.turns else jnp.ones((), bool)

    def updates(self, step: Any) -> Any:
        """Number of updates of the group in the first `step` steps."""
        return steps_of(self.name, step, self.turns) if self.turns else step

    def of(self, tree: Params) -> Params:
        """The group's entries of a tree of the parameters' structure."""
        return {name: tree[name] for name in self.names}


def make_groups(groups: Mapping[str, GroupConfig], turns: Sequence[str], names: Iterable[str]) -> tuple[Group, ...]:
    """The groups of a model's trained parameters, in the order: optim.groups, further names in optim.turns, DEFAULT.

    Args:
        groups: the section optim.groups.
        turns: the entries "NAME:STEPS" of optim.turns.
        names: top-level names of the trained parameters.

    Returns:
        Groups whose `names` are disjoint and together are all of `names`.

    Raises:
        UserError: a name is unknown or in two groups, a value is invalid, or a group has no turn although there are turns.

    Example:
        >>> [(g.name, g.names) for g in make_groups({"critic": GroupConfig(learning_rate=1e-4)}, (), ("critic", "encoder", "decoder"))]
        [('critic', ('critic',)), ('default', ('decoder', 'encoder'))]
    """
    names, cycle = sorted(names), _cycle(turns)
    owner: dict[str, str] = {}
    for group, config in groups.items():
        if group == DEFAULT:
            raise UserError(
                f"optim.groups.{DEFAULT} is invalid: it is the group of all parameters that no group names; set their options in optim"
            )
        if config.clip_weights and not (len(config.clip_weights) == 2 and config.clip_weights[0] < config.clip_weights[1]):
            raise UserError(f"optim.groups.{group}.clip_weights={config.clip_weights} is invalid; it must be (low, high) with low < high")
        for name in config.names or (group,):
            if name not in names:
                raise unknown(f"optim.groups.{group}.names: the name" if config.names else "optim.groups: the name", name, names)
            if name in owner:
                raise UserError(f"optim.groups.{group}: the parameters {name!r} are in the group {owner[name]!r} too")
            owner[name] = group
    for turn in cycle:
        if turn in owner and turn not in groups:
            raise UserError(f"optim.turns: the parameters {turn!r} are in the group {owner[turn]!r}; name that group")
        if turn not in groups and turn != DEFAULT:
            if turn not in names:
                raise unknown("optim.turns: the name", turn, {*groups, *(name for name in names if name not in owner), DEFAULT})
            owner[turn] = turn
    rest = tuple(name for name in names if name not in owner)
    if DEFAULT in cycle and not rest:
        raise UserError(f"optim.turns: {DEFAULT!r} is invalid: all parameters are in other turns")
    if cycle and (missing := [*(group for group in groups if group not in cycle), *(rest if DEFAULT not in cycle else ())]):
        hint = f"every trained parameter must be in one turn ({DEFAULT}: all that are in no other)"
        raise UserError(f"optim.turns={','.join(turns)} has no turn for {', '.join(missing)}; {hint}")
    made = [
        Group(group, tuple(name for name in names if owner.get(name) == group), groups.get(group, GroupConfig()), cycle)
        for group in dict.fromkeys([*groups, *cycle])
        if group != DEFAULT
    ]
    return (*made, Group(DEFAULT, rest, GroupConfig(), cycle)) if rest else tuple(made)


def _cycle(turns: Sequence[str]) -> dict[str, int]:
    """{name: steps} of "NAME:STEPS", in the order of the cycle."""
    cycle: dict[str, int] = {}
    for turn in turns:
        name, _, count = turn.rpartition(":")
        if not name or not count.isdecimal() or int(count) < 1:
            raise UserError(f"optim.turns: {turn!r} is invalid; it must be NAME:STEPS with STEPS >= 1, for example critic:5,generator:1")
        if name in cycle:
            raise UserError(f"optim.turns: {name!r} has two turns; give it one")
        cycle[name] = int(count)
    return cycle


def finish_update(groups: Sequence[Group], step: Array, before: Params, after: Params) -> Params:
    """The parameters after a step: those of the groups that it updates, clipped to clip_weights, and `before` of the others.

    Args:
        groups: all groups of the parameters.
        step: steps done before this one, an int32 scalar.
        before, after: trained parameters before and after the optimiser's updates.
    """
    out = {}
    for group in groups:
        new = group.of(after)
        if group.config.clip_weights:
            new = jax.tree.map(lambda p, bounds=group.config.clip_weights: jnp.clip(p, *bounds), new)
        out |= choose(group, step, new, group.of(before))
    return out


def only_on_turn(groups: Sequence[Group], step: Array, gradients: Params) -> Params:
    """The gradients that a step uses: 0 for the groups that it does not update."""
    out = {}
    for group in groups:
        out |= choose(group, step, group.of(gradients), jax.tree.map(jnp.zeros_like, group.of(gradients)))
    return out


def choose(group: Group, step: Array, new: Params, old: Params) -> Params:
    """`new` in the group's turn, else `old`."""
    if not group.turns:
        return new
    on = group.on(step)
    return jax.tree.map(lambda a, b: jnp.where(on, a, b), new, old)
