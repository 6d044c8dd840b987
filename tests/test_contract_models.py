"""Every published network of images keeps the contract: each family when tiny, each name by its
shapes. Networks of tokens are in `test_contract_sequences.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers, models, records
from jaxd2l.models import (
    alexnet,
    colornet,
    d2l,
    erfnet,
    highway,
    highway_cnn,
    igc,
    inception_v3,
    mobilenet_v1,
    mobilenet_v2,
    nin,
    xception,
    zf5,
)
from jaxd2l.models.densenet import densenet
from jaxd2l.models.googlenet import googlenet
from jaxd2l.models.resnet import resnet, resnet_v2
from jaxd2l.models.shufflenet import shufflenet_v1_of, shufflenet_v2_of
from jaxd2l.models.squeezenet import squeezenet
from jaxd2l.models.vgg import vgg

FIVE = (4, 6, 6, 4, 4)
STAGES = (((2, (2, 3), (2, 2), 2),), ((2, (2, 2), (2, 2), 2),), ((3, (2, 2), (2, 2), 2),))
# Names of networks that a tiny one stands for -> that network, shape of its input. The families
# whose programs take XLA longest are marked slow.
TINY = {
    "alexnet": (alexnet(5, features=FIVE, hidden=8), (63, 65, 3)),
    "colornet": (colornet(5, ("gray", "hsv"), blocks=(1, 1), growth=2), (8, 8, 3)),
    "d2l.alexnet": (d2l.alexnet(5, features=FIVE, hidden=8), (67, 69, 1)),
    "d2l.densenet": (d2l.densenet(5, (1, 2), 3, 4), (16, 16, 1)),
    "d2l.googlenet": (d2l.googlenet(5, stem=(2, 2, 4), stages=STAGES), (32, 32, 1)),
    "d2l.nin": (d2l.nin(5, features=(4, 4, 4)), (67, 67, 1)),
    "d2l.resnet18": (d2l.resnet18(5, units=(1, 2), features=4), (16, 17, 1)),
    "d2l.vgg": (d2l.vgg(((1, 2), (2, 4)), 5, hidden=8), (8, 9, 1)),
    "densenet121 densenet161 densenet169 densenet201": (
        densenet((1, 2), 5, growth=4, features=4),
        (17, 16, 3),
    ),
    "erfnet": (erfnet(4, 3, (5, 6, 8), 1, (2,)), (16, 8, 3)),
    "googlenet": (googlenet(5, stem=(2, 2, 4), stages=STAGES), (33, 32, 3)),
    "highway": (highway(5, 9, 6), (3, 3, 1)),
    "highway_cnn": (highway_cnn(5, 4, (1, 2)), (8, 8, 1)),
    "igc": (igc(5, 2, 2, 5), (8, 8, 3)),
    "inception_v3": (inception_v3(5, a=(4,), c=(4,), e=1, width=1 / 16), (75, 75, 3)),
    "mobilenet_v1": (mobilenet_v1(5, 1.0, 0.5, ((4, 1), (8, 2))), (9, 8, 3)),
    "mobilenet_v2": (
        mobilenet_v2(5, 0.25, 0.2, ((1, 8, 1, 1), (6, 8, 2, 2)), last=8),
        (9, 8, 3),
    ),
    "nin": (nin(5, features=(4, 4, 4, 4)), (67, 67, 3)),
    "resnet18 resnet34": (resnet((1, 2), 5, features=4), (17, 16, 3)),
    "resnet50 resnet101 resnet152 resnext50_32x4d wide_resnet50_2": (
        resnet((2, 10), 5, features=4, bottleneck=True, groups=2),
        (17, 16, 3),
    ),
    "resnet_v2": (resnet_v2(5, (1, 2), features=4), (17, 16, 3)),
    "shufflenet_v1": (shufflenet_v1_of((6, 24, 48), 3, (1, 2), 5), (17, 16, 3)),
    "shufflenet_v2": (shufflenet_v2_of((4, 8, 16, 8), (1, 2), 5), (17, 16, 3)),
    "squeezenet1_0 squeezenet1_1": (
        squeezenet(8, 3, (3,), 16, 0.5, ((8, 8), (8, 8))),
        (17, 16, 3),
    ),
    "vgg11 vgg13 vgg16 vgg19": (vgg((1, 2), 5, features=(2, 4), hidden=8), (9, 8, 3)),
    "xception": (xception(5, 0.5, (3, 4), (6,), 8, (8, 8)), (35, 35, 3)),
    "zf5": (zf5(5, features=FIVE, hidden=8), (64, 64, 3)),
}
FAST = {"xla_backend_optimization_level": 0}
N = 4


@functools.lru_cache
def made(names):
    net, shape = TINY[names]
    params, state = jaxd2l.init(net, jax.random.key(1), shape)
    x = jnp.asarray(np.random.RandomState(2).normal(size=(N, *shape)), jnp.float32)
    return net, params, state, x


# What XLA takes longest to compile.
LONG = (
    "d2l.d",
    "d2l.g",
    "colornet",
    "densenet",
    "erfnet",
    "googlenet",
    "inception",
    "mobilenet",
    "xception",
)


@pytest.mark.parametrize(
    "names",
    [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(LONG)) for n in TINY],
)
class TestTinyForms:
    def test_training_moves_the_statistics_and_gives_finite_gradients(self, names):
        net, params, state, x = made(names)

        def loss(params):
            y, new = jaxd2l.apply(net, params, state, x, train=True, key=jax.random.key(3))
            return (y**2).mean(), new

        step = jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=FAST)
        (value, new), grads = step(params)
        assert np.isfinite(value)
        assert value > 0
        for path, grad in jax.tree_util.tree_leaves_with_path(grads):
            assert np.isfinite(grad).all(), path
        used = [bool((grad != 0).any()) for grad in jax.tree.leaves(grads)]
        assert np.mean(used) > 0.6  # tiny ReLU layers may be dead, not most of the network
        same = jax.tree.map(lambda a, b: bool((a == b).all()), new, state)
        assert not any(jax.tree.leaves(same))

    def test_a_batch_is_its_examples_and_evaluation_leaves_state_alone(self, names):
        net, params, state, x = made(names)
        call = jax.jit(lambda x: jaxd2l.apply(net, params, state, x)[0], compiler_options=FAST)
        whole = call(x)
        assert whole.shape == (N, *jaxd2l.output_shape(net, x.shape[1:]))
        flipped = call(x[::-1])[::-1]  # examples do not see each other
        np.testing.assert_allclose(whole, flipped, rtol=1e-4, atol=1e-5)
        assert jaxd2l.apply(net, params, state, x[:1])[1] is state

    def test_it_can_be_stored_and_is_counted_right(self, names):
        net, params, state, x = made(names)
        assert records.load(records.dump(net)) == net
        table = jaxd2l.summarize(net, x.shape[1:])
        assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
        assert table.statistics == sum(leaf.size for leaf in jax.tree.leaves(state))


INPUTS = {
    "colornet": (32, 32, 3),
    "highway": (28, 28, 1),
    "highway_cnn": (28, 28, 1),
    "igc": (32, 32, 3),
    "inception_v3": (299, 299, 3),
    "xception": (299, 299, 3),
}


def reads_tokens(name):
    first = next(layers.walk(models.build(name), models.input_shape(name))).layer
    return isinstance(first, layers.Embedding | layers.OneHot)


@functools.lru_cache
def published():
    """All names but those in the tables of test_contract.py and test_contract_sequences.py."""
    names = {name for name in models.names() if not reads_tokens(name)} - {"lenet", "mlp"}
    return sorted(name for name in names if not name.endswith("regression"))


@pytest.mark.parametrize("name", published())
def test_shapes_and_dtypes_of_the_named_networks(name, strict_promotion):
    net = models.build(name)
    shape = INPUTS.get(name, (224, 224, 1 if name.startswith("d2l") else 3))
    params, state = jax.eval_shape(
        lambda key: jaxd2l.init(net, key, shape, dtype=jnp.bfloat16), jax.random.key(0)
    )
    call = functools.partial(jaxd2l.apply, net, train=True, key=jax.random.key(0))
    y, new = jax.eval_shape(call, params, state, jax.ShapeDtypeStruct((2, *shape), jnp.bfloat16))
    assert (y.shape, y.dtype) == ((2, *jaxd2l.output_shape(net, shape)), jnp.bfloat16)
    assert y.shape[-1] == models.options(name)["num_classes"]
    assert jax.tree.map(lambda a: (a.shape, a.dtype), new) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    table = jaxd2l.summarize(net, shape)
    assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_every_published_network_has_a_tiny_form():
    assert sorted(name for names in TINY for name in names.split()) == sorted(published())


def test_the_last_layer_with_parameters_is_called_output():
    for name in published():
        net = models.build(name)
        steps = list(layers.walk(net, INPUTS.get(name, (224, 224, 3))))
        last = [s for s in steps if s.layer.parameters(s.input_shape)][-1]
        assert last.path.startswith("output"), name
