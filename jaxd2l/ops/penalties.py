"""Penalties on the size of parameters, to be added to a loss, and what shrinks them exactly."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
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
    need `soft_threshold`.

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


def kept_l2_penalty(kernel: Array, inputs_kept: Array, outputs_kept: Array | None = None) -> Array:
    """`mean_i sum_jk a_ij b_ik w_jk^2 / 2`: decay of those weights only that dropout has left.

    A weight takes part in example i when the unit it comes from and the one it goes to are kept.
    The gradient is w times the share of examples in which it takes part, so that with rate p of
    dropped inputs the mean penalty is (1 - p) `l2_penalty`.

    Shapes:
      kernel: (in, out); inputs_kept: (n, in), boolean, `dropout_mask` of the input; outputs_kept:
      (n, out), boolean, that of the output, None where all are kept; result: ().

    Raises:
      TypeError: the kernel is not floating point, or a mask not boolean.
      ValueError: the shapes do not match.

    Source: the notes (catalogue RE5).

    Example:
      >>> kernel = jnp.array([[1.0], [2.0]])
      >>> kept_l2_penalty(kernel, jnp.array([[True, False], [True, True]]))  # (0.5 + 2.5) / 2
      Array(1.5, dtype=float32)
    """
    check_floating(kernel, "kept_l2_penalty: kernel")
    check_rank(kernel, 2, "kept_l2_penalty: kernel", "(in, out)")
    kernel = jnp.asarray(kernel)
    if outputs_kept is None:
        outputs_kept = jnp.ones((jnp.shape(inputs_kept)[0], kernel.shape[1]), bool)
    masks = []
    for mask, name, size in (
        (inputs_kept, "inputs_kept", kernel.shape[0]),
        (outputs_kept, "outputs_kept", kernel.shape[1]),
    ):
        if jnp.result_type(mask) != jnp.bool_:
            raise TypeError(
                f"kept_l2_penalty: {name} must be boolean, True = kept, got {jnp.result_type(mask)}"
            )
        if jnp.shape(mask) != (jnp.shape(inputs_kept)[0], size):
            raise ValueError(
                f"kept_l2_penalty: {name} must have shape (n, {size}) beside a kernel "
                f"{kernel.shape}, got {jnp.shape(mask)}"
            )
        masks.append(jnp.asarray(mask).astype(kernel.dtype))
    shares = masks[0].T @ masks[1] / masks[0].shape[0]  # (in, out): of the examples
    return jnp.sum(shares * jnp.square(kernel)) / 2


def soft_threshold(x: Array, threshold: Any) -> Array:
    """sign(x) max(|x| - threshold, 0): the minimiser of (w - x)^2 / 2 + threshold |w|.

    Shapes:
      x: any; threshold: () or of a shape that broadcasts to it, at least 0; result: as x.

    Raises:
      TypeError: x is not floating point.

    Source: Donoho 1995; Parikh and Boyd 2014, section 6.5.2.

    Example:
      >>> print(soft_threshold(jnp.array([-2.0, 0.5, 3.0]), 1.0))
      [-1.  0.  2.]
    """
    check_floating(x, "soft_threshold: x")
    x = jnp.asarray(x)
    t = jnp.asarray(threshold).astype(x.dtype)
    return x - jnp.clip(x, -t, t)  # exactly 0 where |x| <= t; NaN stays NaN
