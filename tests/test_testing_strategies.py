"""What the strategies promise: only valid values, all kinds of them, simplest first."""

import functools
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from jax import lax

import jaxd2l
from jaxd2l import layers, testing
from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import Window, feature_sizes
from jaxd2l.testing import input_sizes, networks, stacks, windows

either = windows() | windows(transposed=True)


def drawn(strategy, count):
    """The first values that hypothesis draws, always the same."""
    values = []

    @settings(max_examples=count)
    @given(strategy)
    def draw(value):
        values.append(value)

    draw()
    return values


def convolve(w, x):
    """What `w` does to x (1, n, 1), by lax."""
    k, (low, high) = w.effective_kernel, w.sides
    full = (k - 1 - low, k - 1 - high + w.output_padding)
    return lax.conv_general_dilated(
        x,
        jnp.zeros((w.kernel, 1, 1)),
        (1,) if w.transposed else (w.stride,),
        [full if w.transposed else w.sides],
        (w.stride,) if w.transposed else None,
        (w.dilation,),
        ("NWC", "WIO", "NWC"),
    )


# --- windows and stacks -----------------------------------------------------------------------


def test_windows_keep_their_bounds_and_reach_them():
    values = drawn(windows(4, 2, 1, 3), 300)
    assert {w.kernel for w in values} == {1, 2, 3, 4}
    assert {w.stride for w in values} == {1, 2}
    assert {w.sides for w in values} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert {w.dilation for w in values} == {1, 2, 3}
    assert {(w.transposed, w.output_padding) for w in values} == {(False, 0)}


def test_transposed_windows_have_every_legal_output_padding():
    values = drawn(windows(2, 3, 0, 2, transposed=True), 300)
    assert all(w.transposed for w in values)
    reached = {(w.stride, w.dilation, w.output_padding) for w in values}
    assert reached == {(s, d, e) for s in (1, 2, 3) for d in (1, 2) for e in range(max(s, d))}


def fits(size, stack):
    try:
        return all(n >= 1 for n in feature_sizes(size, stack))
    except ValueError:
        return False


@settings(max_examples=100)
@given(st.lists(either, max_size=4), st.data())
def test_input_sizes_start_at_the_smallest_that_fits(stack, data):
    size = data.draw(input_sizes(stack, extra=3))
    smallest = next(n for n in range(1, 1000) if fits(n, stack))
    assert smallest <= size <= smallest + 3
    assert fits(size, stack)


def test_input_sizes_reach_both_ends():
    assert set(drawn(input_sizes([Window(3, 2), Window(5)], extra=2), 20)) == {11, 12, 13}


@settings(max_examples=60)
@given(stacks(either))
def test_stacks_run_in_lax_and_have_the_sizes_of_geometry(drawn):
    stack, size = drawn
    assert 1 <= len(stack) <= 4
    x = jax.ShapeDtypeStruct((1, size, 1), jnp.float32)
    sizes = []
    for w in stack:
        x = jax.eval_shape(functools.partial(convolve, w), x)
        sizes.append(x.shape[1])
    assert tuple(sizes) == feature_sizes(size, stack)


def test_stacks_reach_their_bounds():
    values = drawn(stacks(windows(2, 1, 0, 1), max_windows=3, extra=2), 200)
    assert {len(stack) for stack, _ in values} == {1, 2, 3}
    above = {size - sum(w.kernel - 1 for w in stack) for stack, size in values}
    assert above == {1, 2, 3}


# --- networks ---------------------------------------------------------------------------------


@given(networks())
def test_networks_run_on_their_shape_and_see_a_part_of_the_input(drawn):
    net, shape = drawn
    init = functools.partial(jaxd2l.init, net, input_shape=shape)
    params, state = jax.eval_shape(init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    y, _ = jax.eval_shape(functools.partial(jaxd2l.apply, net), params, state, x)
    assert y.shape == (2, *jaxd2l.output_shape(net, shape))
    assert y.ndim == len(shape) + 1
    last = jaxd2l.summarize(net, shape).rows[-1]
    assert last.receptive_field is not None
    assert len(last.jump) == len(shape) - 1


def nodes(net):
    """A network, and everything inside it."""
    yield net
    inside = getattr(net, "layers", getattr(net, "branches", ()))
    for layer in inside or filter(None, [getattr(net, "layer", None)]):
        yield from nodes(layer)


def test_networks_have_all_that_they_promise():
    values = drawn(networks(), 300)
    assert {len(shape) - 1 for _, shape in values} == {1, 2, 3}
    assert {shape[-1] for _, shape in values} == {1, 2, 3, 4}
    assert all(
        max(shape[:-1]) <= {1: 16, 2: 8, 3: 4}[len(shape) - 1] and 1 <= len(net.layers) <= 4
        for net, shape in values
    )
    seen = [node for net, _ in values for node in nodes(net)]
    kinds = {type(node) for node in seen}
    assert kinds == {
        layers.Activation, layers.AvgPool, layers.BatchNorm, layers.Conv, layers.ConvTranspose,
        layers.Identity, layers.LayerNorm, layers.MaxPool, layers.Parallel, layers.Repeat,
        layers.Serial,
    }  # fmt: skip
    convolutions = [node for node in seen if isinstance(node, layers.Conv)]
    ups = [node for node in seen if isinstance(node, layers.ConvTranspose)]
    joins = [node for node in seen if isinstance(node, layers.Parallel)]
    for found in (convolutions, ups):
        assert {d for node in found for d in node.dilation} == {1, 2, 3}
        assert {s for node in found for s in node.stride} == {1, 2, 3}
        assert {1, 2, 3} <= {node.groups for node in found}
        assert any(low != high for node in found for low, high in node.padding)
    assert any(e for node in ups for e in node.output_padding)
    assert {node.combine for node in joins} == {"add", "concat", "multiply"}
    assert {len(node.branches) for node in joins} == {2, 3}
    assert {layers.Identity()} < {node.branches[0] for node in joins}
    assert {node.times for node in seen if isinstance(node, layers.Repeat)} == {1, 2, 3}


def test_smooth_networks_have_nothing_that_selects_or_cuts_off():
    values = drawn(networks(dimensions=[1, 2], max_layers=2, smooth=True), 150)
    assert {(len(shape) - 1, len(net.layers)) for net, shape in values} == {
        (1, 1), (1, 2), (2, 1), (2, 2),
    }  # fmt: skip
    seen = [node for net, _ in values for node in nodes(net)]
    assert {node.kind for node in seen if isinstance(node, layers.Activation)} == {"tanh", "gelu"}
    assert not any(isinstance(node, layers.MaxPool) for node in seen)


def linear(net):
    """The same windows and branches, with no activations or norms and with sums for products."""
    if isinstance(net, layers.Activation | layers.BatchNorm | layers.LayerNorm):
        return layers.Identity()
    if isinstance(net, layers.Serial):
        return layers.Serial([linear(layer) for layer in net.layers])
    if isinstance(net, layers.Repeat):
        return layers.Repeat(linear(net.layer), net.times, name=net.name)
    if isinstance(net, layers.Parallel):
        combine = "add" if net.combine == "multiply" else net.combine
        return layers.Parallel([linear(branch) for branch in net.branches], combine)
    return net


def support(net, shape):
    """A 1-D network as a function, and which pixels have a gradient for each of its units."""
    rs = np.random.RandomState(0)
    like = jax.eval_shape(functools.partial(jaxd2l.init, net, input_shape=shape), jax.random.key(0))
    params, state = jax.tree.map(lambda a: jnp.asarray(rs.uniform(0.2, 0.6, a.shape)), like)

    def f(x):
        return jaxd2l.apply(net, params, state, x)[0]

    rows = jax.jacrev(lambda x: f(x[None])[0] @ rs.uniform(0.2, 0.6, f(x[None]).shape[-1]))
    rows = jax.jit(rows, compiler_options={"xla_backend_optimization_level": 0})
    return f, np.asarray(rows(rs.uniform(-0.5, 0.5, shape))).any(-1)


@settings(max_examples=6)
@given(networks(dimensions=[1], smooth=True))
def test_smooth_networks_have_a_gradient_wherever_they_see(drawn):
    """Where sums of positive products have one, no more and no less; and all inside the field."""
    net, shape = drawn
    with jax.enable_x64(True):
        f, seen = support(net, shape)
        _, wanted = support(linear(net), shape)
        (field,) = receptive_field(f, (1, *shape), dtype=jnp.float64)
    np.testing.assert_array_equal(seen, wanted)
    for unit, row in enumerate(seen):
        lo, hi = field.interval(unit) or (0, -1)
        assert set(np.flatnonzero(row)) <= set(range(lo, hi + 1))


# --- all strategies ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_failures_shrink_to_the_simplest_value_that_fails(seed):
    first = functools.partial(find, random=random.Random(seed))
    assert first(windows(), lambda w: w.kernel > 2 and w.stride > 1) == Window(3, 2)
    up = Window(1, 2, transposed=True)
    doubles = first(stacks(either), lambda s: any(w.transposed and w.stride == 2 for w in s[0]))
    assert doubles == ([up], 1)
    assert first(stacks(), lambda stack: len(stack[0]) == 3) == ([Window(1)] * 3, 1)
    net, shape = first(networks(), lambda drawn: "Conv(" in repr(drawn[0]))
    assert net == layers.Serial([layers.Conv(net.layers[0].name, 1, (1,))])
    assert shape == (1, 1)


@pytest.mark.parametrize("strategy", [windows(), stacks(either), networks()], ids=str)
def test_draws_are_repeatable(strategy):
    assert drawn(strategy, 20) == drawn(strategy, 20)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: windows(max_kernel=0), ValueError, "windows: max_kernel must be at least 1"),
        (lambda: windows(max_stride=1.5), TypeError, "windows: max_stride must be an integer"),
        (lambda: windows(max_padding=-1), ValueError, "windows: max_padding must be at least 0"),
        (lambda: input_sizes([3]), TypeError, "input_sizes: expected .*Window, got 3 in it"),
        (lambda: input_sizes([], extra=-1), ValueError, "input_sizes: extra must be at least 0"),
        (lambda: stacks(max_windows=0), ValueError, "stacks: max_windows must be at least 1"),
        (lambda: networks([2, 4]), ValueError, r"dimensions must be some of 1, 2 and 3, got \[2"),
        (lambda: networks([]), ValueError, "dimensions must be some of"),
        (lambda: networks(max_layers=0), ValueError, "networks: max_layers must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(call, error, told):
    with pytest.raises(error, match=told):
        call()


def test_without_hypothesis_the_strategies_say_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "hypothesis"]:
        monkeypatch.setitem(sys.modules, name, None)
    for make in (windows, stacks, networks, lambda: input_sizes([])):
        with pytest.raises(ImportError, match="pip install hypothesis"):
            make()
    testing.assert_output_shape(jnp.sin, (2, 3), (2, 3))
    testing.assert_receptive_field(jnp.sin, (2, 3, 1), size=1)
    testing.assert_gradients_match(jnp.sin, jnp.sin, 1.0)
