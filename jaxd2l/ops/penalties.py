"""Penalties on the size of parameters, to be added to a loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating
from jaxd2l.ops.vector_norms import lp_norm

Array = jax.Array


def _penalty(
    each: Callable[[Array], Array],
    params: Any,
    where: Callable[[str], bool] | None,
    name: str,
) -> Array:
    terms = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        text = jax.tree_util.keystr(path, simple=True, separator="/")
        if where is None or where(text):
            check_floating(leaf, f"{name}: parameter {text!r}")
            terms.append(each(jnp.asarray(leaf)))
    if not terms:
        return jnp.zeros(())
    with jax.numpy_dtype_promotion("standard"):
        return sum(terms[1:], terms[0])


def l2_penalty(params: Any, *, where: Callable[[str], bool] | None = None) -> Array:
    """`sum(w^2) / 2` over the leaves of a tree, whose gradient is `w`.

    `where` chooses leaves by path ("dense/kernel"); biases are usually left out:
    `where=lambda path: path.endswith("kernel")`. Times `lambda`, this is the negative log of a
    Gaussian prior N(0, s^2 / lambda) when the data term is a squared loss with noise variance s^2.

    Shapes:
      params: a tree of floating point arrays; result: ().

    Raises:
      TypeError: a chosen leaf is not floating point; its path is named.

    Source: D2L 3.7.

    Example:
      >>> l2_penalty({"dense": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([5.0])}},
      ...            where=lambda path: path.endswith("kernel"))
      Array(2.5, dtype=float32)
    """
    return _penalty(lambda w: jnp.sum(jnp.square(w)) / 2, params, where, "l2_penalty")


def l1_penalty(params: Any, *, where: Callable[[str], bool] | None = None) -> Array:
    """`sum(|w|)` over the leaves of a tree; the subgradient at 0 is 0.

    `where` chooses leaves by path, as in `l2_penalty`. This is the negative log of a Laplace prior
    of scale `s^2 / lambda`. Gradient descent on it approaches 0 without reaching it: exact zeros
    need soft thresholding.

    Shapes:
      params: a tree of floating point arrays; result: ().

    Raises:
      TypeError: a chosen leaf is not floating point; its path is named.

    Source: Tibshirani 1996 (the lasso); D2L 3.7.

    Example:
      >>> l1_penalty({"kernel": jnp.array([1.0, -2.0])})
      Array(3., dtype=float32)
    """
    return _penalty(lambda w: lp_norm(w, 1), params, where, "l1_penalty")
