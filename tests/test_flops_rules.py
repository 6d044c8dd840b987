"""What single operations cost, and what loops, branches, calls and devices make of them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxd2l.analysis import FlopCount, Uncounted, count_flops, flops
from jaxd2l.ops.conv_primitive import bilinear_conv

X = jax.ShapeDtypeStruct((4, 6), "float32")
SQUARE = jax.ShapeDtypeStruct((4, 4), "float32")
ROWS = np.array([0, 2, 0])
PLAIN = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


def pair(f, *args):
    count = count_flops(f, *args)
    assert count.unknown == ()
    assert not count.at_most
    return count.multiply_adds, count.other


@pytest.mark.parametrize(
    ("f", "other"),
    [
        (lambda x: jnp.exp(x) + lax.erf(x), 3 * 24),
        (lambda x: jnp.where(x > 0, x, 0), 2 * 24),
        (lambda x: lax.clamp(0.0, x, 1.0), 24),
        (lambda x: x**3, 2 * 24),
        (lambda x: x**8, 3 * 24),
        (lambda x: x**-7, 5 * 24),  # x^2, x^3, x^6, x^7 and one division
        (lambda x: lax.integer_pow(x, 0), 0),
        (lambda x: x.T.reshape(3, 8)[::-1, 2:].astype(jnp.bfloat16), 0),
        (lambda x: jnp.pad(jnp.concatenate([x, x]), 1), 0),
        (lambda x: x.at[ROWS].get(**PLAIN), 0),
        (lambda x: lax.dynamic_update_slice(x, x[:1], (1, 0)), 0),
        (lambda x: x.at[ROWS].set(0.0, **PLAIN), 0),
        (lambda x: x.at[ROWS].add(x[:3], **PLAIN), 18),
        (lambda x: x.at[ROWS].max(x[:3], **PLAIN), 18),
        (lambda x: x.at[ROWS].apply(jnp.sin), 18 + 3 * 2),  # and 3 indices, made positive
        (lambda x: jnp.sum(x), 23),
        (lambda x: jnp.max(x, 1), 20),
        (lambda x: jnp.argmin(x, 0), 18),
        (lambda x: jnp.sum(x[:0], 0), 0),
        (lambda x: lax.reduce(x, 0.0, lambda a, b: a + 2 * b, (1,)), 2 * 20),
        (lambda x: lax.reduce((x, x), (0.0, 0.0), lambda a, b: (a[0] + b[0], b[1]), (0,)), 18),
        (lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + b * b, (2, 2), (2, 2), "VALID"), 36),
        (lambda x: jnp.cumsum(x, 1), 20),
        (lambda x: lax.cumlogsumexp(x, 0), 18),
        (lambda x: lax.cummax(x[:0], 0), 0),
        (lambda x: lax.sort(x, dimension=1), 24 * 3),
        (lambda x: lax.sort((x, x), dimension=0, num_keys=2), 24 * 2 * 2),
        (lambda x: lax.top_k(x, 3), 24 * 2),
        (lambda x: lax.top_k(x, 1), 24),
        (lambda x: jnp.fft.fft(lax.complex(x[:, :4], x[:, :4])), 5 * 16 * 2),
        (lambda x: jnp.fft.rfft(x[:, :4]), 5 * 16),
        (lambda x: jnp.fft.ifft2(lax.complex(x, x)), round(5 * 24 * math.log2(24))),
    ],
)  # fmt: skip
def test_other_operations(f, other):
    assert pair(f, X) == (0, other)


def test_the_gradient_of_max_pooling_compares_and_scatters():
    def f(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (2, 3), (2, 3), "VALID").sum()

    # 4 windows of 6: 5 comparisons and an addition each
    assert pair(jax.grad(f), X) == (0, 4 * 6)


def test_ragged_products():
    rows, weights = (
        jax.ShapeDtypeStruct((7, 4), "float32"),
        jax.ShapeDtypeStruct((3, 4, 5), "float32"),
    )
    sizes = jax.ShapeDtypeStruct((3,), "int32")
    assert pair(lax.ragged_dot, rows, weights, sizes) == (7 * 4 * 5, 0)
    gradient = jax.grad(lambda x, w, n: (lax.ragged_dot(x, w, n) ** 2).sum(), (0, 1))
    assert pair(gradient, rows, weights, sizes)[0] == 3 * 7 * 4 * 5


def lu_by_loops(a):
    a, products, other = np.array(a, float), 0, 0
    m, n = a.shape
    for k in range(min(m, n)):
        pivot = k
        for i in range(k + 1, m):
            other += 1
            pivot = i if abs(a[i, k]) > abs(a[pivot, k]) else pivot
        a[[k, pivot]] = a[[pivot, k]]
        for i in range(k + 1, m):
            a[i, k] /= a[k, k]
            other += 1
            for j in range(k + 1, n):
                a[i, j] -= a[i, k] * a[k, j]
                products += 1
    return a, (products, other)


def cholesky_by_loops(a):
    n, products, other = len(a), 0, 0
    low = np.zeros_like(a)
    for j in range(n):
        for i in range(j, n):
            value = a[i, j]
            for k in range(j):
                value -= low[i, k] * low[j, k]
                products += 1
            low[i, j] = np.sqrt(value) if i == j else value / low[j, j]
            other += 1
    return low, (products, other)


def solve_by_loops(low, b):
    b, products, other = b.copy(), 0, 0
    for i, column in np.ndindex(*b.shape):
        for k in range(i):
            b[i, column] -= low[i, k] * b[k, column]
            products += 1
        b[i, column] /= low[i, i]
        other += 1
    return b, (products, other)


def test_factorisations_cost_their_schoolbook_algorithm():
    a = np.random.default_rng(0).normal(size=(5, 5))
    for part in (a, a[:, :3], a[:3]):
        lu, count = lu_by_loops(part)
        np.testing.assert_allclose(lax.linalg.lu(jnp.asarray(part))[0], lu, rtol=1e-3, atol=1e-3)
        assert pair(lambda x: lax.linalg.lu(x)[0], part) == count
    spd = a @ a.T + 5 * np.eye(5)
    low, count = cholesky_by_loops(spd)
    np.testing.assert_allclose(np.linalg.cholesky(spd), low)
    masked = pair(jnp.tril, spd)[1]  # JAX clears the upper half
    assert pair(lambda x: lax.linalg.cholesky(x, symmetrize_input=False), spd) == (
        count[0],
        count[1] + masked,
    )
    y, count = solve_by_loops(low, a[:, :2])
    np.testing.assert_allclose(np.linalg.solve(low, a[:, :2]), y)

    def solve(low, b):
        return lax.linalg.triangular_solve(low, b, left_side=True, lower=True)

    assert pair(solve, low, a[:, :2]) == count

    def substitute(low, b):
        return lax.linalg.triangular_solve(low, b, lower=True, unit_diagonal=True)

    assert pair(substitute, low, a[:3]) == (3 * 5 * 4 // 2, 0)
    assert pair(jax.vmap(solve), np.stack([low] * 3), np.stack([a[:, :2]] * 3)) == (
        3 * count[0],
        3 * count[1],
    )


def test_a_linear_solve_runs_its_solver_only():
    products, other = lu_by_loops(np.random.default_rng(0).normal(size=(4, 4)))[1]
    got = pair(lambda a, b: jnp.linalg.solve(a, b), SQUARE, SQUARE)
    assert got[0] == products + 2 * 4 * 6  # two triangular solves of four columns
    assert other < got[1] < other + 4 * 4 + 40


# --- gradients and custom rules ---------------------------------------------------------------


def test_a_convolution_layer_trains_at_three_times_its_forward_cost():
    def loss(w, x):
        return (bilinear_conv(x, w, window_strides=(1, 1), padding=((1, 1), (1, 1))) ** 2).sum()

    w, x = jnp.zeros((3, 3, 2, 4)), jnp.zeros((5, 8, 8, 2))
    forward = pair(loss, w, x)[0]
    assert forward == 5 * 8 * 8 * 9 * 2 * 4
    assert pair(jax.grad(loss), w, x)[0] == 2 * forward  # of the first layer: no input's gradient
    assert pair(jax.grad(loss, (0, 1)), w, x)[0] == 3 * forward


def test_the_gradient_of_a_recurrent_network_costs_three_times_the_forward_pass():
    def loss(w, h):
        return (lax.scan(lambda h, _: (jnp.sin(h @ w), None), h, None, length=6)[0] ** 2).sum()

    assert pair(loss, SQUARE, SQUARE)[0] == 6 * 64
    assert pair(jax.grad(loss, (0, 1)), SQUARE, SQUARE)[0] == 3 * 6 * 64


def test_custom_rules_cost_what_they_do():
    @jax.custom_vjp
    def f(x, w):
        return x @ w

    f.defvjp(lambda x, w: (x @ w + 1, w), lambda w, g: (g @ w.T @ w.T @ w.T, w))
    assert pair(f, SQUARE, SQUARE) == (64, 0)
    pulled = count_flops(lambda x, w, g: jax.vjp(f, x, w)[1](g)[0], SQUARE, SQUARE, SQUARE)
    assert pulled.multiply_adds == 3 * 64
    both = count_flops(lambda x, w, g: [(y, b(g)) for y, b in [jax.vjp(f, x, w)]], *[SQUARE] * 3)
    assert (both.multiply_adds, both.other) == (4 * 64, 16)

    @jax.custom_jvp
    def g(x):
        return x @ x

    g.defjvp(lambda primals, tangents: (g(*primals), tangents[0] * 3))
    assert pair(g, SQUARE) == (64, 0)
    assert pair(lambda x, t: jax.jvp(g, (x,), (t,)), SQUARE, SQUARE) == (64, 16)


def test_recomputation_is_counted():
    def block(w, x):
        return jnp.sin(jnp.sin(x @ w) @ w)

    def cost(block):
        both = jax.value_and_grad(lambda w, x: block(w, x).sum())
        return count_flops(both, SQUARE, SQUARE).multiply_adds

    assert (cost(block), cost(jax.checkpoint(block))) == (5 * 64, 7 * 64)


def test_what_no_output_needs_is_left_out():
    def f(x):
        _ = jnp.linalg.svd(x @ x)
        return lax.scan(lambda c, _: (c + 1, c @ c), x, None, length=3)[0]

    assert pair(f, SQUARE) == (0, 3 * 16)


def twice(f):
    f = jax.custom_jvp(f)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return lambda x: jax.jit(f)(f(x))


@pytest.mark.parametrize(
    ("wrap", "calls"),
    [
        (jax.jit, 1),
        (jax.checkpoint, 1),
        (twice, 2),
        (lambda f: lax.composite(f, "test.product"), 1),
        (lambda f: lambda x: jax.custom_derivatives.linear_call(jnp.matmul, jnp.matmul, x, x), 1),
    ],
)
def test_calls_cost_what_they_call(wrap, calls):
    assert pair(wrap(lambda x: x @ x), SQUARE) == (64 * calls, 0)


def test_vmap_multiplies():
    batch = jax.ShapeDtypeStruct((5, 4, 4), "float32")
    assert pair(jax.vmap(lambda x: jnp.tanh(x @ x)), batch) == (5 * 64, 5 * 16)


def test_searching_sorted_values_is_counted_in_every_version():
    table, values = jax.ShapeDtypeStruct((16,), "float32"), jax.ShapeDtypeStruct((9,), "float32")
    assert pair(jnp.searchsorted, table, values)[1] >= 9 * 4


# --- loops and branches -----------------------------------------------------------------------


def powers(times):
    def body(state):
        i, x = state
        return i + 1, x @ x

    return lambda x: lax.while_loop(lambda state: state[0] < times, body, (0, x))[1]


@pytest.mark.parametrize("times", [0, 1, 10, 100_000])
def test_a_loop_that_the_program_bounds_is_counted(times):
    # each round tests and counts, and the last test fails
    assert pair(powers(times), SQUARE) == (64 * times, 2 * times + 1)


def test_a_loop_that_searches_is_counted_by_running_the_search_alone():
    def f(x):
        def body(state):
            root, x = state
            return 0.5 * (root + 2.0 / root), x @ x

        return lax.while_loop(lambda s: abs(s[0] ** 2 - 2) > 1e-3, body, (4.0, x))

    root, rounds = 4.0, 0
    while abs(root**2 - 2) > 1e-3:
        root, rounds = 0.5 * (root + 2 / root), rounds + 1
    assert pair(f, SQUARE)[0] == 64 * rounds > 0


def test_a_loop_that_the_arguments_bound_is_unknown_never_counted_once():
    def f(x, n):
        return lax.fori_loop(0, n, lambda i, x: x @ x, x)

    count = count_flops(f, SQUARE, 3)
    each = FlopCount(64, 2)  # the product, the counter and its test
    assert count == FlopCount(0, 1, (Uncounted("while", 1, each),))
    assert count.flops is None
    nested = count_flops(
        lambda x, n: lax.scan(lambda x, _: (f(x, n), None), x, None, length=7)[0], SQUARE, 3
    )
    assert nested == FlopCount(0, 7, (Uncounted("while", 7, each),))
    twice = count_flops(lambda x, n: lax.fori_loop(0, n, lambda i, x: f(x, i), x), SQUARE, 3)
    (loop,) = twice.unknown
    assert loop.each.unknown == (Uncounted("while", 1, each),)


def test_a_counter_may_need_other_state():
    def f(x):
        def body(state):
            i, step, x = state
            return i + step, step * 2, x @ x

        return lax.while_loop(lambda state: state[0] < 100, body, (0, 1, x))

    assert pair(f, SQUARE)[0] == 64 * 7  # 0, 1, 3, 7, 15, 31, 63, 127


def test_a_loop_that_prints_is_unknown_and_prints_nothing(capfd):
    def f(x):
        def body(state):
            jax.debug.print("round {}", state[0])
            return state[0] + 1, state[1] @ state[1]

        return lax.while_loop(lambda state: state[0] < 3, body, (0, x))[1]

    assert count_flops(f, SQUARE).unknown == (Uncounted("while", 1, FlopCount(64, 2)),)
    jax.effects_barrier()
    assert capfd.readouterr() == ("", "")


def test_a_loop_without_end_is_unknown():
    def f(x):
        return lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] * 0, s[1] @ s[1]), (0, x))[1]

    assert count_flops(f, SQUARE).unknown == (Uncounted("while", 1, FlopCount(64, 2)),)


def test_a_loop_over_a_mutable_counter_is_unknown():
    def f(x):
        counter = jax.new_ref(jnp.int32(0))

        def body(x):
            counter[...] += 1
            return x @ x

        return lax.while_loop(lambda x: counter[...] < 3, body, x)

    (loop,) = count_flops(f, SQUARE).unknown
    assert (loop.what, loop.times, loop.each.multiply_adds) == ("while", 1, 64)


def test_a_primitive_without_a_rule_is_named():
    def f(x):
        x = lax.fori_loop(0, 3, lambda _, x: jnp.linalg.svd(x)[0], x)
        return jax.pure_callback(lambda x: x, x, x @ x)

    count = count_flops(f, SQUARE)
    assert {u.what: u.times for u in count.unknown} == {"svd": 3, "pure_callback": 1}
    assert (count.multiply_adds, count.flops) == (64, None)


def test_branches():
    def f(index, x):
        return lax.switch(index, [lambda x: x, lambda x: x @ x, lambda x: x @ x @ x], x)

    assert pair(lambda x: f(1, x), SQUARE) == (64, 1)  # the index is clamped
    assert pair(lambda x: f(9, x), SQUARE)[0] == 128
    worst = count_flops(f, 1, SQUARE)
    assert (worst.multiply_adds, worst.at_most) == (128, True)
    same = count_flops(
        lambda p, x: lax.cond(p, lambda x: x @ x, lambda x: x.T @ x, x), True, SQUARE
    )
    assert same == FlopCount(64)
    mapped = count_flops(jax.vmap(f, (0, None)), jnp.arange(3), SQUARE)
    assert mapped.multiply_adds >= 3 * 64  # all branches run, and one is selected
    assert not mapped.at_most


def test_what_is_unknown_in_a_branch_is_told():
    def f(p, x):
        return lax.cond(p, lambda x: jnp.linalg.svd(x)[0], lambda x: x @ x, x)

    assert count_flops(f, True, SQUARE) == FlopCount(64, 0, (Uncounted("svd", 1),), at_most=True)

    def either(p, x):
        return lax.cond(p, lambda x: f(True, x), lambda x: f(True, f(True, x)), x)

    worst = count_flops(either, True, SQUARE)
    assert worst.unknown == (Uncounted("svd", 2),)  # one or two, not three


def test_too_many_differing_rounds_count_as_the_costliest():
    def f(x):
        def body(i, x):
            return lax.cond(i == 0, lambda x: x @ x, lambda x: x, x)

        return lax.fori_loop(0, 1_000_000, body, x)

    count = count_flops(f, SQUARE)
    assert count.at_most
    assert count.multiply_adds == 64 * 1_000_000


def test_patience_is_shared_by_all_loops(monkeypatch):
    def f(x):
        for _ in range(2):
            x = lax.fori_loop(0, 4, lambda i, x: lax.cond(i == 0, jnp.matmul, jnp.add, x, x), x)
        return x

    assert pair(f, SQUARE)[0] == 2 * 64
    monkeypatch.setattr(flops, "_STEPPED_EQUATIONS", 20)
    count = count_flops(f, SQUARE)
    assert (count.multiply_adds, count.at_most) == (64 + 4 * 64, True)


# --- devices ----------------------------------------------------------------------------------


def test_a_mapped_function_is_counted_on_all_devices():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    split, all_of_it = jax.P("d"), jax.P()

    def f(x, w):
        return lax.psum((x @ w).sum(), "d")

    sharded = jax.shard_map(f, mesh=mesh, in_specs=(split, all_of_it), out_specs=all_of_it)
    rows, w = jnp.zeros((8, 4)), jnp.zeros((4, 5))
    # each of four shards sums its 2*5 products, and hands in one number
    assert pair(sharded, rows, w) == (8 * 4 * 5, 4 * 9 + 4)
    assert pair(jax.pmap(lambda x: x @ x), jnp.zeros((4, 3, 3)))[0] == 4 * 27


def test_loops_on_devices():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def on_devices(f):
        split = jax.P("d")
        return jax.shard_map(f, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)

    def averaged(x):
        def body(state):
            return state[0] + 1, lax.pmean(state[1] @ state[1], "d")

        return lax.while_loop(lambda state: state[0] < 5, body, (0, x))[1]

    # five rounds: the counter, 16 sums over devices and as many divisions, and the test
    assert pair(on_devices(averaged), jnp.zeros((16, 4))) == (4 * 5 * 64, 4 * (5 * 34 + 1))

    def loop_of(rounds):
        def f(x):
            return lax.fori_loop(0, rounds(), lambda _, x: x @ x, x)

        (loop,) = count_flops(on_devices(f), jnp.zeros((16, 4))).unknown
        return loop.times, loop.each.multiply_adds

    assert loop_of(lambda: lax.axis_index("d")) == (4, 64)
    neighbours = [(0, 1), (1, 0)]  # the other devices get zero
    assert loop_of(lambda: lax.ppermute(jnp.int32(3), "d", neighbours)) == (4, 64)
