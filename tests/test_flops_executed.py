"""`count_flops` against programs that are run by plain loops, one scalar product at a time."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxd2l.analysis import count_flops
from jaxd2l.ops.conv_primitive import bilinear_conv

pytestmark = pytest.mark.smoke  # other versions of jax have other primitives

SCALAR = {"add", "add_any", "div", "eq", "ge", "gt", "log", "lt", "max", "min", "mul", "neg", "rem"}
SCALAR |= {"exp", "logistic", "ne", "select_n", "sin", "sqrt", "sub", "tanh", "and", "not", "clamp"}
REDUCE = {"reduce_sum": operator.add, "reduce_max": max, "argmax": max}


MOVES = {"broadcast_in_dim", "convert_element_type", "copy", "dynamic_slice", "iota", "reshape"}
MOVES |= {"rev", "slice", "squeeze", "stop_gradient", "transpose"}


class Machine:
    """Runs a jaxpr and counts what it does."""

    def __init__(self):
        self.products = self.other = 0

    def run(self, jaxpr, *args):
        inner = getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip(inner.constvars, getattr(jaxpr, "consts", ()), strict=True))
        env.update(zip(inner.invars, args, strict=True))
        for eqn in inner.eqns:
            values = [a.val if hasattr(a, "val") else env[a] for a in eqn.invars]
            env.update(zip(eqn.outvars, self.step(eqn, values), strict=True))
        return [a.val if hasattr(a, "val") else env[a] for a in inner.outvars]

    def step(self, eqn, values):
        name, p = eqn.primitive.name, eqn.params
        if name == "dot_general":
            return [self.dot(*map(np.asarray, values), **p)]
        if name in ("conv_general_dilated", "conv"):
            return [self.conv(*map(np.asarray, values), eqn)]
        if name == "scan":
            return self.scan(p, values)
        if name == "while":
            c, b = p["cond_nconsts"], p["body_nconsts"]
            carry = values[c + b :]
            while self.run(p["cond_jaxpr"], *values[:c], *carry)[0]:
                carry = self.run(p["body_jaxpr"], *values[c : c + b], *carry)
            return carry
        if name == "cond":
            return self.run(p["branches"][int(values[0])], *values[1:])
        for key in ("jaxpr", "call_jaxpr"):
            if key in p:
                return self.run(p[key], *values)
        out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(p))
        out = out if eqn.primitive.multiple_results else [out]
        if name in SCALAR:
            self.other += sum(np.size(o) for o in out)
        elif name in REDUCE:
            lines = np.moveaxis(np.asarray(values[0]), p["axes"], range(len(p["axes"])))
            for line in lines.reshape(-1, np.size(out[0])).T:
                for _ in line[1:]:
                    self.other += 1
        elif name == "integer_pow":
            assert p["y"] in (1, 2)
            self.other += (p["y"] - 1) * np.size(out[0])
        elif name == "one_minus_square":  # jax 0.12 has it in the gradient of tanh
            self.other += 2 * np.size(out[0])
        else:
            assert name in MOVES, name
        return out

    def dot(self, a, b, dimension_numbers, **_):
        (ca, cb), (ba, bb) = (tuple(map(tuple, d)) for d in dimension_numbers)
        fa = [i for i in range(a.ndim) if i not in ca + ba]
        fb = [i for i in range(b.ndim) if i not in cb + bb]
        shape = [a.shape[i] for i in (*ba, *fa)] + [b.shape[i] for i in fb]
        y = np.zeros(shape, np.result_type(a, b))
        for place in np.ndindex(*shape):
            batch, left = place[: len(ba)], place[len(ba) : len(ba) + len(fa)]
            right = place[len(ba) + len(fa) :]
            for k in np.ndindex(*(a.shape[i] for i in ca)):
                at = dict(zip((*ba, *fa, *ca), (*batch, *left, *k), strict=True))
                bt = dict(zip((*bb, *fb, *cb), (*batch, *right, *k), strict=True))
                y[place] += (
                    a[tuple(at[i] for i in range(a.ndim))] * b[tuple(bt[i] for i in range(b.ndim))]
                )
                self.products += 1
        return y

    def conv(self, x, w, eqn):
        p = eqn.params
        if eqn.primitive.name == "conv":
            axes = range(1, x.ndim - 1)
            specs = ((0, x.ndim - 1, *axes), (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2)))
            specs = (*specs, specs[0])
        else:
            numbers = p["dimension_numbers"]
            specs = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
        x, w = x.transpose(specs[0]), w.transpose(specs[1])  # (n, c, *space), (o, c/g, *k)
        y = np.zeros([eqn.outvars[0].aval.shape[i] for i in specs[2]])
        groups, batches = p["feature_group_count"], p.get("batch_group_count", 1)
        holes = max(p["lhs_dilation"]) > 1
        n, o = y.shape[:2]
        for place in np.ndindex(*y.shape):
            row, out, *at = place
            row += out // (o // batches) * n  # each group of outputs has its own rows
            first = out // (o // groups) * w.shape[1]
            for tap in np.ndindex(*w.shape[2:]):
                where = [
                    i * s + t * r - low
                    for i, t, s, r, (low, _) in zip(
                        at, tap, p["window_strides"], p["rhs_dilation"], p["padding"], strict=True
                    )
                ]
                spread = list(zip(where, x.shape[2:], p["lhs_dilation"], strict=True))
                real = all(i % d == 0 and 0 <= i // d < size for i, size, d in spread)
                if holes and not real:
                    continue
                for c in range(w.shape[1]):
                    self.products += 1
                    if real:
                        unit = tuple(i // d for i, _, d in spread)
                        y[place] += x[(row, first + c, *unit)] * w[(out, c, *tap)]
        return y.transpose(np.argsort(specs[2])).astype(x.dtype)

    def scan(self, p, values):
        if "ft_in" in p:
            shared, carry, xs = map(list, p["ft_in"].update(values).unpack())
        else:
            n, end = p["num_consts"], p["num_consts"] + p["num_carry"]
            shared, carry, xs = values[:n], values[n:end], values[end:]
        rows = []
        order = range(p["length"])
        for i in reversed(order) if p["reverse"] else order:
            out = self.run(p["jaxpr"], *shared, *carry, *(x[i] for x in xs))
            carry = out[: len(carry)]
            rows.append(out[len(carry) :])
        rows = rows[::-1] if p["reverse"] else rows
        return [*carry, *(jnp.stack(column) for column in zip(*rows, strict=True))]


def agrees(f, *args):
    """Run f by loops; the result is right and the counts are ours."""
    machine = Machine()
    got = machine.run(jax.make_jaxpr(f)(*args), *jax.tree.leaves(args))
    for a, b in zip(got, jax.tree.leaves(f(*args)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
    count = count_flops(f, *args)
    assert (count.multiply_adds, count.other) == (machine.products, machine.other)
    assert count.flops == 2 * machine.products + machine.other
    return count


def normal(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


@given(st.data())
@settings(max_examples=15)
def test_products_of_any_two_arrays(data):
    sizes = st.lists(st.integers(0, 3), max_size=2)
    batch, left, right, summed = (tuple(data.draw(sizes)) for _ in range(4))
    b, l, s = len(batch), len(left), len(summed)
    numbers = (
        (tuple(range(b, b + s)), tuple(range(b + len(right), b + len(right) + s))),
        (tuple(range(b)), tuple(range(b))),
    )
    x, y = normal(*batch, *summed, *left), normal(*batch, *right, *summed)
    assert x.ndim == b + l + s
    agrees(lambda x, y: lax.dot_general(x, y, numbers), x, y)


@st.composite
def convolutions(draw, axes=(1, 2)):
    rank = draw(st.sampled_from(axes))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    k, stride, dilation, spread = each(1, 3), each(1, 2), each(1, 2), each(1, 2)
    pads = tuple(zip(each(-1, 2), each(0, 2), strict=True))
    space = tuple((ki - 1) * d + 2 for ki, d in zip(k, dilation, strict=True))
    groups = draw(st.sampled_from([1, 2]))
    options = {
        "window_strides": stride,
        "padding": pads,
        "lhs_dilation": spread,
        "rhs_dilation": dilation,
        "feature_group_count": groups,
    }
    return space, k, groups, options


@given(convolutions())
@settings(max_examples=20)
def test_convolutions_strided_dilated_padded_grouped_and_transposed(made):
    space, k, groups, options = made
    x, w = normal(2, *space, 2 * groups), normal(*k, 2, 2 * groups)
    agrees(lambda x, w: bilinear_conv(x, w, **options), x, w)


def test_convolution_with_channels_first_and_groups_of_the_batch():
    x, w = normal(4, 2, 5, 6), normal(6, 2, 3, 2)
    options = {"window_strides": (1, 2), "padding": ((1, 0), (0, 1)), "batch_group_count": 2}
    agrees(lambda x, w: lax.conv_general_dilated(x, w, **options), x, w)


def network(params, x):
    kernel, dense = params
    x = jax.nn.relu(bilinear_conv(x, kernel, window_strides=(2,), padding=((1, 0),)))
    return jnp.tanh(x.reshape(x.shape[0], -1) @ dense)


@pytest.mark.parametrize("around", [lambda f: f, jax.checkpoint])
def test_a_network_its_gradient_and_its_recomputed_gradient(around):
    def loss(params, x):
        return (around(network)(params, x) ** 2).sum()

    params, x = (normal(3, 2, 4), normal(8, 3)), normal(2, 5, 2)
    agrees(loss, params, x)
    agrees(jax.value_and_grad(loss), params, x)


def test_a_recurrent_network_and_its_gradient():
    def loss(w, xs):
        def step(h, x):
            h = jnp.tanh(x @ w[0] + h @ w[1])
            return h, h.sum()

        return lax.scan(step, jnp.zeros((2, 4)), xs)[1].max()

    w, xs = (normal(3, 4), normal(4, 4)), normal(5, 2, 3)
    assert agrees(loss, w, xs).multiply_adds == 5 * 2 * 4 * (3 + 4)
    agrees(jax.value_and_grad(loss), w, xs)


def test_attention():
    def attend(q, k, v):
        return jax.nn.softmax(q @ k.T / 2.0) @ v

    agrees(attend, normal(5, 4), normal(6, 4), normal(6, 3))


def test_loops_whose_iterations_differ():
    def triangle(x):
        def row(i, x):
            return lax.fori_loop(0, i, lambda _, x: jnp.sin(x @ x), x)

        return lax.fori_loop(0, 5, row, x)

    assert agrees(triangle, normal(2, 2)).multiply_adds == (0 + 1 + 2 + 3 + 4) * 8

    def sometimes(x):
        def body(state):
            i, x = state
            return i + 2, lax.cond(i % 3 == 0, lambda x: x @ x, lambda x: x + 1.0, x)

        return lax.while_loop(lambda state: state[0] < 9, body, (0, x))[1]

    assert agrees(sometimes, normal(2, 2)).multiply_adds == 2 * 8  # at 0 and 6 of 0, 2, ..., 8

    def downwards(x):
        def body(x, n):
            return lax.switch(n, [lambda x: x, lambda x: x @ x, lambda x: (x @ x) @ x], x), None

        return lax.scan(body, x, jnp.array([2, 0, 1, 2]), reverse=True)[0]

    assert agrees(downwards, normal(2, 2)).multiply_adds == 5 * 8


def test_the_last_row_comes_first_in_a_reversed_scan():
    def f(x):
        def body(state, n):
            first, x = state
            more = jnp.where(first, n, 0)
            return (False, lax.switch(more, [lambda x: x, lambda x: x @ x], x)), None

        return lax.scan(body, (True, x), jnp.array([0, 0, 1]), reverse=True)[0][1]

    assert agrees(f, normal(2, 2)).multiply_adds == 8
