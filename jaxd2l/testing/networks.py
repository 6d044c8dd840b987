"""A hypothesis strategy of networks: branches, shortcuts, up and down, in one to three dimensions.

Nothing is drawn and then thrown away. A layer is drawn to fit the shape that it gets, and branches
are padded so that each gives ceil(n / stride) units, or n * stride units going up.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from jaxd2l import layers
from jaxd2l.geometry import Window, as_int
from jaxd2l.testing.strategies import hypothesis_strategies, simplest_first

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Shape = tuple[int, ...]

# The largest input by the number of spatial axes; nothing larger than that is enlarged either.
LARGEST = {1: 16, 2: 8, 3: 4}


def networks(
    dimensions: Sequence[int] = (1, 2, 3), max_layers: int = 4, smooth: bool = False
) -> "SearchStrategy[tuple[layers.Serial, Shape]]":
    """A network and an input shape without a batch axis, `(*spatial, c)`, which fit each other.

    One to `max_layers` of: activation, batch or layer norm (per position), convolution (stride,
    unequal padding, dilation, groups), pooling, transposed convolution, a repeated block, a
    residual block, branches that are added, multiplied or concatenated, and a U-shaped block with a
    shortcut across it. Branches agree in shape and in jump, so the receptive field of the output
    is defined, and no layer sees the whole input. Kernels are 1 to 4 wide, strides and dilations 1
    to 3, inputs up to 16, 8x8 or 4x4x4 with 1 to 4 channels.

    Args:
      dimensions: the numbers of spatial axes to draw from, of 1, 2 and 3.
      smooth: draw nothing that selects or cuts off (max pooling, ReLU): with weights in general
        position every pixel that a unit sees has a gradient, and finite differences are safe.

    Raises:
      ValueError: another number of dimensions, or no layers.

    Example:
      >>> from hypothesis import find
      >>> from jaxd2l import output_shape
      >>> net, shape = find(networks(), lambda drawn: "ConvTranspose" in repr(drawn[0]))
      >>> len(net.layers), shape, len(output_shape(net, shape)) == len(shape)
      (1, (1, 1), True)
    """
    st = hypothesis_strategies()
    ranks = tuple(dimensions)
    if not ranks or not set(ranks) <= set(LARGEST):
        raise ValueError(f"networks: dimensions must be some of 1, 2 and 3, got {dimensions!r}")
    most = as_int(max_layers, "networks: max_layers", 1)

    @st.composite
    def network(draw: Any) -> tuple[layers.Serial, Shape]:
        rank = draw(st.sampled_from(ranks))
        sizes = tuple(draw(st.integers(1, LARGEST[rank])) for _ in range(rank))
        shape = (*sizes, draw(st.integers(1, 4)))
        make = _Maker(st, draw, smooth)
        return layers.Serial(make.chain(shape, 1, most, make.any_layer)), shape

    return network()


class _Maker:
    """Draws one layer after another; every method takes the shape that the layer will get."""

    def __init__(self, st: Any, draw: Any, smooth: bool) -> None:
        self.st, self.draw, self.smooth = st, draw, smooth
        self.numbers = itertools.count(1)

    def name(self, kind: str) -> str:
        return f"{kind}{next(self.numbers)}"

    def integer(self, low: int, high: int) -> int:
        return self.draw(self.st.integers(low, high))

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.draw(self.st.sampled_from(choices))

    def small(self, shape: Shape) -> bool:
        return max(shape[:-1]) <= LARGEST[len(shape) - 1]

    def chain(
        self, shape: Shape, least: int, most: int, draw_layer: Callable[[Shape], layers.Layer]
    ) -> list[layers.Layer]:
        chain: list[layers.Layer] = []
        # "One more?" each time, as lists in hypothesis do: a layer can be left out by itself.
        while len(chain) < least or (len(chain) < most and self.draw(self.st.booleans())):
            chain.append(draw_layer(shape))
            shape = layers.output_shape(chain[-1], shape)
        return chain

    def any_layer(self, shape: Shape) -> layers.Layer:
        kinds = [self.activation, self.norm, self.conv, self.pool]
        if self.small(shape):
            kinds += [self.conv_transpose]
        kinds += [self.repeat, self.residual, self.branches, self.u_shape]
        return self.one_of(kinds)(shape)

    # Layers that keep the shape.

    def activation(self, shape: Shape) -> layers.Layer:
        smooth, others = ("tanh", "gelu"), ("relu", "leaky_relu")
        return layers.Activation(self.one_of(smooth if self.smooth else others + smooth))

    def norm(self, shape: Shape) -> layers.Layer:
        kinds: list[Callable[[str], layers.Layer]] = [layers.BatchNorm]
        if shape[-1] > 2:  # two channels, normalised, are nearly 1 and -1 whatever they were
            kinds += [layers.LayerNorm]
        return self.one_of(kinds)(self.name("norm"))

    def keeping(self, shape: Shape) -> layers.Layer:
        """Activation, norm or convolution; shape and jump stay."""
        if self.draw(self.st.booleans()):
            return self.aligned_conv(shape, (1,) * (len(shape) - 1), shape[-1])
        return self.one_of([self.activation, self.norm])(shape)

    def repeat(self, shape: Shape) -> layers.Layer:
        block = layers.Serial(self.chain(shape, 1, 2, self.keeping))
        return layers.Repeat(block, self.integer(1, 3), name=self.name("repeat"))

    # Layers with any window that fits.

    def conv(self, shape: Shape) -> layers.Layer:
        return self.conv_of([self.window(size) for size in shape[:-1]], shape[-1])

    def conv_transpose(self, shape: Shape) -> layers.Layer:
        return self.conv_of([self.transposed_window(size) for size in shape[:-1]], shape[-1])

    def pool(self, shape: Shape) -> layers.Layer:
        return self.pool_of([self.pool_window(size) for size in shape[:-1]])

    def window(self, size: int) -> Window:
        low, high = self.one_of(simplest_first(range(4), range(4)))
        kernel = self.integer(1, min(4, size + low + high))
        room = (size + low + high - 1) // max(kernel - 1, 1)
        dilation = self.integer(1, 3 if kernel == 1 else min(3, room))
        return Window(kernel, self.integer(1, 3), (low, high), dilation)

    def transposed_window(self, size: int) -> Window:
        kernel, stride, dilation = self.integer(1, 4), self.integer(1, 3), self.integer(1, 3)
        extra = self.integer(0, max(stride, dilation) - 1)
        full = Window(kernel, stride, 0, dilation, True, extra).output_size(size)
        low = self.integer(0, min(3, full - 1))
        high = self.integer(0, min(3, full - 1 - low))
        return Window(kernel, stride, (low, high), dilation, True, extra)

    def pool_window(self, size: int) -> Window:
        kernel = self.integer(1, min(4, size))
        padding = self.one_of(simplest_first(range(kernel), range(kernel)))
        return Window(kernel, self.integer(1, 3), padding)

    # Branches.

    def residual(self, shape: Shape) -> layers.Layer:
        body = layers.Serial(self.chain(shape, 1, 2, self.keeping))
        return layers.Parallel([layers.Identity(), body], self.one_of(["add", "multiply"]))

    def branches(self, shape: Shape) -> layers.Layer:
        """Two or three branches with one stride each axis, up or down for all."""
        combine = self.one_of(["add", "concat", "multiply"])
        up = self.small(shape) and self.draw(self.st.booleans())
        strides = tuple(self.integer(1, 3) for _ in shape[:-1])
        features = self.integer(1, 3)
        drawn: list[layers.Layer] = []
        for _ in range(self.integer(2, 3)):
            width = features if combine != "concat" else self.integer(1, 3)
            if not up and self.draw(self.st.booleans()):
                pool = self.pool_of([self.aligned(s, dilated=False) for s in strides])
                ones = (1,) * len(strides)
                last = layers.Conv(self.name("conv"), width, ones)
                drawn.append(layers.Serial([pool, last]))
                continue
            first = self.aligned_conv(shape, strides, width, up)
            inner = layers.output_shape(first, shape)
            drawn.append(layers.Serial([first, *self.chain(inner, 0, 2, self.keeping)]))
        return layers.Parallel(drawn, combine)

    def u_shape(self, shape: Shape) -> layers.Layer:
        """Down by a divisor of each size, up again, and a shortcut across."""
        strides = tuple(self.one_of([s for s in (1, 2, 3) if n % s == 0]) for n in shape[:-1])
        combine = self.one_of(["concat", "add"])
        down = self.aligned_conv(shape, strides, self.integer(1, 3))
        inner = layers.output_shape(down, shape)
        middle = self.keeping(inner)
        features = shape[-1] if combine == "add" else self.integer(1, 3)
        up = self.aligned_conv(inner, strides, features, up=True)
        return layers.Parallel([layers.Identity(), layers.Serial([down, middle, up])], combine)

    def aligned_conv(
        self, shape: Shape, strides: Shape, features: int, up: bool = False
    ) -> layers.Layer:
        """A convolution to ceil(n / stride) units, or a transposed one to n * stride."""
        aligned = self.aligned_up if up else self.aligned
        return self.conv_of([aligned(s) for s in strides], shape[-1], features)

    def aligned(self, stride: int, dilated: bool = True) -> Window:
        kernel, dilation = self.integer(1, 4), self.integer(1, 3) if dilated else 1
        total = (kernel - 1) * dilation
        low = self.integer(0, total)
        return Window(kernel, stride, (low, total - low), dilation)

    def aligned_up(self, stride: int) -> Window:
        kernel, dilation = self.integer(1, 4), self.integer(1, 3)
        span = (kernel - 1) * dilation + 1
        extra = self.integer(max(stride - span, 0), max(stride, dilation) - 1)
        total = span + extra - stride
        low = self.integer(0, total)
        return Window(kernel, stride, (low, total - low), dilation, True, extra)

    # From windows to layers.

    def conv_of(
        self, windows: Sequence[Window], channels: int, features: int | None = None
    ) -> layers.Layer:
        groups = self.one_of(
            [g for g in range(1, channels + 1) if channels % g == 0 == (features or g) % g]
        )
        if features is None:
            features = groups * self.integer(1, max(4 // groups, 1))
        kernel, stride, padding, dilation, extra = (
            tuple(getattr(w, field) for w in windows)
            for field in ("kernel", "stride", "padding", "dilation", "output_padding")
        )
        if windows[0].transposed:
            return layers.ConvTranspose(
                self.name("up"), features, kernel, stride, padding, extra, dilation, groups
            )
        return layers.Conv(self.name("conv"), features, kernel, stride, padding, dilation, groups)

    def pool_of(self, windows: Sequence[Window]) -> layers.Layer:
        kinds = [layers.AvgPool] if self.smooth else [layers.AvgPool, layers.MaxPool]
        return self.one_of(kinds)(
            tuple(w.kernel for w in windows),
            tuple(w.stride for w in windows),
            tuple(w.padding for w in windows),
        )
