"""Bagging: members trained on bootstrap samples, judged on what each did not see."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.layers.core import fold_path
from jaxd2l.ops import losses
from jaxd2l.train.many import Rows, as_hypers, as_keys, as_shared, as_whole, run_cases
from jaxd2l.train.mapping import How
from jaxd2l.train.run import Data, Outcome, Part, Run
from jaxd2l.train.selection.committee import (
    average_probabilities,
    average_values,
    predict_members,
)
from jaxd2l.train.step import per_example

Array = jax.Array


class Bag(NamedTuple):
    """What `bagging` gives; with several settings everything but `rows` and `out` is (h, ...).

    Attributes:
      outcome: of the members: every leaf (b, ...).
      rows: (b, n) int32, the examples that each member was trained on.
      out: (b, n) bool, True where a member did not see an example.
      outputs: (n, ...), the combined outputs of the members that did not see the example; NaN
        where all saw it.
      error: means of the loss and of each metric over `outputs`, where there are any: {"loss": ()}.
      covered: (), share of the examples that some member did not see.
    """

    outcome: Outcome
    rows: Array
    out: Array
    outputs: Array
    error: dict[str, Array]
    covered: Array


def bootstrap_rows(key: Array, n: int) -> Array:
    """n rows drawn with replacement from 0..n-1: (n,) int32.

    A row is left out with probability (1 - 1/n)^n, about 0.368.

    Example:
      >>> bootstrap_rows(jax.random.key(0), 5).tolist()
      [0, 2, 0, 1, 2]
    """
    return jax.random.randint(fold_path(key, ("bootstrap",)), (n,), 0, n, jnp.int32)


def out_of_bag(rows: Array, n: int) -> Array:
    """Which of 0..n-1 do not occur among the rows.

    Shapes: rows (b, m) int; result (b, n) bool.

    Example:
      >>> out_of_bag(jnp.array([[2, 0, 2], [1, 1, 1]]), 3).tolist()
      [[False, True, False], [True, False, True]]
    """
    return jax.vmap(lambda r: jnp.ones(n, bool).at[r].set(False))(rows)


def bagging(
    run: Run,
    keys: Array,
    data: Data,
    hyper: Mapping[str, Any] | None = None,
    *,
    combine: Callable[[Array, Array], Array] | None = None,
    how: How | None = None,
    memory: int | None = None,
) -> Bag:
    """Members trained on samples drawn with replacement, and their error out of bag: one program.

    Member i runs from `keys[i]` on `bootstrap_rows(keys[i], n)`. An example is predicted by the
    members that did not see it: an estimate of the ensemble's error that needs no held-out data.

    Args:
      run: from `make_run`.
      keys: (b,) keys, one for each member.
      data: a whole data set.
      hyper: as for the run; where values are arrays (h,), there is a bag for each of them, all of
        the same samples, so that settings can be chosen by their error out of bag.
      combine: (outputs (b, n, ...), weights (b, n)) -> (n, ...); by default `average_probabilities`
        where the targets are labels and `average_values` otherwise.
      how, memory: as in `ensemble`.

    Raises:
      TypeError, ValueError: as `ensemble`; one key, or a padded part as data.

    Source: Breiman 1996; the notes on dropout compare it with bagging (D2L 5.6).

    Example:
      >>> from jaxd2l import models, optim, train
      >>> x = jnp.linspace(-1.0, 1.0, 16).reshape(16, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=20, batch_size=4)
      >>> keys = jax.random.split(jax.random.key(0), 8)
      >>> bag = bagging(run, keys, (x, 3 * x), {"learning_rate": 0.3})
      >>> bag.rows.shape, bag.outputs.shape, bool(bag.error["loss"] < 1e-3)
      ((8, 16), (16, 1), True)
    """
    where = "bagging"
    whole = as_whole(data, where)
    keys, many = as_keys(keys, where)
    if not many:
        raise ValueError(f"{where}: give one key for each member: jax.random.split(key, 10)")
    hypers, h = as_hypers(hyper, where)
    n = whole.fewest
    rows = _samples(keys, n)
    count = jnp.full(rows.shape[0], n, jnp.int32)
    members = {"key": keys, "rows": Rows(rows, count, n)}
    shared = as_shared(whole, None, where) | ({"hyper": hypers} if h is None else {})
    axes = [None if h is None else {"hyper": hypers}, members]
    outcome = run_cases(run, axes, shared, how, memory, where)

    if combine is None:
        labels = jnp.issubdtype(whole.targets.dtype, jnp.integer)
        combine = average_probabilities if labels else average_values
    kept = (where, combine, h is None)  # one compiled function for each
    judge = run.programs.setdefault(kept, _make_judge(run, combine, h is None))
    return Bag(outcome, rows, *judge(outcome.params, outcome.state, rows, whole))


@partial(jax.jit, static_argnums=1)
def _samples(keys: Array, n: int) -> Array:
    return jax.vmap(lambda key: bootstrap_rows(key, n))(keys)


def _make_judge(run: Run, combine: Callable[[Array, Array], Array], alone: bool) -> Any:
    """(params, state, rows, data) -> the last four fields of a `Bag`; of one bag, or of several."""

    @jax.jit
    def judge(params: Any, state: Any, rows: Array, data: Part) -> Any:
        n = data.fewest
        out = out_of_bag(rows, n)
        covered = out.any(0)
        inputs, targets = data.inputs[data.rows], data.targets[data.rows]

        def one(member: Any) -> tuple[Array, dict[str, Array]]:
            params, state = member
            outputs = combine(predict_members(run.model, params, state, inputs), out)
            error = {}
            for name, f in ({"loss": run.loss} | dict(run.metrics_of(data))).items():
                values = per_example(f(outputs, targets), n, name).astype(jnp.float32)
                error[name] = losses.masked_mean(values, covered)
            return outputs, error

        members = (params, state)
        outputs, error = one(members) if alone else jax.lax.map(one, members)
        return out, outputs, error, covered.mean()

    return judge
