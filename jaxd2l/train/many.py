"""Many runs as one: ensembles, sweeps over hyper-parameters, and K-fold cross-validation.

All three take keys and hyper-parameters that may have a leading axis, and map over whatever has
one. The axes of the result are in the order (folds, hyper-parameters, keys).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.data.splits import k_folds
from jaxd2l.train.mapping import WAYS, How, choose, map_runs
from jaxd2l.train.run import Data, Outcome, Part, Run, part_of

Array = jax.Array


class Folds(NamedTuple):
    """What `cross_validate` gives.

    Attributes:
      outcome: of the run on each fold; its history has "valid_loss" of that fold.
      valid: means over the validation part of each fold after the last epoch.
      mean: means over all examples, each validated once: what is left of `valid` when folds of
        unequal size are counted by their examples.
      parts: the examples that validated in each fold, rows of the data: (k, m) with `count` (k,).
    """

    outcome: Outcome
    valid: dict[str, Array]
    mean: dict[str, Array]
    parts: Part


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a data set without the data: see `Part`, and `of` to make one."""

    rows: Array
    count: Array
    fewest: int = dataclasses.field(metadata={"static": True})

    def of(self, data: Part) -> Part:
        return Part(data.inputs, data.targets, data.rows[self.rows], self.count, self.fewest)


def padded_rows(parts: Sequence[np.ndarray]) -> Rows:
    """Lists of rows of unequal length as one array, the shorter ones padded with row 0.

    Example:
      >>> rows = padded_rows([np.array([4, 5, 6]), np.array([7, 8])])
      >>> rows.rows.tolist(), rows.count.tolist(), rows.fewest
      ([[4, 5, 6], [7, 8, 0]], [3, 2], 2)
    """
    counts = [len(part) for part in parts]
    rows = np.zeros((len(parts), max(counts)), np.int32)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return Rows(jnp.asarray(rows), jnp.asarray(counts, jnp.int32), min(counts))


def _is_key(key: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(key), jax.dtypes.prng_key)


def as_keys(keys: Any, where: str) -> tuple[Array, bool]:
    """Keys as an array of keys, and whether there is an axis of them.

    Example:
      >>> as_keys(jax.random.split(jax.random.key(0), 3), "ensemble")[1]
      True
    """
    array = jnp.asarray(keys)
    ranks = (0, 1) if _is_key(array) else (1, 2)  # a key of the old style is a row of two numbers
    if array.ndim not in ranks or 0 in array.shape:
        raise ValueError(
            f"{where}: expected one PRNG key or an array of keys such as jax.random.split(key, 8), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array, array.ndim == ranks[1]


def as_hypers(hyper: Mapping[str, Any] | None, where: str) -> tuple[dict[str, Array], int | None]:
    """Hyper-parameters as arrays of one length where they have one, and that length or None.

    Example:
      >>> hypers, h = as_hypers({"learning_rate": [0.1, 0.2], "decay": 0.0}, "sweep")
      >>> hypers["decay"].shape, h
      ((2,), 2)
    """
    if hyper is not None and not isinstance(hyper, Mapping):
        raise TypeError(
            f"{where}: hyper-parameters must be a dict such as {{'learning_rate': rates}}, "
            f"got {type(hyper).__name__}"
        )
    arrays = {}
    for name, value in (hyper or {}).items():
        array = np.asarray(value) if not isinstance(value, jax.Array) else value
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)  # no weak types: one program for all
        arrays[name] = jnp.asarray(array, dtype)
    lengths = {name: a.shape[0] for name, a in arrays.items() if a.ndim == 1}
    bad = [name for name, a in arrays.items() if a.ndim > 1 or 0 in a.shape]
    if bad or len(set(lengths.values())) > 1:
        shapes = {name: a.shape for name, a in arrays.items()}
        raise ValueError(
            f"{where}: hyper-parameters must be numbers, or arrays (h,) of one length h above 0 "
            f"(`train.grid` makes them), got shapes {shapes}"
        )
    if not lengths:
        return arrays, None
    h = next(iter(lengths.values()))
    return {name: jnp.broadcast_to(a, (h,)) for name, a in arrays.items()}, h


def run_cases(
    run: Run,
    axes: Sequence[dict[str, Any] | None],
    shared: dict[str, Any],
    how: How | None,
    memory: int | None,
    where: str,
) -> Outcome:
    """The run for every combination of the cases on the axes; leading axes in their order.

    A run is told what it needs by name: "key", "hyper", "data" and "valid" (`Part`s), "rows" and
    "held" (`Rows` of the data to train on and to validate on), "before" (an `Outcome`). What is the
    same in all runs stands in `shared`; an axis is a dict of what changes along it, every leaf with
    one leading axis, or None.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=2, batch_size=4)
      >>> shared = {"key": jax.random.key(0), "data": part_of((x, x), "example")}
      >>> rates = {"hyper": {"learning_rate": jnp.array([0.1, 0.2, 0.3])}}
      >>> run_cases(run, [rates], shared, None, None, "example").history["loss"].shape
      (3, 2)
    """
    if not isinstance(run, Run):
        raise TypeError(f"{where}: expected what train.make_run gives, got {type(run).__name__}")
    if how is not None and how not in WAYS:
        raise ValueError(f"{where}: how must be one of {WAYS} or None, got {how!r}")
    data = shared["data"]
    size = min(run.batch_size, data.rows.shape[-1])
    way = how or choose(run.model, data.inputs.shape[1:], size, jax.default_backend())

    def one(*cases: Any) -> Outcome:
        given: dict[str, Any] = dict(cases[-1])
        for case in cases[:-1]:
            given |= case or {}
        data = given["data"]
        valid = given["held"].of(data) if "held" in given else given.get("valid")
        return run.train(
            given["key"],
            given["rows"].of(data) if "rows" in given else data,
            given.get("hyper"),
            valid=valid,
            before=given.get("before"),
        )

    in_turn = how is None and jax.default_backend() == "cpu" and "rows" in (axes[0] or {})
    return map_runs(one, axes, shared, way, memory, run.programs, where, in_turn)


def _map(
    run: Run,
    keys: Array,
    hyper: Mapping[str, Any] | None,
    shared: dict[str, Any],
    folds: dict[str, Any] | None,
    how: How | None,
    memory: int | None,
    where: str,
) -> Any:
    """Over the folds, the hyper-parameters and the keys, as far as there are several."""
    keys, many_keys = as_keys(keys, where)
    hypers, h = as_hypers(hyper, where)
    axes = [folds, None if h is None else {"hyper": hypers}, {"key": keys} if many_keys else None]
    fixed = ({"hyper": hypers} if h is None else {}) | ({} if many_keys else {"key": keys})
    return run_cases(run, axes, shared | fixed, how, memory, where)


def as_shared(data: Data, valid: Data | None, where: str) -> dict[str, Any]:
    """The data of all runs, as `run_cases` takes them.

    Example:
      >>> list(as_shared((jnp.zeros((3, 2)), jnp.zeros(3)), None, "sweep"))
      ['data']
    """
    shared = {"data": part_of(data, where)}
    return shared if valid is None else shared | {"valid": part_of(valid, f"{where}: valid")}


def as_whole(data: Data, where: str) -> Part:
    """Data of which every row counts; a padded part is refused.

    Example:
      >>> as_whole((jnp.zeros((3, 2)), jnp.zeros(3)), "cross_validate").fewest
      3
    """
    whole = part_of(data, where)
    if whole.rows.ndim != 1 or whole.fewest != whole.rows.shape[0]:
        raise ValueError(f"{where}: data must be a whole data set, not a padded part of one")
    return whole


def ensemble(
    run: Run,
    keys: Array,
    data: Data,
    hyper: Mapping[str, Any] | None = None,
    *,
    valid: Data | None = None,
    how: How | None = None,
    memory: int | None = None,
) -> Outcome:
    """The same run from several keys: other initial parameters, other order of the examples.

    `jax.vmap(lambda p, s: apply(net, p, s, x)[0])(outcome.params, outcome.state)` are the outputs
    of all members.

    Args:
      run: from `make_run`.
      keys: (s,) keys, as `jax.random.split(key, s)` gives them.
      hyper: as for the run; where values are arrays (h,), every key is run with each of them.
      valid: evaluated after every epoch.
      how: "vmap", all at once; "map", one after the other in one program; "loop", one after the
        other in a Python loop; None, the measured rule (`train.mapping.choose`).
      memory: bytes that "vmap" may use, default most of what is free. It is estimated from the
        compiled program before anything runs; what would not fit goes through in chunks.

    Returns: an `Outcome`, every leaf with a leading axis (s,), or (h, s).

    Raises:
      TypeError, ValueError: keys, hyper-parameters, data or `how` that are none.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=2, batch_size=4)
      >>> keys = jax.random.split(jax.random.key(0), 5)
      >>> outcome = ensemble(run, keys, (x, 3 * x), {"learning_rate": 0.1})
      >>> outcome.params["linear"]["kernel"].shape, outcome.history["loss"].shape
      ((5, 1, 1), (5, 2))
    """
    where = "ensemble"
    shared = as_shared(data, valid, where)
    return _map(run, keys, hyper, shared, None, how, memory, where)


def sweep(
    run: Run,
    hypers: Mapping[str, Any],
    data: Data,
    *,
    key: Array,
    valid: Data | None = None,
    how: How | None = None,
    memory: int | None = None,
) -> Outcome:
    """The same run with several hyper-parameters, all from the same key unless there are several.

    Args:
      hypers: {"learning_rate": (h,) array, ...}, as `grid` and `random_search` make them; numbers
        are the same in all runs.
      key: one key, or keys (s,): every setting is run with each.
      run, data, valid, how, memory: as in `ensemble`.

    Returns: an `Outcome`, every leaf with a leading axis (h,), or (h, s).

    Raises:
      TypeError, ValueError: as `ensemble`; also where no hyper-parameter is an array.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 8).reshape(8, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=2, batch_size=4)
      >>> rates = jnp.array([0.01, 0.1, 0.3])
      >>> outcome = sweep(run, {"learning_rate": rates}, (x, 3 * x), key=jax.random.key(0))
      >>> int(outcome.history["loss"][:, -1].argmin())
      2
    """
    where = "sweep"
    if as_hypers(hypers, where)[1] is None:
        raise ValueError(f"{where}: no hyper-parameter is an array of values, got {dict(hypers)}")
    shared = as_shared(data, valid, where)
    return _map(run, key, hypers, shared, None, how, memory, where)


def cross_validate(
    run: Run,
    data: Data,
    k: int,
    hyper: Mapping[str, Any] | None = None,
    *,
    key: Array,
    shuffle: int | None = None,
    how: How | None = None,
    memory: int | None = None,
) -> Folds:
    """K-fold cross-validation: k runs, each of which leaves out one part and is validated on it.

    The parts differ in size by at most one, and every example is validated exactly once. The data
    are not copied: a fold is a list of rows, the shorter lists padded and masked.

    Args:
      k: how many folds; they are cut in the order of the examples, or in a random one by the seed
        `shuffle`.
      hyper: as for the run; where values are arrays (h,), every fold is run with each of them.
      key: one key, the same in all folds, or keys (s,): every fold is run with each.
      run, data, how, memory: as in `ensemble`.

    Returns: `Folds`, every leaf of whose outcome has a leading axis (k,), or (k, h, s).

    Raises:
      TypeError, ValueError: as `ensemble`; `k` below 2 or above the number of examples.

    Source: D2L 3.6.3 and 5.7.6.

    Example:
      >>> from jaxd2l import models, optim, train
      >>> from jaxd2l.ops import losses
      >>> x = jnp.linspace(-1.0, 1.0, 9).reshape(9, 1)
      >>> run = train.make_run(models.linear_regression(), losses.squared_loss, optim.sgd,
      ...                      epochs=50, batch_size=2)
      >>> folds = cross_validate(run, (x, 3 * x), 4, {"learning_rate": 0.3}, key=jax.random.key(0))
      >>> folds.valid["loss"].shape, folds.parts.count.tolist(), bool(folds.mean["loss"] < 1e-6)
      ((4,), [3, 2, 2, 2], True)
    """
    where = "cross_validate"
    whole = as_whole(data, where)
    folds = k_folds(whole.fewest, k, shuffle)
    held = padded_rows([f.valid for f in folds])
    cut = {"rows": padded_rows([f.train for f in folds]), "held": held}
    outcome = _map(run, key, hyper, {"data": whole}, cut, how, memory, where)
    epochs = outcome.history.items()
    valid = {k.removeprefix("valid_"): v[..., -1] for k, v in epochs if k.startswith("valid_")}
    count = held.count
    weight = (count / count.sum()).astype(jnp.float32)
    mean = {name: jnp.tensordot(weight, values, 1) for name, values in valid.items()}
    return Folds(outcome, valid, mean, held.of(whole))
