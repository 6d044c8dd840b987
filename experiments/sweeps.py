"""Runs of every setting and seed as one program, each seed with a split of its own.

    from sweeps import splits, swept

A comparison is fair if each method gets the setting that suits it: all are tried, and the one with
the lowest mean error on a validation part is taken. The test part is looked at once, for that one.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxd2l import data
from jaxd2l.layers import Layer
from jaxd2l.ops import losses
from jaxd2l.train import Part, Run, make_run, sweep
from jaxd2l.train.mapping import How


class Size(NamedTuple):
    """How much is run: how many seeds, and which share of the epochs."""

    seeds: int
    share: float

    def epochs(self, full: int) -> int:
        return max(2, round(self.share * full))


FULL, QUICK = Size(20, 1.0), Size(3, 0.1)


class Splits(NamedTuple):
    """Three disjoint parts of one data set for each seed; `rows` is (seeds, n)."""

    train: Part
    valid: Part
    test: Part


class Found(NamedTuple):
    """What came out of H settings and S seeds; arrays of the host, errors in percent.

    Attributes:
      train, valid, test: (H, S) error after the last epoch, in evaluation.
      loss: (H, S) training loss after the last epoch, in evaluation; inf where it is not finite.
      history: name -> (H, S, epochs).
      params: each leaf (H, S, ...).
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    loss: np.ndarray
    history: dict[str, np.ndarray]
    params: Any

    @property
    def best(self) -> int:
        """The setting with the lowest mean validation error."""
        return int(self.valid.mean(1).argmin())


def splits(dataset: data.Dataset, sizes: Sequence[int], seeds: int) -> Splits:
    """Training, validation and test parts of the given sizes, drawn anew for each seed."""
    n, total = len(dataset), sum(sizes)
    orders = np.stack([np.random.RandomState(s).permutation(n)[:total] for s in range(seeds)])
    rows = np.split(orders.astype(np.int32), np.cumsum(sizes)[:-1], axis=1)
    inputs, targets = jnp.asarray(dataset.inputs), jnp.asarray(dataset.targets)
    return Splits(*(_part(inputs, targets, jnp.asarray(r)) for r in rows))


def _part(inputs: Any, targets: Any, rows: Any) -> Part:
    return Part(inputs, targets, rows, jnp.array(rows.shape[-1], jnp.int32), rows.shape[-1])


def classifier(net: Layer, optimizer: Callable[..., Any], epochs: int, batch_size: int = 32) -> Run:
    """A run that minimises cross-entropy."""
    loss = losses.softmax_cross_entropy
    return make_run(net, loss, optimizer, epochs=epochs, batch_size=batch_size)


def swept(
    run: Run,
    hypers: Mapping[str, ArrayLike],
    parts: Splits,
    *,
    watched: Part | None = None,
    how: How = "vmap",
) -> Found:
    """Every setting (arrays (H,) that go together) and every seed.

    The history also has the figures on `watched` (default the validation part) after each epoch.
    """
    seeds = parts.train.rows.shape[0]
    whole = (*parts, parts.valid if watched is None else watched)

    def one(seed: Any, rows: Any) -> Any:
        mine = [replace(part, rows=r) for part, r in zip(whole, rows, strict=True)]
        key = jax.random.key(seed)
        out = sweep(run, hypers, mine[0], key=key, valid=mine[3], how=how)
        errors = [jax.vmap(run.evaluate, (0, 0, None))(*out[:2], part) for part in mine[:3]]
        return errors, out.history, out.params

    cases = (jnp.arange(seeds), [part.rows for part in whole])
    every = jax.vmap(one) if how == "vmap" else lambda *cases: jax.lax.map(lambda c: one(*c), cases)
    by_setting = jax.jit(lambda *c: jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), every(*c)))
    figures, history, params = by_setting(*cases)
    figures, history = jax.device_get((figures, history))
    train, valid, test = (100 * (1 - f["accuracy"].astype(np.float64)) for f in figures)
    loss = np.where(np.isfinite(figures[0]["loss"]), figures[0]["loss"], np.inf)
    return Found(train, valid, test, loss, history, params)


def arguments(doc: str | None, given: Sequence[str] | None, claims: Iterable[str]) -> Any:
    """The command line that these experiments share: (size, the claims asked for)."""
    known = tuple(claims)
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--quick", action="store_true", help="few seeds, few epochs")
    parser.add_argument("--claims", nargs="+", choices=known, default=known)
    options = parser.parse_args(given)
    return (QUICK if options.quick else FULL), tuple(options.claims)


def print_claims(
    doc: str | None, given: Sequence[str] | None, claims: Mapping[str, Callable[[Size], Any]]
) -> None:
    """Run the experiments on the claims that the command line asks for, one after another."""
    size, chosen = arguments(doc, given, claims)
    for claim in chosen:
        claims[claim](size)
        print()
