"""Small programs on which the analysis was once wrong, each with what it must say."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxd2l.analysis import receptive_field
from jaxd2l.geometry import ReceptiveField, Window
from jaxd2l.geometry import receptive_field as of_windows

PIXEL = ReceptiveField()


def conv(x: jax.Array, k: int, padding: Any = "SAME", layout: str = "NWC") -> jax.Array:
    weights = jnp.ones((k, x.shape[layout.index("C")], 1), x.dtype)
    return lax.conv_general_dilated(
        x, weights, (1,), padding, dimension_numbers=(layout, "WIO", layout)
    )


def test_both_directions_together_are_the_whole() -> None:
    """Every unit sees everything: that is the same as `whole`, not a list."""
    (field,) = receptive_field(
        lambda x: jnp.cumsum(x, 1) + lax.cumsum(x, 1, reverse=True), (1, 7, 2)
    )
    assert field == ReceptiveField.whole(7)


def test_a_window_beside_a_mean_sees_the_image_only() -> None:
    for f in (
        lambda x: conv(x, 3) + x.mean(1, keepdims=True),
        lambda x: jnp.concatenate([conv(x, 9), jnp.broadcast_to(x.max(), x.shape)], -1),
        lambda x: conv(x, 3) * jax.nn.sigmoid(conv(x, 3).mean((1, 2)))[:, None, None],
    ):
        assert receptive_field(f, (1, 20, 1)) == (ReceptiveField.whole(20),)


def test_rows_flattened_and_back_stay_rows() -> None:
    """What lies beyond the end of a row is padding, not the next row."""
    for shape in ((-1,), (1, -1, 2)):
        told = receptive_field(
            lambda x, shape=shape: jnp.pad(
                (x.reshape(shape) * 2).reshape(x.shape), ((0, 0), (0, 0), (0, 1), (0, 0))
            ),
            (1, 3, 4, 2),
        )
        assert told == (PIXEL, PIXEL)


def test_a_reshape_that_transposes_first() -> None:
    """`vmap` of a convolution whose batch does not come first makes one."""
    for layout in ("NWC", "WNC", "WCN"):
        place = layout.index("N")
        f = jax.vmap(lambda x, layout=layout: conv(x, 3, "VALID", layout), place, place)
        shape = [2, 2, 2]
        shape[layout.index("W")] = 6
        told = receptive_field(
            lambda x, f=f, place=place: f(jnp.expand_dims(x, place + 1)).squeeze(place + 1),
            tuple(shape),
            (layout.index("W"),),
        )
        assert told == (of_windows([Window(3)]),)
    direct = receptive_field(lambda x: lax.reshape(x, (6, 2, 1), (1, 0, 2)), (2, 6, 1))
    assert direct == (PIXEL,)


def test_the_axis_that_moves_is_reported() -> None:
    def beside_zeros(x: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.zeros_like(x), x], 2)

    told = receptive_field(lambda x: beside_zeros(x).transpose(0, 2, 1, 3), (1, 4, 4, 1))
    assert told[0] == PIXEL
    one_row = receptive_field(lambda x: beside_zeros(x[:, 4:5]), (1, 5, 8, 1))
    assert one_row[0].interval(0) == (4, 4)


@pytest.mark.parametrize("pixels", [3, 4, 8, 16, 64])
def test_channels_with_different_fields_larger_than_the_image(pixels: int) -> None:
    """Borders are ignored: a field may be larger than the image, and the largest one counts."""
    wide = of_windows([Window(21, 1, 10)])
    for kernels in ((9, 9, 21), (21, 9, 9), (9, 21), (21, 21, 9, 1)):
        told = receptive_field(
            lambda x, kernels=kernels: jnp.concatenate([conv(x, k) for k in kernels], -1),
            (1, pixels, 1),
        )
        assert told == (wide,), kernels


def test_long_loops_that_change_nothing_need_no_warning() -> None:
    told = receptive_field(
        lambda x: lax.fori_loop(0, 10**7, lambda i, y: jnp.tanh(y), conv(x, 3)), (1, 9, 1)
    )
    assert told == (of_windows([Window(3, 1, 1)]),)


def test_what_sees_nothing_has_the_size_0() -> None:
    told = receptive_field(
        lambda x: jnp.concatenate([jnp.zeros_like(x), x], 2)[:, :, :2][:, ::2], (1, 8, 2, 1)
    )
    assert (told[0].intervals, told[0].size, told[0].start) == ((None,), 0, None)


def test_a_large_image_is_resized_exactly() -> None:
    told = receptive_field(
        lambda x: jax.image.resize(x, (1, 8192, 8, 3), "bilinear"), (1, 4096, 8, 3)
    )
    assert [(field.size, field.jump) for field in told] == [(2, 0.5), (1, 1)]


def test_nested_jit_with_constants() -> None:
    weights = np.ones((3, 1, 1), np.float32)

    @jax.jit
    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, jnp.asarray(weights), (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )

    assert receptive_field(f, (1, 8, 1)) == (of_windows([Window(3)]),)


def test_an_empty_update_changes_nothing() -> None:
    told = receptive_field(lambda x: lax.dynamic_update_slice(x, x[:, 6:9], (0, 1, 0)), (1, 5, 2))
    assert told == (PIXEL,)
