"""What the first-order methods share: a rule for one array, made into an Optax transformation.

Memory and arithmetic are at least float32: in bfloat16 a decay of 0.999 is 1, so that averages of
bfloat16 gradients would never forget. Updates come back in the dtype of the gradients.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.checks import check_floating

Array = jax.Array
Rate = float | Array | Callable[[Array], Any]
Memory = dict[str, Array]
Rule = Callable[[Array, Memory, Array, Array], tuple[Array, Memory]]


class RuleState(NamedTuple):
    """What a method remembers.

    Attributes:
      steps: () int32, steps taken.
      memory: running quantities by name, each a tree like the parameters.
    """

    steps: Array
    memory: dict[str, Any]


def check_learning_rate(learning_rate: Any, where: str) -> None:
    """Refuse what is neither a number, a () array nor a schedule; a number must be >= 0.

    Example:
      >>> check_learning_rate(-0.1, "sgd")
      Traceback (most recent call last):
      ValueError: sgd: learning_rate must be finite and at least 0, got -0.1: it descends already
    """
    if callable(learning_rate):
        return
    if isinstance(learning_rate, float | int) and not isinstance(learning_rate, bool):
        if not 0 <= learning_rate < math.inf:
            raise ValueError(
                f"{where}: learning_rate must be finite and at least 0, got {learning_rate}: "
                f"it descends already"
            )
        return
    if not hasattr(learning_rate, "dtype") or jnp.shape(learning_rate) != ():
        raise TypeError(
            f"{where}: learning_rate must be a number, a () array or a schedule (a function of "
            f"the step), got {learning_rate!r}; for many rates map over runs (jax.vmap)"
        )


def check_fraction(value: Any, name: str, where: str) -> None:
    """Refuse a Python number outside [0, 1); traced values are not looked at.

    Example:
      >>> check_fraction(1.0, "b2", "adam")
      Traceback (most recent call last):
      ValueError: adam: b2 must be in [0, 1), got 1.0
    """
    if isinstance(value, float | int) and not 0 <= value < 1:
        raise ValueError(f"{where}: {name} must be in [0, 1), got {value}")


def check_not_negative(value: Any, name: str, where: str) -> None:
    """Refuse a Python number below 0 (or NaN); traced values are not looked at.

    Example:
      >>> check_not_negative(-1e-8, "eps", "adam")
      Traceback (most recent call last):
      ValueError: adam: eps must be at least 0, got -1e-08
    """
    if isinstance(value, float | int) and not value >= 0:
        raise ValueError(f"{where}: {name} must be at least 0, got {value}")


def rate_at(learning_rate: Rate, count: Array) -> Array:
    """() the learning rate of the step after `count` steps.

    Example:
      >>> rate_at(lambda step: 0.5 * step, jnp.int32(3)).item()
      1.5
    """
    return jnp.asarray(learning_rate(count) if callable(learning_rate) else learning_rate)


def wide(dtype: Any) -> Any:
    """The dtype to compute and to remember in: float32, or float64 where the array is.

    Example:
      >>> print(wide(jnp.bfloat16))
      float32
    """
    return dtype if jnp.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)  # also when strict


def next_count(count: Array) -> Array:
    """`count + 1`, and the largest integer for ever once that is reached.

    Example:
      >>> next_count(jnp.int32(2)).item(), next_count(jnp.int32(2**31 - 1)).item()
      (3, 2147483647)
    """
    top = jnp.iinfo(count.dtype).max
    return jnp.where(count < top, count + 1, top)


def log_of(decay: Any) -> Any:
    """The logarithm of a decay, in double precision where it is a Python number.

    Example:
      >>> round(log_of(0.999), 10), log_of(0)
      (-0.0010005003, -inf)
    """
    if isinstance(decay, float | int):
        return math.log(decay) if decay > 0 else -math.inf
    return jnp.log(decay)


def correction(decay: Any, count: Array, dtype: Any) -> Array:
    """`1 - decay^count`, the weight that an average started at 0 has collected.

    Written so that float32 loses nothing: 1 - 0.999f is wrong by 1e-5 of itself.

    Example:
      >>> f"{correction(0.999, jnp.int32(1), jnp.float32):.9f} {1 - jnp.float32(0.999):.9f}"
      '0.001000000 0.000999987'
    """
    return -jnp.expm1(count.astype(dtype) * jnp.asarray(log_of(decay), dtype))


def blend(decay: Any, old: Array, new: Array) -> Array:
    """`decay * old + (1 - decay) * new`, as `old + (1 - decay)(new - old)`.

    The weights sum to 1 in float32 too, where 0.999 and 0.001 do not: over a thousand steps the
    average of squares is ten times more exact.

    Example:
      >>> blend(0.75, jnp.float32(4.0), jnp.float32(0.0)).item()
      3.0
    """
    if isinstance(decay, float | int) and decay == 0:
        return new
    return old + jnp.asarray(1 - decay, old.dtype) * (new - old)


def root(square: Array, eps: Any, eps_in_root: bool) -> Array:
    """`sqrt(square + eps)` or `sqrt(square) + eps`.

    Example:
      >>> root(jnp.float32(4.0), 5.0, True).item(), root(jnp.float32(4.0), 5.0, False).item()
      (3.0, 7.0)
    """
    small = jnp.asarray(eps, square.dtype)
    return jnp.sqrt(square + small) if eps_in_root else jnp.sqrt(square) + small


def check_params(params: Any, where: str, example: str) -> Any:
    """The parameters, refused where `update` was called without them.

    Example:
      >>> check_params(None, "adamw", "adamw(0.1)")
      Traceback (most recent call last):
      ValueError: adamw: update needs the parameters: adamw(0.1).update(grads, state, params)
    """
    if params is None:
        raise ValueError(
            f"{where}: update needs the parameters: {example}.update(grads, state, params)"
        )
    return params


def elementwise(
    rule: Rule, memory: Mapping[str, Any], learning_rate: Rate, where: str
) -> optax.GradientTransformation:
    """The transformation that follows a rule in every array.

    Args:
      rule: (gradient, memory, rate, count) -> (update, memory), all in the wide dtype; `count` is
        1 at the first step and `update` is what is added to the parameter.
      memory: names of what is remembered, and the values to start from.
      learning_rate: number, () array or schedule, a function of the steps taken before this one.
      where: name for errors.

    Example:
      >>> rule = lambda g, memory, rate, count: (-rate * g, memory)
      >>> method = elementwise(rule, {}, 0.5, "mine")
      >>> params = {"w": jnp.array([1.0, 2.0])}
      >>> method.update(params, method.init(params))[0]
      {'w': Array([-0.5, -1. ], dtype=float32)}
    """
    check_learning_rate(learning_rate, where)

    def init(params: Any) -> RuleState:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            text = jax.tree_util.keystr(path, simple=True, separator="/")
            check_floating(leaf, f"{where}: parameter {text!r}")

        def filled(value: Any) -> Any:
            return jax.tree.map(
                lambda p: jnp.full_like(p, value, dtype=wide(jnp.result_type(p))), params
            )

        filled_memory = {name: filled(value) for name, value in memory.items()}
        return RuleState(jnp.zeros((), jnp.int32), filled_memory)

    def update(grads: Any, state: RuleState, params: Any = None) -> tuple[Any, RuleState]:
        del params
        count, rate = next_count(state.steps), rate_at(learning_rate, state.steps)
        structure: Any = jax.tree.structure(grads)
        leaves = structure.flatten_up_to(grads)
        columns = {name: structure.flatten_up_to(tree) for name, tree in state.memory.items()}
        updates: list[Array] = []
        after: dict[str, list[Array]] = {name: [] for name in columns}
        for index, leaf in enumerate(leaves):
            gradient = jnp.asarray(leaf)
            dtype = wide(gradient.dtype)
            old = {name: column[index] for name, column in columns.items()}
            change, new = rule(gradient.astype(dtype), old, rate.astype(dtype), count)
            updates.append(change.astype(gradient.dtype))
            for name, value in new.items():
                after[name].append(value)
        trees = {name: structure.unflatten(values) for name, values in after.items()}
        return structure.unflatten(updates), RuleState(count, trees)

    return optax.GradientTransformation(init, update)
