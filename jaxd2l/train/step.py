"""One step of training, as a pure function of (training state, batch)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxd2l import layers
from jaxd2l.layers import Layer
from jaxd2l.layers.core import fold_path
from jaxd2l.ops import losses, metrics
from jaxd2l.optim import was_skipped

Array = jax.Array
Loss = Callable[[Any, Any], Array]
Metrics = Mapping[str, Callable[[Any, Any], Array]]


class Model(NamedTuple):
    """All that training needs of a model: two pure functions.

    `init(key, input_shape) -> (params, state)` and
    `apply(params, state, inputs, *, key, train, mask) -> (outputs, state)`.
    A network record gives both (`model_of`); a model that is no single network supplies its own.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def model_of(model: Layer | Model) -> Model:
    """A network as a pair of functions; a pair stays as it is.

    Raises:
      TypeError: neither a network nor a `Model`.

    Example:
      >>> from jaxd2l import models
      >>> params, state = model_of(models.lenet()).init(jax.random.key(0), (28, 28, 1))
      >>> params["conv1"]["kernel"].shape
      (5, 5, 1, 6)
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, Layer):
        raise TypeError(f"expected a network or train.Model(init, apply), got {model!r}")

    def init(key: Array, input_shape: Any) -> Any:
        return layers.init(model, key, input_shape)

    def apply(params: Any, state: Any, inputs: Any, **call: Any) -> Any:
        return layers.apply(model, params, state, inputs, **call)

    return Model(init, apply)


def check_optimizer(optimizer: Any, where: str) -> None:
    """Refuse what is not an Optax transformation, such as `optax.sgd` without its rate.

    Example:
      >>> check_optimizer(optax.sgd, "fit")
      Traceback (most recent call last):
      TypeError: fit: optimizer must be an Optax transformation such as optax.sgd(0.1), got function
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"{where}: optimizer must be an Optax transformation such as optax.sgd(0.1), "
            f"got {type(optimizer).__name__}"
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes; what a checkpoint holds.

    Attributes:
      params, state, opt_state: parameters, running statistics, optimiser state.
      key: the key of the run; step s uses `fold_in(key, s)`.
      step: () int32, steps taken.
      totals: sums over the examples of this epoch so far: "count", "loss" and each metric.
      finite: () bool, whether every loss so far was finite.
      carry: where each row's sequence stands, for batches that continue each other; else None.
    """

    params: Any
    state: Any
    opt_state: Any
    key: Array
    step: Array
    totals: dict[str, Array]
    finite: Array
    carry: Any = None


def default_metrics(targets: Any) -> Metrics:
    """Accuracy where the targets are labels, nothing else otherwise.

    Example:
      >>> list(default_metrics(jnp.array([3, 1]))), list(default_metrics(jnp.array([0.5])))
      (['accuracy'], [])
    """
    if jnp.issubdtype(jnp.result_type(targets), jnp.integer):
        return {"accuracy": metrics.correct}
    return {}


def zero_totals(names: Metrics) -> dict[str, Array]:
    """Sums over no examples."""
    totals = {"loss": jnp.zeros((), jnp.float32), "count": jnp.zeros((), jnp.int32)}
    return totals | {name: jnp.zeros((), jnp.float32) for name in names}


def means(totals: Mapping[str, Any]) -> dict[str, float]:
    """The sums of `totals` divided by its count, on the host (this waits for the device).

    Example:
      >>> means({"loss": jnp.float32(6.0), "count": jnp.int32(4)})
      {'loss': 1.5}
    """
    host = jax.device_get(dict(totals))
    count = max(int(host.pop("count")), 1)
    return {
        name: float(host[name]) / count for name in sorted(host, key=lambda n: (n != "loss", n))
    }


def start(
    model: Layer | Model,
    optimizer: optax.GradientTransformation,
    key: Array,
    input_shape: Any,
    metrics: Metrics,
    initial: tuple[Any, Any] | None = None,
    rows: int | None = None,
) -> TrainState:
    """The state before the first step; parameters and steps draw from different keys.

    `initial` = (params, state) takes the place of what the model's `init` gives. With `rows`, the
    batch size, there is a carry: batches will continue each other.

    Example:
      >>> from jaxd2l import models
      >>> first = start(models.mlp(), optax.sgd(0.1), jax.random.key(0), (28, 28, 1), {})
      >>> int(first.step), sorted(first.params)
      (0, ['dense1', 'output'])
    """
    if initial is None:
        params, state = model_of(model).init(fold_path(key, ("init",)), input_shape)
    else:
        params, state = jax.tree.map(jnp.asarray, initial)
    return TrainState(
        params,
        state,
        optimizer.init(params),
        fold_path(key, ("run",)),
        jnp.zeros((), jnp.int32),
        zero_totals(metrics),
        jnp.ones((), bool),
        None if rows is None else zero_carry(model, params, rows, input_shape),
    )


def zero_carry(model: Any, params: Any, rows: int, input_shape: Any) -> Any:
    """The carry of `rows` sequences at their beginning, in the dtype of the parameters.

    Raises:
      TypeError: a `Model` pair, which has no carry that could be seen.
      ValueError: the network has none, or a cache of limited length.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"carry=True needs a network, got {type(model).__name__}")
    dtypes = [a.dtype for a in jax.tree.leaves(params) if jnp.issubdtype(a.dtype, jnp.floating)]
    zeros = jnp.zeros((rows, *input_shape), jnp.int32)
    try:
        carry = layers.initial_carry(model, zeros, dtype=dtypes[0] if dtypes else jnp.float32)
    except ValueError as error:
        error.add_note("carry=True is for recurrent networks: caches of attention are not carried")
        raise
    if not carry:
        raise ValueError("carry=True: no layer of the network has a carry")
    return carry


def per_example(values: Array, n: int, name: str) -> Array:
    """A loss or metric of shape (n, ...) as the mean over the other axes: (n,).

    Raises:
      ValueError: there is not one value for each of the `n` examples, for instance a mean.

    Example:
      >>> per_example(jnp.array([[1.0, 3.0], [0.0, 1.0]]), 2, "loss").tolist()
      [2.0, 0.5]
    """
    values = jnp.asarray(values)
    if values.shape[:1] != (n,):
        raise ValueError(
            f"{name} must give one value per example, shape ({n}, ...), got {values.shape}; "
            f"do not take the mean, so that padding can be left out of it"
        )
    return values if values.ndim == 1 else values.mean(axis=tuple(range(1, values.ndim)))


def _sums(
    loss_values: Array, outputs: Any, targets: Any, mask: Array, metrics: Metrics
) -> dict[str, Array]:
    def total(values: Array) -> Array:
        return jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0.0))

    sums = {"loss": total(loss_values), "count": jnp.sum(mask, dtype=jnp.int32)}
    measured = {
        name: total(per_example(f(outputs, targets), mask.shape[0], f"the metric {name!r}"))
        for name, f in metrics.items()
    }
    return sums | measured


def make_update(
    model: Layer | Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    metrics: Metrics,
    *,
    padded: bool = True,
) -> Callable[[TrainState, Any], TrainState]:
    """The pure function (training state, batch) -> training state, not yet compiled.

    The loss is the mean over the real examples of the batch: L = sum_i mask_i l_i / sum_i mask_i.
    Where the training state has a carry, the network continues from it and leaves its new one, and
    no gradient flows into the batch before: truncated back-propagation through time. Where the
    optimiser skips a step (`optim.skip_non_finite`), statistics, carry and totals do so too.

    Args:
      model: a network, or a `Model`.
      loss: (outputs, targets) -> (n, ...), one value per example or element.
      optimizer: any Optax transformation. One that takes extra arguments is given those of the
        batch: `value`, `grad`, and the functions of the parameters `value_fn` and `grad_fn`.
      metrics: names and functions (outputs, targets) -> (n,), summed into `totals`.
      padded: whether batches may hold padding; with False the mask is known to be all True.

    Example:
      >>> from jaxd2l import data, models
      >>> net, sgd = models.linear_regression(), optax.sgd(0.1)
      >>> update = make_update(net, losses.squared_loss, sgd, {})
      >>> first = start(net, sgd, jax.random.key(0), (2,), {})
      >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
      >>> after = update(first, data.Batch(x, y, jnp.ones(4, bool), jnp.arange(4)))
      >>> int(after.step), int(after.totals["count"])
      (1, 4)
    """
    functions = model_of(model)
    full = optax.with_extra_args_support(optimizer)

    def update(train: TrainState, batch: Any) -> TrainState:
        inputs, targets, mask = batch.inputs, batch.targets, batch.mask
        key = jax.random.fold_in(train.key, train.step)

        def objective(params: Any) -> tuple[Array, Any]:
            real, carry = mask if padded else None, None
            if train.carry is None or not isinstance(model, Layer):
                outputs, state = functions.apply(
                    params, train.state, inputs, key=key, train=True, mask=real
                )
            else:
                before = jax.lax.stop_gradient(train.carry)
                outputs, carry, state = layers.extend(
                    model, params, train.state, inputs, before, key=key, train=True, mask=real
                )
            values = per_example(loss(outputs, targets), mask.shape[0], "the loss")
            mean = losses.masked_mean(values, mask) if padded else values.mean()
            return mean, (values, outputs, state, carry)

        gradient = jax.value_and_grad(objective, has_aux=True)
        (mean, (values, outputs, state, carry)), grads = gradient(train.params)
        updates, opt_state = full.update(
            grads,
            train.opt_state,
            train.params,
            value=mean,
            grad=grads,
            value_fn=lambda params: objective(params)[0],
            grad_fn=lambda params: jax.grad(lambda p: objective(p)[0])(params),
        )
        sums = _sums(values, outputs, targets, mask, metrics)
        finite = jnp.isfinite(mean)
        skipped = was_skipped(opt_state)
        if skipped is not None:  # the batch is as if it had not been there
            finite = finite | skipped
            new, old = (
                (state, carry, sums),
                (train.state, carry and train.carry, zero_totals(metrics)),
            )
            state, carry, sums = jax.tree.map(lambda a, b: jnp.where(skipped, b, a), new, old)
        return TrainState(
            optax.apply_updates(train.params, updates),
            state,
            opt_state,
            train.key,
            train.step + 1,
            {name: train.totals[name] + value for name, value in sums.items()},
            train.finite & finite,
            carry,
        )

    return update


def make_step(
    model: Layer | Model,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    metrics: Metrics,
    *,
    padded: bool = True,
) -> Callable[[TrainState, Any], TrainState]:
    """`make_update`, compiled, with the old state's memory given to the new one (donated).

    The state that goes in must not be used again.

    Example:
      >>> from jaxd2l import data, models
      >>> net, sgd = models.linear_regression(), optax.sgd(0.5)
      >>> step = make_step(net, losses.squared_loss, sgd, {})
      >>> current = start(net, sgd, jax.random.key(0), (2,), {})
      >>> batches = data.Batches(data.synthetic_linear(0), 100)
      >>> for batch in batches.epoch(0):
      ...     current = step(current, batch)
      >>> current.params["linear"]["kernel"].round(1).ravel().tolist()
      [2.0, -3.4000000953674316]
    """
    update = make_update(model, loss, optimizer, metrics, padded=padded)
    return jax.jit(update, donate_argnums=0)


def make_evaluate(
    model: Layer | Model, loss: Loss, metrics: Metrics
) -> Callable[[Any, Any, Any, dict[str, Array]], dict[str, Array]]:
    """The compiled function (params, state, batch, totals) -> totals of one more batch.

    The model runs with `train=False`; padding does not count.

    Example:
      >>> from jaxd2l import data, models
      >>> net = models.linear_regression()
      >>> add = make_evaluate(net, losses.squared_loss, {})
      >>> first = start(net, optax.sgd(0.1), jax.random.key(0), (2,), {})
      >>> totals = zero_totals({})
      >>> for batch in data.Batches(data.synthetic_linear(0, n=10), 4).epoch(0):
      ...     totals = add(first.params, first.state, batch, totals)
      >>> int(totals["count"])
      10
    """

    @jax.jit
    def add(params: Any, state: Any, batch: Any, totals: dict[str, Array]) -> dict[str, Array]:
        return add_batch(model, loss, metrics, params, state, batch, totals)

    return add


def add_batch(
    model: Layer | Model,
    loss: Loss,
    metrics: Metrics,
    params: Any,
    state: Any,
    batch: Any,
    totals: dict[str, Array],
) -> dict[str, Array]:
    """The totals with one more batch, in evaluation; not compiled. See `make_evaluate`.

    Example:
      >>> from jaxd2l import data, models
      >>> net, x = models.linear_regression(), jnp.ones((4, 2))
      >>> params, state = layers.init(net, jax.random.key(0), (2,))
      >>> batch = data.Batch(x, jnp.ones((4, 1)), jnp.ones(4, bool), jnp.arange(4))
      >>> totals = zero_totals({})
      >>> int(add_batch(net, losses.squared_loss, {}, params, state, batch, totals)["count"])
      4
    """
    outputs, _ = model_of(model).apply(params, state, batch.inputs, train=False)
    values = per_example(loss(outputs, batch.targets), batch.mask.shape[0], "the loss")
    sums = _sums(values, outputs, batch.targets, batch.mask, metrics)
    return {name: totals[name] + value for name, value in sums.items()}


@jax.jit
def all_finite(tree: Any) -> Array:
    """() bool: every floating point value of the tree is finite.

    Example:
      >>> bool(all_finite({"a": jnp.ones(2), "b": jnp.array(jnp.nan)}))
      False
    """
    floats = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(a).all() for a in floats] or [jnp.array(True)]).all()
