"""Rules of primitives that the other tests do not meet, one by one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField

PIXEL = ReceptiveField()

UNARY = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bessel_i0e",
    "bessel_i1e",
    "cbrt",
    "ceil",
    "cosh",
    "digamma",
    "erf",
    "exp2",
    "expm1",
    "is_finite",
    "lgamma",
    "sinh",
    "tan",
]
BINARY = ["atan2", "igamma", "igammac", "igamma_grad_a", "nextafter", "polygamma", "zeta"]
INTEGER = ["bitwise_not", "clz", "population_count"]
SHIFTS = ["shift_left", "shift_right_arithmetic", "shift_right_logical", "bitwise_xor"]


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name: str) -> None:
    assert receptive_field(getattr(lax, name), (1, 6, 2)) == (PIXEL,)


@pytest.mark.parametrize("name", INTEGER)
def test_functions_of_one_integer(name: str) -> None:
    assert receptive_field(getattr(lax, name), (1, 6, 2), dtype=jnp.int32) == (PIXEL,)


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, float) for n in BINARY] + [(n, int) for n in SHIFTS]
)
def test_functions_of_two_numbers_see_both(name: str, dtype: Any) -> None:
    f = getattr(lax, name)
    dtype = jnp.float32 if dtype is float else jnp.int32
    for g in (lambda x: f(x, x[:, ::-1]), lambda x: f(x[:, ::-1], x)):
        (field,) = receptive_field(g, (1, 6, 2), dtype=dtype)
        assert [field.interval(u) for u in range(6)] == [
            (min(u, 5 - u), max(u, 5 - u)) for u in range(6)
        ]


def test_functions_of_three_numbers_see_all() -> None:
    (field,) = receptive_field(lambda x: lax.betainc(x[:, :4], x[:, 1:5], x[:, 2:]), (1, 6, 2))
    assert [field.interval(u) for u in range(4)] == [(u, u + 2) for u in range(4)]


def batched(x: jax.Array) -> jax.Array:
    """Symmetric matrices, so that every decomposition exists."""
    return x + x.swapaxes(-1, -2)


DECOMPOSITIONS: dict[str, Callable[[jax.Array], Any]] = {
    "cholesky": lambda x: lax.linalg.cholesky(batched(x)),
    "eigh": lambda x: lax.linalg.eigh(batched(x)),
    "eig": lambda x: lax.linalg.eig(x),
    "svd": lambda x: lax.linalg.svd(x[..., :3]),
    "qr": lambda x: lax.linalg.qr(x[..., :3]),
    "lu": lambda x: lax.linalg.lu(x),
    "pivots": lambda x: lax.linalg.lu_pivots_to_permutation(lax.linalg.lu(x)[1], 4),
    "schur": lambda x: lax.linalg.schur(x[0]),
    "hessenberg": lambda x: lax.linalg.hessenberg(x),
    "householder": lambda x: lax.linalg.householder_product(x, x[:, 0]),
}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_decompositions_mix_each_matrix_and_no_two(name: str) -> None:
    """Of a batch (5, 4, 4) each matrix stays by itself, and within it all depends on all."""
    f = DECOMPOSITIONS[name]
    for field in fields(receptive_field(f, (5, 4, 4), axes=(0,))):
        assert field in (PIXEL, ReceptiveField(((0, 0),), 0))  # the second: of the first matrix
    for field in fields(receptive_field(f, (5, 4, 4), axes=(1,))):
        assert field == ReceptiveField.whole(4)


def fields(found: Any) -> list[ReceptiveField]:
    return jax.tree.leaves(found, is_leaf=lambda value: isinstance(value, ReceptiveField))


def test_tridiagonal_systems_keep_their_right_hand_sides_apart() -> None:
    off, diagonal = jnp.ones(5).at[0].set(0), jnp.full(5, 3.0)

    def f(x: jax.Array) -> jax.Array:
        return lax.linalg.tridiagonal_solve(off, diagonal, off[::-1], x)

    rows, columns = receptive_field(f, (5, 3), axes=(0, 1))
    assert (rows, columns) == (ReceptiveField.whole(5), PIXEL)


MEASURED: dict[str, Callable[[jax.Array], jax.Array]] = {
    "scatter-mul": lambda x: x.at[:, np.array([1, 4])].multiply(x[:, 5:7]),
    "scatter-min": lambda x: x.at[:, np.array([1, 4])].min(x[:, 5:7] - 9),
    "scatter-max": lambda x: x.at[:, np.array([1, 4])].max(x[:, 5:7] + 9),
    "unstack": lambda x: jnp.stack(jnp.unstack(x, axis=1)[2:6], 1),
    "reduce": lambda x: lax.reduce(x, x.dtype.type(1), lambda a, b: a * b + a, (2,))[..., None],
    "reduce of rows": lambda x: lax.reduce(
        x.reshape(1, 4, 2, 2), x.dtype.type(1), lambda a, b: a * b + a, (2,)
    ),
    "reduce_min": lambda x: x.reshape(1, 4, 2, 2).min(2),
    "reduce_prod": lambda x: x.reshape(1, 4, 2, 2).prod(2),
    "reduce_window": lambda x: lax.reduce_window(
        x, x.dtype.type(0), lambda a, b: jnp.sin(a) + b, (1, 3, 1), (1, 2, 1), "VALID"
    ),
    "cummax": lambda x: lax.cummax(x, 1),
    "cummin": lambda x: lax.cummin(x, 1, reverse=True),
    "tangents of max pooling": lambda x: jax.jvp(
        lambda y: lax.reduce_window(y, -np.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID"),
        (x,),
        (jnp.cos(x),),
    )[1],
    "approx_top_k": lambda x: lax.approx_max_k(x, 2, reduction_dimension=1)[0],
}


@pytest.mark.parametrize("name", MEASURED)
def test_support_is_what_is_measured(oracle: Any, name: str) -> None:
    hidden = (
        "scatter-min",
        "scatter-max",
        "cummin",
        "cummax",
    )  # the smaller of two hides the other
    exact = name not in hidden
    oracle.check(MEASURED[name], (1, 8, 2), exact=exact)


def test_both_operands_of_a_scatter_count() -> None:
    (field,) = receptive_field(MEASURED["scatter-min"], (1, 8, 2))
    wanted = [(u, u) for u in range(8)]
    wanted[1], wanted[4] = (1, 5), (4, 6)
    assert [field.interval(u) for u in range(8)] == wanted


def test_ragged_products_see_their_matrices_and_groups() -> None:
    matrices = jnp.ones((2, 3, 5))
    f = lambda x: lax.ragged_dot(x, matrices, jnp.array([2, 4]))  # noqa: E731
    assert receptive_field(f, (6, 3), axes=(0,)) == (PIXEL,)
    assert receptive_field(f, (6, 3), axes=(1,)) == (ReceptiveField.whole(3),)
    rows = jnp.ones((6, 3))
    sizes = jnp.array([2, 4])
    (field,) = receptive_field(lambda x: lax.ragged_dot(rows, x, sizes), (2, 3, 5), axes=(1,))
    assert field == ReceptiveField.whole(3)
    (field,) = receptive_field(
        lambda x: lax.ragged_dot(rows, matrices, x), (2,), axes=(0,), dtype=jnp.int32
    )
    assert field == ReceptiveField.whole(2)


def test_random_numbers_whose_keys_depend_on_the_input() -> None:
    def f(x: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.key)(x[0])
        keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.split(key)[0], 1))(keys)
        again = jax.random.wrap_key_data(jax.random.key_data(keys))
        return jax.vmap(lambda key: jax.random.normal(key, (3,)))(jax.random.clone(again))[None]

    assert receptive_field(f, (1, 6), axes=(1,), dtype=jnp.uint32) == (PIXEL,)


@pytest.mark.parametrize(
    "inside",
    [
        lambda x: lax.psum(x, "i"),
        lambda x: lax.pmax(x, "i"),
        lambda x: lax.pmin(x, "i"),
        lambda x: lax.ppermute(x, "i", [(0, 1), (1, 0)]),
        lambda x: lax.all_gather(x, "i").sum(0),
        lambda x: lax.all_gather(x, "i", axis=0, tiled=True)[:1],
    ],
)
def test_collectives_over_the_batch(inside: Callable[[jax.Array], jax.Array]) -> None:
    mesh = Mesh(np.array(jax.devices()[:2]), ("i",))
    spec = PartitionSpec("i")
    f = jax.shard_map(inside, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    assert receptive_field(f, (2, 6, 3)) == (PIXEL,)
