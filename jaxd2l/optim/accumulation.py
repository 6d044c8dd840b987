"""One update for several batches: a batch larger than the memory, or one that grows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l.geometry import as_int
from jaxd2l.optim.guards import check_transformation
from jaxd2l.optim.rule import next_count, wide

Array = jax.Array


class AccumulateState(NamedTuple):
    """What `accumulate` remembers.

    Attributes:
      inner: the state of the optimiser inside.
      total: the sum of the gradients since its last update, 16-bit ones in float32.
      held: () int32, how many batches are in the sum.
      batches: () int32, how many batches there were.
    """

    inner: Any
    total: Any
    held: Array
    batches: Array


def accumulate(
    inner: optax.GradientTransformation, steps: int | Callable[[Array], Any]
) -> optax.GradientTransformationExtraArgs:
    """The optimiser, which is given the mean gradient of `steps` batches at every steps-th of them.

    For batches of one size that is the gradient of the large batch; a batch that is filled up with
    padding counts as much as the others. In between the updates are -0.0 and parameters stay bit
    for bit. Schedules inside count updates. What `inner` asks for besides the gradient (`value`,
    `grad_fn` of `sam`) is of the last batch alone. Batch norm still normalises by the small batch.

    Args:
      steps: how many, or a function of the number of batches before the first of them, such as
        `growing`.

    Shapes: updates as the parameters.

    Raises:
      ValueError: steps below 1.
      TypeError: inner is not an Optax transformation.

    Source: catalogue F20. PyTorch: several `backward` before a `step`, of losses divided by their
    number. `optax.MultiSteps` takes a function of the number of updates instead.

    Example:
      >>> optimizer = accumulate(optax.sgd(1.0), 2)
      >>> state = optimizer.init(jnp.zeros(1))
      >>> first, state = optimizer.update(jnp.array([1.0]), state, jnp.zeros(1))
      >>> second, state = optimizer.update(jnp.array([3.0]), state, jnp.zeros(1))
      >>> print(abs(first), second)
      [0.] [-2.]
    """
    inside = optax.with_extra_args_support(check_transformation(inner, "accumulate"))
    if not callable(steps):
        steps = as_int(steps, "accumulate: steps", 1)
    number = steps if callable(steps) else lambda batches: steps

    def init(params: Any) -> AccumulateState:
        total = jax.tree.map(lambda p: jnp.zeros_like(p, dtype=wide(jnp.result_type(p))), params)
        zero = jnp.zeros((), jnp.int32)
        return AccumulateState(inside.init(params), total, zero, zero)

    def update(
        grads: Any, state: AccumulateState, params: Any = None, **extra: Any
    ) -> tuple[Any, AccumulateState]:
        needed = jnp.asarray(number(state.batches - state.held))
        held = state.held + 1
        total = jax.tree.map(lambda t, g: t + g.astype(t.dtype), state.total, grads)

        def finish(opt_state: Any) -> tuple[Any, Any]:
            mean = jax.tree.map(
                lambda t, g: (t / held.astype(t.dtype)).astype(g.dtype), total, grads
            )
            return inside.update(mean, opt_state, params, **extra)

        def wait(opt_state: Any) -> tuple[Any, Any]:
            return jax.tree.map(lambda g: jnp.full_like(g, -0.0), grads), opt_state

        due = held >= needed
        updates, after = jax.lax.cond(due, finish, wait, state.inner)
        kept = jax.tree.map(lambda t: jnp.where(due, jnp.zeros_like(t), t), total)
        held = jnp.where(due, jnp.zeros_like(held), held)
        return updates, AccumulateState(after, kept, held, next_count(state.batches))

    return optax.GradientTransformationExtraArgs(init, update)


def growing(every: int, times: int = 2, *, most: int | None = None) -> Callable[[Any], Array]:
    """steps(b) = min(most, times^floor(b / every)): batches that grow while the rate stays.

    For `accumulate`: after every `every` batches (those of an epoch, say) the number of batches in
    an update is multiplied by `times`. To first order in the rate this moves the parameters as far
    as `step(rate, every, 1 / times)` with small batches does, with as much noise, in fewer updates.

    Shapes: result: a function of the number of batches b (), giving () int32.

    Raises:
      ValueError: every, times or most below 1.

    Source: Smith et al. 2018, "Don't Decay the Learning Rate, Increase the Batch Size".

    Example:
      >>> steps = growing(every=10, times=2, most=4)
      >>> [int(steps(b)) for b in (0, 9, 10, 20, 1000)]
      [1, 1, 2, 4, 4]
    """
    length = as_int(every, "growing: every", 1)
    factor = as_int(times, "growing: times", 1)
    top = 2**30 if most is None else as_int(most, "growing: most", 1)
    powers = [1]  # up to the first that reaches the top: int32 cannot overflow
    while factor > 1 and powers[-1] < top:
        powers.append(min(powers[-1] * factor, top))

    def steps(batches: Any) -> Array:
        stage = jnp.minimum(jnp.asarray(batches) // length, len(powers) - 1)
        return jnp.asarray(powers, jnp.int32)[stage]

    return steps
