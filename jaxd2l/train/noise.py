"""Noise on the weights of a model in training."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.layers import Layer
from jaxd2l.layers.core import fold_path
from jaxd2l.ops.sampling import CHUNK, chunks_of, standard_chunks
from jaxd2l.optim.decay import is_kernel
from jaxd2l.train.step import Model, model_of

Array = jax.Array


def with_weight_noise(
    model: Layer | Model, scale: Any, *, where: Callable[[str], bool] = is_kernel
) -> Model:
    """The model whose weights are w + scale e, e ~ N(0, 1), in every training pass.

    One draw for the batch, from the key of the pass and the path of the weight; the gradient is
    that at the noisy weights, and the weights that are kept and tested are those without noise. To
    second order in scale the mean loss is L + scale^2 / 2 times the trace of its Hessian: flat
    minima are preferred. For a linear model with a squared loss that is a constant.

    Args:
      model: a network or a `Model`. The result has no carry from batch to batch.
      scale: the standard deviation, at least 0, possibly traced.
      where: path ("dense/kernel") -> whether that parameter is disturbed; by default kernels.

    Raises:
      ValueError: a number for scale that is negative; a training pass without a key.
      TypeError: neither a network nor a `Model`.

    Source: Jim, Giles and Horne 1996; Graves 2011; Goodfellow, Bengio and Courville 2016, 7.5.1.

    Example:
      >>> from jaxd2l import models
      >>> noisy = with_weight_noise(models.linear_regression(), 0.1)
      >>> params, state = noisy.init(jax.random.key(0), (2,))
      >>> x = jnp.ones((1, 2))
      >>> draws = [noisy.apply(params, state, x, key=jax.random.key(i), train=True)[0]
      ...          for i in range(2)]
      >>> bool(draws[0] == draws[1]), noisy.apply(params, state, x, train=False)[0].shape
      (False, (1, 1))
    """
    plain = model_of(model)
    if isinstance(scale, int | float) and not scale >= 0:
        raise ValueError(f"with_weight_noise: scale must be at least 0, got {scale}")

    def apply(
        params: Any, state: Any, inputs: Any, *, key: Array | None = None, train: bool, **call: Any
    ) -> Any:
        if train:
            if key is None:
                raise ValueError("with_weight_noise: weights are random in training: pass key=...")
            params = _disturbed(params, scale, fold_path(key, ("weight_noise",)), where)
        return plain.apply(params, state, inputs, key=key, train=train, **call)

    return Model(plain.init, apply)


def _disturbed(params: Any, scale: Any, key: Array, where: Callable[[str], bool]) -> Any:
    """The chosen leaves with noise, all drawn by one small program."""
    found, structure = jax.tree.flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
    leaves = [jnp.asarray(leaf) for _, leaf in found]
    chosen = [i for i, path in enumerate(paths) if where(path)]
    if not chosen:
        return params
    keys = jnp.stack([fold_path(key, (paths[i],)) for i in chosen])
    counts = [chunks_of(leaves[i].size) for i in chosen]
    samples = standard_chunks("normal", keys, counts, jnp.float32).reshape(-1)
    first = 0
    for i, count in zip(chosen, counts, strict=True):
        leaf = leaves[i]
        noise = samples[first : first + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
        leaves[i] = leaf + jnp.asarray(scale).astype(leaf.dtype) * noise
        first += count * CHUNK
    return jax.tree.unflatten(structure, leaves)
