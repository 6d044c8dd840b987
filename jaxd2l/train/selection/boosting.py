"""Boosting: learners that follow one another, each trained on what the others leave wrong."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_integer
from jaxd2l.geometry import as_int
from jaxd2l.layers.core import fold_path
from jaxd2l.train.many import as_whole
from jaxd2l.train.run import Data, Part, Run
from jaxd2l.train.selection.committee import outputs_of, predict_members
from jaxd2l.train.step import model_of

Array = jax.Array
SMALLEST_ERROR = 1e-6  # of a member that is right everywhere, so that its vote is finite


class Boosted(NamedTuple):
    """What boosting gives.

    Attributes:
      params, state: of the members, every leaf (m, ...).
      weights: (m,), what each member counts.
      offset: where the sum starts: (...) for least squares; () zero for AdaBoost.
      history: figures after each round, (m,) arrays.
    """

    params: Any
    state: Any
    weights: Array
    offset: Array
    history: dict[str, Array]


def least_squares_boosting(
    run: Run,
    key: Array,
    data: Data,
    rounds: int,
    hyper: Any = None,
    *,
    shrinkage: float | Array = 0.1,
) -> Boosted:
    """Each member is trained on the residuals that the members before it leave.

    F_0 = mean(y);  r = y - F_{m-1};  f_m is trained on r;  rho = <r, f_m> / <f_m, f_m>;
    F_m = F_{m-1} + shrinkage rho f_m.  With the best rho the mean squared error falls in every
    round, by shrinkage (2 - shrinkage) <r, f_m>^2 / <f_m, f_m>, whatever was trained. One program:
    a scan over the rounds. The committee's outputs are `boosted_values`.

    Args:
      run: from `make_run`, with a loss of squares; its outputs have the shape of the targets.
      key: member m runs from `fold_in(key, m)`.
      data: a whole data set.
      rounds: how many members.
      hyper: of every run.
      shrinkage: in (0, 1].

    Returns: `Boosted`; history {"loss": (m,)}, the mean squared error (not halved) on the data.

    Raises:
      ValueError: targets of another shape than the outputs; rounds below 1; padded data.
      TypeError: targets that are not floating point.

    Source: Friedman 2001, algorithm 2.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 16).reshape(16, 1)
      >>> run = train.make_run(models.mlp((4,), 1, "tanh"), losses.squared_loss, optim.adam,
      ...                      epochs=5, batch_size=8)
      >>> boosted = least_squares_boosting(run, jax.random.key(0), (x, jnp.sin(3 * x)), 6,
      ...                                  {"learning_rate": 0.1}, shrinkage=0.5)
      >>> bool((jnp.diff(boosted.history["loss"]) < 1e-6).all())
      True
    """
    where = "least_squares_boosting"
    inputs, targets = _columns(data, where)
    check_floating(targets, f"{where}: targets")
    n = targets.shape[0]
    offset = targets.mean(0)

    def one(sum_so_far: Array, number: Array) -> tuple[Array, Any]:
        residual = targets - sum_so_far
        outcome = run.train(jax.random.fold_in(key, number), (inputs, residual), hyper)
        outputs = outputs_of(run.model, outcome.params, outcome.state, inputs)
        if outputs.shape != targets.shape:
            raise ValueError(
                f"{where}: outputs and targets must have the same shape, "
                f"got {outputs.shape} and {targets.shape}"
            )
        outputs = outputs.astype(targets.dtype)
        square = (outputs**2).sum()
        rho = (residual * outputs).sum() / jnp.where(square > 0, square, 1)
        weight = jnp.asarray(shrinkage, targets.dtype) * rho
        sum_so_far = sum_so_far + weight * outputs
        loss = ((targets - sum_so_far) ** 2).sum() / targets.size
        return sum_so_far, (outcome.params, outcome.state, weight, {"loss": loss})

    first = jnp.broadcast_to(offset, (n, *offset.shape))
    numbers = jnp.arange(as_int(rounds, f"{where}: rounds", 1))
    _, (params, state, weights, history) = jax.lax.scan(one, first, numbers)
    return Boosted(params, state, weights, offset, history)


def boosted_values(model: Any, boosted: Boosted, inputs: Array) -> Array:
    """offset + sum_m weight_m f_m(x), the outputs of `least_squares_boosting`'s committee.

    Shapes: inputs (n, ...); result (n, ...) as the outputs of one member.

    Example:
      >>> from jaxd2l import layers, models
      >>> net, keys = models.linear_regression(), jax.random.split(jax.random.key(0), 2)
      >>> params, state = jax.vmap(lambda key: layers.init(net, key, (1,)))(keys)
      >>> boosted = Boosted(params, state, jnp.zeros(2), jnp.array([7.0]), {})
      >>> boosted_values(net, boosted, jnp.ones((2, 1))).tolist()
      [[7.0], [7.0]]
    """
    outputs = predict_members(model, boosted.params, boosted.state, inputs)
    return boosted.offset + jnp.tensordot(boosted.weights, outputs, 1)


def weighted_rows(key: Array, weights: Array) -> Array:
    """n rows, row i as often as n weights_i says, rounded up or down: (n,) int32.

    Systematic resampling: the points (u + j) / n, u uniform, fall into the intervals that the
    weights cut. The number of each row has the expectation n weights_i, and is within 1 of it,
    which independent draws are not.

    Shapes: weights (n,), of sum 1.

    Example:
      >>> weighted_rows(jax.random.key(0), jnp.array([0.5, 0.0, 0.25, 0.25])).tolist()
      [0, 0, 2, 3]
    """
    n = weights.shape[0]
    points = (jax.random.uniform(key) + jnp.arange(n)) / n
    ends = jnp.cumsum(weights)
    rows = jnp.searchsorted(ends / ends[-1], points, side="right")
    return jnp.minimum(rows, n - 1).astype(jnp.int32)


def adaboost(run: Run, key: Array, data: Data, rounds: int, hyper: Any = None) -> Boosted:
    """Each member is trained on examples weighted by how wrong the members before it were.

    w = 1/n;  err = sum_i w_i [wrong_i];  alpha = log((1 - err) / err) + log(K - 1);
    w_i <- w_i exp(alpha [wrong_i]), divided by the sum (SAMME; for two classes AdaBoost.M1, whose
    alpha is twice that of Freund and Schapire). A member sees the weights as `weighted_rows`, so
    any run can be boosted; err is exact. A member no better than chance, err >= 1 - 1/K, gets
    weight 0 and leaves the weights as they were; scikit-learn stops there. The error counts as at
    least 1e-6, so that a member that is always right has a finite vote. One program: a scan.

    For two classes the training error is at most prod_m 2 sqrt(err_m (1 - err_m)), the "bound".

    Args:
      run: from `make_run`; its outputs are logits (n, K).
      key: member m draws its rows and runs from `fold_in(key, m)`.
      data: a whole data set, the targets labels (n,).
      rounds: how many members.
      hyper: of every run.

    Returns: `Boosted`; weights are alpha; history {"member_error": err, "error": of the committee
      on the data, "bound"}, each (m,).

    Raises:
      TypeError: targets that are not integers.
      ValueError: other shapes; rounds below 1; padded data.

    Source: Freund and Schapire 1997; Zhu, Zou, Rosset and Hastie 2009.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 32).reshape(32, 1)
      >>> y = (abs(x[:, 0]) < 0.5).astype(jnp.int32)  # no linear classifier separates these
      >>> run = train.make_run(models.softmax_regression(2), losses.softmax_cross_entropy,
      ...                      optim.sgd, epochs=20, batch_size=8)
      >>> boosted = adaboost(run, jax.random.key(0), (x, y), 10, {"learning_rate": 1.0})
      >>> bool(boosted.history["error"][-1] < boosted.history["error"][0])
      True
    """
    where = "adaboost"
    inputs, targets = _columns(data, where)
    check_integer(targets, f"{where}: targets")
    if targets.ndim != 1:
        raise ValueError(f"{where}: targets must be labels (n,), got {targets.shape}")
    n = targets.shape[0]

    def one(carry: Any, number: Array) -> tuple[Any, Any]:
        weights, votes, bound = carry
        here = jax.random.fold_in(key, number)
        rows = weighted_rows(fold_path(here, ("rows",)), weights)
        part = Part(inputs, targets, rows, jnp.array(n, jnp.int32), n)
        outcome = run.train(here, part, hyper)
        logits = outputs_of(run.model, outcome.params, outcome.state, inputs)
        wrong = logits.argmax(-1) != targets
        alpha, err = vote_of(jnp.where(wrong, weights, 0).sum(), classes)
        weights = jnp.where(wrong, jnp.exp(alpha), 1) * weights
        weights = weights / weights.sum()
        votes = votes + alpha * jax.nn.one_hot(logits.argmax(-1), classes)
        bound = bound * jnp.where(alpha > 0, 2 * jnp.sqrt(err * (1 - err)), 1)
        error = (votes.argmax(-1) != targets).mean(dtype=jnp.float32)
        figures = {"member_error": err, "error": error, "bound": bound}
        return (weights, votes, bound), (outcome.params, outcome.state, alpha, figures)

    classes = _classes(run, key, inputs, where)
    first = (jnp.full(n, 1 / n), jnp.zeros((n, classes)), jnp.ones(()))
    numbers = jnp.arange(as_int(rounds, f"{where}: rounds", 1))
    _, (params, state, alphas, history) = jax.lax.scan(one, first, numbers)
    return Boosted(params, state, alphas, jnp.zeros(()), history)


def vote_of(error: Array, classes: int) -> tuple[Array, Array]:
    """alpha = log((1 - err) / err) + log(K - 1), 0 at chance or worse; and err as it was counted.

    Shapes: error (), the weighted share that is wrong; results ().

    Example:
      >>> round(float(vote_of(jnp.array(0.2), 2)[0]), 4), float(vote_of(jnp.array(0.6), 2)[0])
      (1.3863, 0.0)
    """
    err = jnp.clip(error, SMALLEST_ERROR, 1 - SMALLEST_ERROR)
    alpha = jnp.log1p(-err) - jnp.log(err) + jnp.log(classes - 1.0)
    return jnp.where(err < 1 - 1 / classes, jnp.maximum(alpha, 0), 0), err


def boosted_votes(model: Any, boosted: Boosted, inputs: Array) -> Array:
    """sum_m weight_m onehot(argmax f_m(x)): the votes of `adaboost`'s committee for each class.

    Shapes: inputs (n, ...); result (n, K), the largest of which is the predicted class.

    Example:
      >>> from jaxd2l import layers, models
      >>> net, keys = models.softmax_regression(3), jax.random.split(jax.random.key(0), 2)
      >>> params, state = jax.vmap(lambda key: layers.init(net, key, (1,)))(keys)
      >>> votes = boosted_votes(net, Boosted(params, state, jnp.ones(2), 0, {}), jnp.ones((4, 1)))
      >>> votes.sum(-1).tolist()
      [2.0, 2.0, 2.0, 2.0]
    """
    logits = predict_members(model, boosted.params, boosted.state, inputs)
    votes = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=boosted.weights.dtype)
    return jnp.tensordot(boosted.weights, votes, 1)


def _columns(data: Data, where: str) -> tuple[Array, Array]:
    whole = as_whole(data, where)
    return whole.inputs[whole.rows], whole.targets[whole.rows]


def _classes(run: Run, key: Array, inputs: Array, where: str) -> int:
    """K, from the shape of the outputs."""

    def logits(key: Array) -> Any:
        params, state = model_of(run.model).init(key, inputs.shape[1:])
        return outputs_of(run.model, params, state, inputs)

    shape = jax.eval_shape(logits, key).shape
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(f"{where}: outputs must be logits (n, K), K above 1, got {shape}")
    return int(shape[1])
