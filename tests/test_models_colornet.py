"""ColorNet: published counts of its branches, and that each branch sees its own color space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxd2l
from jaxd2l import layers
from jaxd2l.models.colornet import colornet
from jaxd2l.ops import color

TINY = colornet(3, blocks=(1, 1), growth=2)
X = jnp.asarray(np.random.RandomState(0).uniform(size=(2, 4, 4, 3)), jnp.float32)


def count(net, shape=(32, 32, 3)):
    return jaxd2l.summarize(net, shape).parameters


def branch(net, name):
    return next(b for b in net.layers[0].branches if b.name == name)


@pytest.mark.smoke
def test_a_branch_is_the_published_densenet_bc():
    net = colornet(10, ("rgb",), blocks=(16, 16, 16))
    assert count(branch(net, "rgb")) == 769_162  # DenseNet-BC (L=100, k=12), 0.8M in the paper


def test_parameters_by_hand():
    def dense_bc(channels, k=12, n=6, classes=10):
        total, c = channels * 9 * 2 * k, 2 * k
        for block in range(3):
            for _ in range(n):
                total += 2 * c + c * 4 * k + 2 * 4 * k + 4 * k * 9 * k
                c += k
            if block < 2:
                total += 2 * c + c * (c // 2)
                c //= 2
        return total + 2 * c + c * classes + classes

    want = sum(dense_bc(channels) for _, channels in color.COLOR_SPACES.values())
    assert count(colornet()) == want + (6 * 10 * 10 + 10)
    assert jaxd2l.output_shape(colornet(7), (32, 32, 3)) == (7,)


def test_the_paths_read_well():
    rows = jax.eval_shape(
        lambda key: jaxd2l.init(TINY, key, (4, 4, 3)), jax.eval_shape(lambda: jax.random.key(0))
    )[0]
    assert sorted(rows) == ["binary", "gray", "hsl", "hsv", "output", "rgb", "yuv"]
    assert rows["hsv"]["conv0"]["kernel"].shape == (3, 3, 3, 4)
    assert rows["gray"]["conv0"]["kernel"].shape == (3, 3, 1, 4)
    assert set(rows["yuv"]) == {
        "conv0",
        "denseblock1",
        "transition1",
        "denseblock2",
        "bn",
        "scores",
    }
    assert rows["output"]["kernel"].shape == (18, 3)


def test_each_branch_sees_one_space_and_the_output_weighs_all():
    names = tuple(color.COLOR_SPACES)
    params, state = jaxd2l.init(TINY, jax.random.key(0), (4, 4, 3))

    @jax.jit
    def scores(x):
        found = layers.outputs_at(TINY, params, state, x, [*names, "output"])
        return found, jaxd2l.apply(TINY, params, state, x)[0]

    found, y = scores(X)
    joined = jnp.concatenate([found[name] for name in names], axis=-1)
    want = joined @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(y, want, atol=1e-5)
    np.testing.assert_array_equal(found["output"], y)

    gray = jnp.broadcast_to(color.rgb_to_gray(X), X.shape)  # the same luma, no color
    changed = scores(gray)[0]
    for name in names:
        same = np.allclose(found[name], changed[name], atol=1e-4)
        assert same == (name in ("gray", "binary")), name


def test_errors():
    with pytest.raises(ValueError, match="colornet: no color space 'lab'"):
        colornet(spaces=["lab"])
    with pytest.raises(ValueError, match=r"must have 3 channels \(RGB\), got \(8, 8, 1\)"):
        jaxd2l.output_shape(TINY, (8, 8, 1))
