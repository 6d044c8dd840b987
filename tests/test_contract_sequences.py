"""The contract table for layers of sequences and for networks that take tokens.

The layers are those of `layers.{attention,recurrent,sequence}`, `Embedding` and `Padded`; the
networks are those whose first layer reads tokens. `test_contract.py` and `test_contract_models.py`
have all others.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models, records
from jaxd2l.analysis import count_flops

V = 7  # tokens
T = 5  # steps
N = 4  # examples
TOKENS = (T,)
VECTORS = (T, 6)
FAST = {"xla_backend_optimization_level": 0}


# Name, network, shape of one input.
CASES = [
    (
        "recurrent",
        layers.Serial(
            [
                layers.RNN("rnn", 3, activation="relu"),
                layers.GRU("gru", 4, reset_after=True),
                layers.GRU("gru_back", 3, reverse=True),
                layers.RNN("rnn_back", 2, reverse=True),
            ]
        ),
        VECTORS,
    ),
    ("attention", layers.SelfAttention("attention", 2, dropout=0.3, bias=False), VECTORS),
    ("learned_positions", layers.LearnedPositions("positions", 8), VECTORS),
    ("sinusoidal_positions", layers.SinusoidalPositions("positions", T), VECTORS),
    ("first_step", layers.FirstStep(), VECTORS),
    ("real_steps", layers.RealSteps(2), VECTORS),
    ("embedding", layers.Embedding("embedding", V, 3), TOKENS),
    (
        "padded",
        layers.Padded(
            layers.Serial(
                [
                    layers.Embedding("embedding", V, 6),
                    layers.Parallel(
                        [
                            layers.Serial([layers.LSTM("lstm", 3), layers.LastStep()]),
                            layers.Serial([layers.SelfAttention("a", 2), layers.GlobalAvgPool()]),
                            layers.GlobalMaxPool(),
                            layers.Serial([layers.KMaxPool(2), layers.Flatten()]),
                        ],
                        "concat",
                    ),
                ]
            ),
            padding=0,
        ),
        TOKENS,
    ),
    ("rnn_lm", models.rnn_lm(V, 3), TOKENS),
    ("gru_lm", models.gru_lm(V, 3, depth=2, embedding=4, dropout=0.4), TOKENS),
    ("lstm_lm", models.lstm_lm(V, 3, dropout=0.4), TOKENS),
    ("gpt", models.gpt(V, 6, 2, 1, length=9), TOKENS),
    (
        "gpt_stacked",
        models.gpt(V, 4, 2, 8, positions="rotary", norm_first=False, dropout=0.4),
        TOKENS,
    ),
]
IDS = [name for name, _, _ in CASES]


def batch(shape, dtype=np.float32):
    random = np.random.RandomState(2)
    if shape == TOKENS:
        return random.randint(0, V, (N, *shape)).astype(np.int32)
    return random.normal(size=(N, *shape)).astype(dtype)


@functools.lru_cache
def made(index):
    """One case: the network, its parameters and state, a batch."""
    _, net, shape = CASES[index]
    random = np.random.RandomState(1)
    params, state = jax.tree.map(
        lambda a: jnp.asarray(0.5 * random.normal(size=a.shape), a.dtype),
        layers.declared(net, shape),  # nothing to compile, as init has
    )
    return net, params, state, jnp.asarray(batch(shape))


traced = []


def everything(net, params, state, x):
    """All that is compared, as one program: one compilation for each case."""
    traced.append(net)
    floating = jnp.issubdtype(x.dtype, jnp.floating)

    def loss(params, x):
        key = jax.random.key(3)
        y, new = jaxd2l.apply(net, params, state, x, train=True, key=key)
        return (y**2).sum(), new

    grads, new = jax.grad(loss, argnums=(0, 1) if floating else (0,), has_aux=True)(params, x)
    return {
        "batch": jaxd2l.apply(net, params, state, x)[0],
        "vmap": jax.vmap(lambda x: jaxd2l.apply(net, params, state, x[None])[0][0])(x),
        "gradients": grads,
        "new": new,
    }


compiled = jax.jit(everything, static_argnums=0, compiler_options=FAST)


@functools.lru_cache
def results(index):
    return compiled(*made(index))


LONG = ("padded", "gpt_stacked")  # what XLA takes longest to compile


@pytest.mark.parametrize(
    "index",
    [pytest.param(i, marks=[pytest.mark.slow] * (n in LONG)) for i, n in enumerate(IDS)],
    ids=IDS,
)
class TestContract:
    def test_declared_shape_is_the_real_one(self, index):
        net, params, state, x = made(index)
        y, _ = jax.eval_shape(functools.partial(jaxd2l.apply, net), params, state, x)
        assert y.shape == (N, *jaxd2l.output_shape(net, x.shape[1:]))

    def test_jit_equals_eager_and_eval_leaves_state_alone(self, index):
        net, params, state, x = made(index)
        y, same = jaxd2l.apply(net, params, state, x)
        assert same is state
        np.testing.assert_allclose(y, results(index)["batch"], rtol=2e-5, atol=2e-5)

    def test_vmap_over_examples_equals_the_batch(self, index):
        result = results(index)
        np.testing.assert_allclose(result["vmap"], result["batch"], rtol=2e-5, atol=2e-5)

    def test_training_keeps_structure_and_gives_finite_gradients(self, index):
        _, params, state, x = made(index)
        new, (grads, *of_x) = results(index)["new"], results(index)["gradients"]
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
        assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
        assert [grad.shape for grad in of_x] == [x.shape] * len(of_x)
        for path, grad in jax.tree_util.tree_leaves_with_path((grads, of_x)):
            assert np.isfinite(grad).all(), path
            assert np.abs(grad).max() > 1e-5 or "key_bias" in jax.tree_util.keystr(path), path

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64], ids=["bf16", "f64"])
    def test_dtype_is_kept(self, index, dtype, strict_promotion):
        net, _, _, x = made(index)
        with jax.enable_x64(dtype == jnp.float64):
            shapes = jax.eval_shape(
                lambda key: jaxd2l.init(net, key, x.shape[1:], dtype=dtype), jax.random.key(0)
            )
            assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} <= {jnp.dtype(dtype)}
            kind = x.dtype if jnp.issubdtype(x.dtype, jnp.integer) else dtype
            call = functools.partial(jaxd2l.apply, net, train=True, key=jax.random.key(0))
            y, _ = jax.eval_shape(call, *shapes, jax.ShapeDtypeStruct(x.shape, kind))
            assert y.dtype == dtype

    def test_an_equal_record_is_equal_hashes_equal_and_is_not_traced_again(self, index):
        net, params, state, x = made(index)
        first = results(index)["batch"]
        twin = records.load(records.dump(net))
        assert twin == net
        assert hash(twin) == hash(net)
        before = len(traced)
        again = compiled(twin, params, state, x)["batch"]
        assert len(traced) == before
        np.testing.assert_array_equal(again, first)

    def test_repr_is_python_that_names_the_type(self, index):
        net = made(index)[0]
        assert repr(net).startswith(type(net).__name__ + "(")

    def test_summary_counts_what_init_makes_and_what_apply_multiplies(self, index):
        net, params, state, x = made(index)
        table = jaxd2l.summarize(net, x.shape[1:])
        made_by_init = jax.eval_shape(
            lambda key: jaxd2l.init(net, key, x.shape[1:]), jax.random.key(0)
        )
        assert jax.tree.map(jnp.shape, made_by_init) == jax.tree.map(jnp.shape, (params, state))
        assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert table.statistics == sum(leaf.size for leaf in jax.tree.leaves(state)) == 0
        assert table.rows[-1].output_shape == jaxd2l.output_shape(net, x.shape[1:])
        run = functools.partial(jaxd2l.apply, net)
        traced = count_flops(lambda *a: run(*a)[0], params, state, x[:1]).multiply_adds
        assert table.macs == traced - _products_of_data(net, x.shape[1:])


def _products_of_data(net, shape):
    """Scores and weighted means: T^2 d each. They are products without parameters."""
    found = [s for s in layers.walk(net, shape) if isinstance(s.layer, layers.SelfAttention)]
    return sum(2 * s.input_shape[0] ** 2 * s.input_shape[1] for s in found)


def reads_tokens(name):
    first = next(layers.walk(models.build(name), models.input_shape(name))).layer
    return isinstance(first, layers.Embedding | layers.OneHot)


NAMES = sorted(name for name in models.names() if reads_tokens(name))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtypes_of_the_named_networks(name, strict_promotion):
    net, shape = models.build(name), models.input_shape(name)
    params, state = jax.eval_shape(
        lambda key: jaxd2l.init(net, key, shape, dtype=jnp.bfloat16), jax.random.key(0)
    )
    call = functools.partial(jaxd2l.apply, net, train=True, key=jax.random.key(0))
    y, new = jax.eval_shape(call, params, state, jax.ShapeDtypeStruct((2, *shape), jnp.int32))
    assert (y.shape, y.dtype) == ((2, *jaxd2l.output_shape(net, shape)), jnp.bfloat16)
    assert new == state
    table = jaxd2l.summarize(net, shape)
    assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    steps = list(layers.walk(net, shape))
    last = [s for s in steps if s.layer.parameters(s.input_shape)][-1]
    assert last.path.startswith("output")  # so that "all but the head" is one pattern


def test_the_table_has_every_layer_of_sequences_and_every_network_of_tokens():
    def kinds(layer):
        yield type(layer)
        for field in ("layers", "branches"):
            for child in getattr(layer, field, ()):
                yield from kinds(child)
        if isinstance(getattr(layer, "layer", None), layers.Layer):
            yield from kinds(layer.layer)

    seen = {kind for _, net, _ in CASES for kind in kinds(net)}
    modules = {f"jaxd2l.layers.{name}" for name in ("attention", "recurrent", "sequence")}
    public = {
        value
        for value in vars(layers).values()
        if isinstance(value, type)
        and issubclass(value, layers.Layer)
        and (value.__module__ in modules or value in (layers.Embedding, layers.Padded))
    }
    assert len(public) >= 10
    assert public <= seen
    assert set(NAMES) - set(IDS) == {"bilstm", "textcnn"}  # have theirs in test_models_text.py
