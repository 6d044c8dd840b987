"""Averages of the parameters over the steps of training, kept in the optimiser's state."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxd2l.geometry import as_int
from jaxd2l.optim.guards import check_transformation, states_of
from jaxd2l.optim.rule import check_fraction, check_params, correction, next_count, wide

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AverageState:
    """What `average` and `swa` remember.

    Attributes:
      inner: the state of the optimiser inside.
      mean: the averaged parameters, 16-bit ones in float32: small changes would be lost.
      count: () int32, steps taken.
      dtypes: those of the parameters, in the order of the leaves.
    """

    inner: Any
    mean: Any
    count: Array
    dtypes: tuple[str, ...] = dataclasses.field(metadata={"static": True})


def _wide(x: Any) -> Array:
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _averaging(
    inner: optax.GradientTransformation, weight: Callable[[Array], Array], where: str
) -> optax.GradientTransformationExtraArgs:
    """mean += weight(t) (parameters after step t - mean), for t = 1, 2, ..."""
    inside = optax.with_extra_args_support(check_transformation(inner, where))

    def init(params: Any) -> AverageState:
        dtypes = tuple(str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(params))
        zero = jnp.zeros((), jnp.int32)
        return AverageState(inside.init(params), jax.tree.map(_wide, params), zero, dtypes)

    def update(
        grads: Any, state: AverageState, params: Any = None, **extra: Any
    ) -> tuple[Any, AverageState]:
        check_params(params, where, "optimizer")
        updates, new = inside.update(grads, state.inner, params, **extra)
        count = next_count(state.count)
        w = weight(count)

        def moved(mean: Array, after: Any) -> Array:
            after = _wide(after)
            if not jnp.issubdtype(after.dtype, jnp.floating):
                return after
            return jnp.where(w == 1, after, mean + w.astype(after.dtype) * (after - mean))

        mean = jax.tree.map(moved, state.mean, optax.apply_updates(params, updates))
        return updates, AverageState(new, mean, count, state.dtypes)

    return optax.GradientTransformationExtraArgs(init, update)


def average(
    inner: optax.GradientTransformation, decay: Any
) -> optax.GradientTransformationExtraArgs:
    """The optimiser, with an exponential moving average (EMA) of the parameters beside it.

    After t steps the mean is sum_i decay^(t-i) p_i / sum_i decay^(t-i), i = 1 ... t: corrected for
    bias, so that the initial parameters, which mean nothing, have no part in it; before the first
    step it is the initial parameters. Training itself is not changed; `averaged` gives the mean.
    Running statistics of norms belong to the parameters of training: make them anew for the mean by
    one pass over the data with `train=True`.

    Args:
      decay: in [0, 1), a number or an array, possibly traced. About 1 / (1 - decay) steps count.

    Raises:
      ValueError: decay is outside [0, 1).

    Source: Polyak and Juditsky 1992; Kingma and Ba 2015, section 7.2. PyTorch's `AveragedModel`
    with an EMA and `optax.ema(debias=False)` start from the first parameters and from 0.

    Example:
      >>> optimizer = average(optax.sgd(1.0), decay=0.5)
      >>> w = jnp.array(0.0)
      >>> state = optimizer.init(w)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(jnp.array(-3.0), state, w)
      ...     w = optax.apply_updates(w, updates)
      >>> float(w), float(averaged(state))  # (0.5 * 3 + 6) / 1.5
      (6.0, 5.0)
    """
    check_fraction(decay, "decay", "average")

    def weight(count: Array) -> Array:
        dtype = jnp.result_type(float)
        return jnp.asarray(1 - decay, dtype) / correction(decay, count, dtype)

    return _averaging(inner, weight, "average")


def swa(
    inner: optax.GradientTransformation, *, start: int, every: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Stochastic weight averaging: the plain mean of parameters along the way.

    The mean is that of the parameters after steps start, start + every, start + 2 every, ...;
    until the first of these it follows the parameters. With start=1 and every=1 it is Polyak's
    average. Meant for a constant or cyclic rate at the end of training. As to running statistics
    see `average`.

    Args:
      start: the first step, from 1, whose result counts.
      every: how many steps apart the counted ones are: the batches of an epoch, usually.

    Raises:
      ValueError: start or every below 1.

    Source: Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better
    Generalization". PyTorch: `AveragedModel`, called by hand at these steps.

    Example:
      >>> optimizer = swa(optax.sgd(1.0), start=2)
      >>> w = jnp.array(0.0)
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jnp.array(-1.0), state, w)
      ...     w = optax.apply_updates(w, updates)
      >>> float(averaged(state))  # of 2 and 3
      2.5
    """
    first, apart = as_int(start, "swa: start", 1), as_int(every, "swa: every", 1)

    def weight(count: Array) -> Array:
        since = count - first
        seen = jnp.maximum(since, 0) // apart + 1
        w = 1 / seen.astype(jnp.result_type(float))
        return jnp.where((since < 0) | (since % apart == 0), w, jnp.zeros_like(w))

    return _averaging(inner, weight, "swa")


def averaged(opt_state: Any) -> Any:
    """The averaged parameters, out of the state of an optimiser with `average` or `swa` inside.

    Shapes: as the parameters, in their dtypes.

    Raises:
      ValueError: there is no average inside, or several (in groups of `by_path`: put `average`
        around the whole optimiser).

    Example:
      >>> float(averaged(average(optax.sgd(0.1), 0.9).init(jnp.array(2.0))))
      2.0
    """
    found = states_of(opt_state, AverageState)
    if len(found) != 1:
        raise ValueError(
            f"averaged: the optimiser must have one optim.average or optim.swa inside, "
            f"found {len(found)}; make it the outermost, or the next below skip_non_finite"
        )
    leaves, tree = jax.tree.flatten(found[0].mean)
    pairs = zip(leaves, found[0].dtypes, strict=True)
    return jax.tree.unflatten(tree, [leaf.astype(dtype) for leaf, dtype in pairs])
