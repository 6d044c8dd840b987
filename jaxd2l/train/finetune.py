"""Fine-tuning: trained arrays in a new network, and other rates, or none, for parts of it.

A new head on a trained body goes so: `init` the new network, `transfer` all but the head into it,
and give `fit` that start as `initial` and `by_path({"output/*": optax.adam(1e-3)}, rest=freeze())`
as the optimiser.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.layers import BatchNorm, FixedBatchNorm, Layer, Parallel, Repeat, Serial, Split
from jaxd2l.layers.core import Params, State, path_text
from jaxd2l.layers.patterns import check_patterns, matching, refuse, unmatched
from jaxd2l.layers.shapes import array_paths, check_network, inner_path
from jaxd2l.train.step import check_optimizer

REST = "rest"


class Transfer(NamedTuple):
    """What `transfer` gives: the parameters and statistics to start from, and whose they are.

    Attributes:
      params, state: for the new network.
      copied: the paths whose arrays are the trained ones.
      left: the paths whose arrays are the fresh ones.
    """

    params: Params
    state: State
    copied: tuple[str, ...]
    left: tuple[str, ...]


def _pair(value: Any, what: str) -> tuple[Params, State]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"transfer: {what} must be the pair (params, state), got {type(value)}")
    return value[0], value[1]


def _kind(array: Any) -> str:
    return f"{jnp.result_type(array)} {jnp.shape(array)}"


def transfer(
    trained: tuple[Params, State], fresh: tuple[Params, State], leave: Sequence[str]
) -> Transfer:
    """The arrays of a new network, each the trained one unless its path matches `leave`.

    Nothing is guessed: whatever the patterns do not name must be there on both sides with one
    shape and dtype.

    Args:
      trained: (params, state) to copy from.
      fresh: (params, state) of the new network, as `init` gives them.
      leave: path patterns of what is not copied, parameters and statistics alike: `["output/*"]`
        for the head; `[]` to copy all. They may also name arrays that only one side has. `*`
        matches any text, "/" included (Python's fnmatch).

    Shapes: each array as in `fresh`.

    Raises:
      ValueError: arrays that only one side has, or of other shapes or dtypes, or a pattern that
        matches nothing; all of them are listed.

    Source: D2L 14.2; Yosinski et al. 2014.

    Example:
      >>> from jaxd2l import init, models
      >>> old = init(models.mlp(num_classes=10), jax.random.key(0), (28, 28, 1))
      >>> new = init(models.mlp(num_classes=5), jax.random.key(1), (28, 28, 1))
      >>> start = transfer(old, new, leave=["output/*"])
      >>> start.copied, start.left
      (('dense1/bias', 'dense1/kernel'), ('output/bias', 'output/kernel'))
    """
    chosen = check_patterns(leave, "transfer: leave")
    pairs = list(zip(_pair(trained, "trained"), _pair(fresh, "fresh"), strict=True))
    problems, copied, left, trees = [], [], [], []
    everything: list[str] = []
    for source_tree, target_tree in pairs:
        source, target = array_paths(source_tree), array_paths(target_tree)
        everything += [*source, *target]
        leaves = []
        for path, leaf in target.items():
            if matching(path, chosen):
                left.append(path)
                leaves.append(leaf)
                continue
            copied.append(path)
            leaves.append(source.get(path))
            if path not in source:
                problems.append(f"{path}: the new network has it, the trained one has not")
            elif _kind(source[path]) != _kind(leaf):
                problems.append(
                    f"{path}: the new network needs {_kind(leaf)}, the trained one has "
                    f"{_kind(source[path])}"
                )
        problems += [
            f"{path}: the trained network has it, the new one has not"
            for path in source
            if path not in target and not matching(path, chosen)
        ]
        trees.append(jax.tree.unflatten(jax.tree.structure(target_tree), leaves))
    problems += unmatched(chosen, everything, "array")
    refuse("transfer: these do not fit (name in `leave` what is not to be copied)", problems)
    return Transfer(trees[0], trees[1], tuple(copied), tuple(left))


def freeze() -> optax.GradientTransformation:
    """The optimiser of parameters that stay as they are, bit for bit; it remembers nothing.

    Under `jit` no gradient is computed that only frozen parameters would need: of a frozen body
    with a trained head only the forward pass is left, and a step of LeNet or an MLP takes between
    a third and a half of the time. A norm over all gradients (`clip_by_global_norm` around
    `by_path`, not in one of its groups) needs them again; a rate of 0 freezes too, but saves
    nothing.

    `optax.set_to_zero` adds +0, which turns a -0 into +0; this adds -0, which changes nothing.

    Example:
      >>> w = jnp.array([1.5, -0.0])
      >>> updates, _ = freeze().update(jnp.ones(2), freeze().init(w))
      >>> optax.apply_updates(w, updates)
      Array([ 1.5, -0. ], dtype=float32)
    """
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates)
    )


def by_path(
    groups: Mapping[str, optax.GradientTransformation],
    rest: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """One optimiser made of several, each for the parameters whose paths match its pattern.

    Every parameter belongs to exactly one group. A group has its own memory, for its own
    parameters only, and what it measures, such as a norm to clip by, is measured over the group.

    Running statistics are no parameters: a training pass updates them in frozen layers too, as in
    PyTorch. `fix_statistics` keeps them.

    Args:
      groups: optimisers by path pattern, `{"output/*": optax.adam(1e-3)}`; `*` matches any text,
        "/" included (Python's fnmatch).
      rest: the optimiser of what no pattern matches: `freeze()`, or one of a smaller rate. None:
        the patterns must match everything.

    Raises:
      ValueError: when it is first given parameters (`init`): a path that matches no pattern or
        several, or a pattern that matches no path; all of them are listed.

    Source: D2L 14.2 (ten times the rate for the head). PyTorch: parameter groups.

    Example:
      >>> params = {"conv1": {"kernel": jnp.ones(3)}, "output": {"bias": jnp.ones(2)}}
      >>> optimizer = by_path({"output/*": optax.sgd(0.5)}, rest=freeze())
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> optax.apply_updates(params, updates)["output"]["bias"]
      Array([0.5, 0.5], dtype=float32)
    """
    if not isinstance(groups, Mapping) or not groups:
        raise TypeError(
            f"by_path: groups must map path patterns to optimisers, "
            f"{{'output/*': optax.sgd(0.1)}}, got {groups!r}"
        )
    chosen = check_patterns(groups, "by_path")
    if REST in chosen:
        raise ValueError(f"by_path: give what is left over as rest=..., not as {REST!r}")
    named = dict(groups) | ({} if rest is None else {REST: rest})
    for pattern, optimizer in named.items():
        check_optimizer(optimizer, f"by_path: {pattern!r}")

    def labels(params: Any) -> Any:
        found = {path: matching(path, chosen) for path in array_paths(params)}
        problems = [f"{path} matches {hits}" for path, hits in found.items() if len(hits) > 1]
        if rest is None:
            problems += [f"{path} matches none" for path, hits in found.items() if not hits]
        problems += unmatched(chosen, found, "parameter")
        refuse(
            "by_path: every path must match exactly one pattern (rest=... takes what none does)",
            problems,
        )
        names = [hits[0] if hits else REST for hits in found.values()]
        return jax.tree.unflatten(jax.tree.structure(params), names)

    return optax.partition(named, labels)


def fix_statistics(net: Layer, patterns: Sequence[str]) -> Layer:
    """The network with the batch norms at the patterns as `FixedBatchNorm`: they use their running
    statistics in training as well, and keep them.

    Without this a training pass normalises by the batch and moves the statistics, also where
    `by_path` freezes the parameters: so do PyTorch (unless the module is put into `eval()`) and
    Flax; Keras fixes both at once. Paths stay what they are, so arrays fit either network. A
    `FlaxModule` is left alone: give its own batch norms `use_running_average=True`.

    Args:
      patterns: of the statistics' paths, `["stage1/*"]`, or `["*"]` for all.

    Raises:
      ValueError: a pattern that matches no statistics of a batch norm.

    Source: D2L 14.2; Ioffe and Szegedy 2015.

    Example:
      >>> from jaxd2l import layers
      >>> net = layers.Serial([layers.Dense("dense", 4), layers.BatchNorm("bn")])
      >>> fix_statistics(net, ["bn/*"]).layers[1]
      FixedBatchNorm(name='bn')
    """
    check_network(net)
    chosen = check_patterns(patterns, "fix_statistics")
    seen: list[str] = []

    def change(layer: Layer, path: tuple[Any, ...]) -> Layer:
        path = inner_path(path, layer)
        match layer:
            case Serial(children):
                return dataclasses.replace(layer, layers=[change(c, path) for c in children])
            case Parallel(branches) | Split(branches):
                return dataclasses.replace(layer, branches=[change(b, path) for b in branches])
            case Repeat(child):
                return dataclasses.replace(layer, layer=change(child, path))
            case BatchNorm():
                paths = [f"{path_text(path)}/{leaf}" for leaf in ("mean", "var")]
                seen.extend(paths)
                if any(matching(each, chosen) for each in paths):
                    fields = dataclasses.fields(layer)
                    return FixedBatchNorm(**{f.name: getattr(layer, f.name) for f in fields})
        return layer

    changed = change(net, ())
    refuse("fix_statistics", unmatched(chosen, seen, "statistics of a batch norm"))
    return changed
