"""Claims about compression: that low rank rarely helps small kernels (C135), and that pruning small
weights hardly hurts below some share (C136).

    python experiments/claims_compression.py

A network of two 3x3 convolutions with 16 and 32 channels and a hidden dense layer of 64 units, on
the 8x8 digits, five seeds. Low rank: the second kernel as a matrix of C_out rows and 9 C_in
columns, truncated after training. Pruning: the smallest weights of every kernel set to 0, with and
without three more epochs in which they stay 0.
Found: C135 open: 90 % of the energy takes 25 of 32 singular values; at most 1 % of test error is
added from rank 24 [18, 30] on, which saves 8 [-15, 32] % of the weights; with --seeds 15 it
depends: from rank 21 [19, 23] on, which saves 20 [11, 28] %. C136 depends: with the
epochs after pruning half of the weights can go (0.3 % added), without them 2.8 % is added; at 97 %
nothing is left of the network.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from report import print_claim
from trials import trials, wrong

from jaxd2l import data, layers, train
from jaxd2l.layers import Activation, Conv, Dense, Flatten, Layer, MaxPool, Serial
from jaxd2l.ops import losses
from jaxd2l.ops.initializers import HeNormal

RATE = 0.2
CHANNELS = (16, 32)
SHARES = (0.3, 0.5, 0.7, 0.9, 0.97)  # of the weights set to 0
RANKS = (1, 4, 8, 16, 20, 24, 32)
TUNE = 3  # epochs after pruning
LOSS = 1.0  # percent of accuracy that "hardly hurts" allows


def network() -> Layer:
    he, relu = HeNormal(), Activation("relu")
    convs: list[Layer] = []
    for number, features in enumerate(CHANNELS, 1):
        convs += [Conv(f"conv{number}", features, 3, padding=1, kernel_init=he), relu, MaxPool(2)]
    dense = Dense("dense", 64, kernel_init=he)
    return Serial([*convs, Flatten(), dense, relu, Dense("output", 10)])


def as_matrix(kernel: jax.Array) -> jax.Array:
    """(3, 3, C_in, C_out) -> (C_out, 9 C_in)."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def truncated(kernel: jax.Array, rank: jax.Array | int) -> jax.Array:
    """The nearest kernel whose matrix has no more than this rank."""
    u, s, v = jnp.linalg.svd(as_matrix(kernel), full_matrices=False)
    kept = jnp.where(jnp.arange(s.size) < rank, s, 0.0)
    return ((u * kept[None]) @ v).T.reshape(kernel.shape)


def energy(kernel: jax.Array) -> jax.Array:
    """Share of the squared singular values in the first 1, 2, ... of them."""
    s = jnp.linalg.svd(as_matrix(kernel), compute_uv=False)
    return jnp.cumsum(s**2) / jnp.sum(s**2)


def kept(params: Any, share: jax.Array | float) -> Any:
    """Which weights stay when this share of every kernel, the smallest, goes; biases do."""

    def leaf(a: jax.Array) -> jax.Array:
        if a.ndim == 1:
            return jnp.ones(a.shape, bool)
        return jnp.abs(a) >= jnp.quantile(jnp.abs(a), share)

    return jax.tree.map(leaf, params)


def pruned(params: Any, mask: Any) -> Any:
    return jax.tree.map(lambda a, m: jnp.where(m, a, 0.0), params, mask)


def tuned(net: Layer, params: Any, mask: Any, part: data.Dataset) -> Any:
    """The parameters after more epochs in which the weights that are gone stay 0."""

    def masked_sgd(learning_rate: float) -> optax.GradientTransformation:
        return optax.chain(optax.sgd(learning_rate), optax.stateless(lambda g, _: pruned(g, mask)))

    def apply(*arrays: Any, **call: Any) -> Any:
        return layers.apply(net, *arrays, **call)

    model = train.Model(lambda key, shape: (pruned(params, mask), {}), apply)
    loss = losses.softmax_cross_entropy
    run = train.make_run(model, loss, masked_sgd, epochs=TUNE, batch_size=64)
    return run(jax.random.key(1), part, {"learning_rate": RATE / 2})[0]


def low_rank(net: Layer, params: Any, test: data.Dataset) -> None:
    """C135."""

    def with_rank(params: Any, rank: Any) -> Any:
        kernel = truncated(params["conv2"]["kernel"], rank)
        return params | {"conv2": params["conv2"] | {"kernel": kernel}}

    def errors(params: Any) -> jax.Array:
        return jax.lax.map(lambda r: wrong(net, with_rank(params, r), {}, test), jnp.array(RANKS))

    kernels = params["conv2"]["kernel"]
    shares = np.asarray(jax.vmap(energy)(kernels))  # (seeds, C_out)
    error = 100 * np.asarray(jax.jit(lambda p: jax.lax.map(errors, p))(params))  # (seeds, ranks)
    rows, columns = as_matrix(kernels[0]).shape
    full = rows * columns
    figures = {}
    for number, rank in enumerate(RANKS):
        size = rank * (rows + columns)
        name = f"rank {rank} of {rows}, {100 * size / full:.0f} % of the weights"
        figures[f"{name}: energy kept, %"] = 100 * shares[:, rank - 1]
        figures[f"{name}: test error, %"] = error[:, number]
    added = error - error[:, -1:]
    # for each seed the least rank from which on no more than LOSS is lost
    fine = np.logical_and.accumulate((added <= LOSS)[:, ::-1], axis=1)[:, ::-1]
    least = np.asarray(RANKS)[fine.argmax(1)]
    cost = least * (rows + columns) / full
    figures["least rank that adds 1 % of errors or less"] = least
    gains = {
        "weights that this rank takes beyond the full kernel, %": 100 * (cost - 1),
        "rank that keeps 90 % of the energy - half of all": (shares < 0.9).sum(1) + 1 - rows / 2,
    }
    print_claim("C135", "Low rank rarely helps kernels as small as 3x3.", figures, gains)


def pruning(net: Layer, params: Any, parts: data.Parts) -> None:
    """C136."""

    def errors(params: Any) -> jax.Array:
        def at(share: jax.Array) -> jax.Array:
            mask = kept(params, share)
            after = tuned(net, params, mask, parts.train)
            return jnp.stack([wrong(net, p, {}, parts.test) for p in (pruned(params, mask), after)])

        return jax.lax.map(at, jnp.array((0.0, *SHARES)))

    error = 100 * np.asarray(jax.jit(lambda p: jax.lax.map(errors, p))(params))  # (S, shares, 2)
    added = error - error[:, :1]
    figures, gains = {}, {}
    for number, share in enumerate((0.0, *SHARES)):
        for how, name in enumerate(("pruned", "tuned as well")):
            figures[f"{100 * share:.0f} % of the weights {name}: test error, %"] = error[
                :, number, how
            ]
    for how, name in enumerate(("pruned", "tuned as well")):
        little, half, *_, most = added[:, 1:, how].T
        gains[f"30 % of the weights {name}: 1 % - test error added, %"] = LOSS - little
        gains[f"50 % of the weights {name}: 1 % - test error added, %"] = LOSS - half
        gains[f"97 % of the weights {name}: test error added - 1 %, %"] = most - LOSS
    print_claim("C136", "Pruning small weights hardly hurts below a threshold.", figures, gains)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(arguments)
    parts = data.train_test_split(data.load_digits(8), 0.2)
    net = network()
    found = trials(net, parts, [RATE], options.seeds, epochs=options.epochs)
    params = jax.tree.map(lambda a: jnp.asarray(a[0]), found.params)  # (seeds, ...)
    low_rank(net, params, parts.test)
    print()
    pruning(net, params, parts)


if __name__ == "__main__":
    main()
