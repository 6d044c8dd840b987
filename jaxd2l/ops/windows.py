"""Arguments of sliding windows, normalised: what users write becomes one `Window` per axis.

Convolution and pooling, as functions and as layers, all read their arguments here, so that
`stride=2` or `padding="same"` means the same thing everywhere.
"""

from collections.abc import Sequence
from typing import Any

from jaxd2l.geometry import Window, as_int, same_padding


def per_axis(value: Any, rank: int, what: str, minimum: int = 1) -> tuple[int, ...]:
    """An int, or a sequence of `rank` ints, as a tuple of `rank` ints of at least `minimum`.

    Raises:
      TypeError: something in it is not an integer.
      ValueError: the number of entries is not `rank`, or an entry is below `minimum`.

    Example:
      >>> per_axis(2, 3, "stride")
      (2, 2, 2)
      >>> per_axis((1, 2), 2, "stride")
      (1, 2)
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != rank:
            raise ValueError(
                f"{what} must be one int or one per axis ({rank} axes), got {tuple(value)}"
            )
        return tuple(as_int(v, what, minimum) for v in value)
    return (as_int(value, what, minimum),) * rank


def paddings(
    padding: Any, kernel: Sequence[int], dilation: Sequence[int], what: str = "padding"
) -> tuple[tuple[int, int], ...]:
    """Padding as one `(low, high)` per axis, for windows of `kernel` with `dilation` per axis.

    An int is the same on both sides of every axis. A sequence has one entry per axis: an int (both
    sides) or a `(low, high)` pair; so `(1, 2)` in two dimensions is 1 on both sides of the first
    axis and 2 on both sides of the second, and one pair for every axis has to be written out.
    With k' = (k-1)*dilation + 1, `"valid"` is 0, `"full"` is k'-1 on both sides, and `"same"` is
    k'-1 in total, the odd one at the end. Strings never depend on the size of the input: with a
    stride, `"same"` gives ceil(n/stride), yet may sit one pixel away from TensorFlow's.

    Raises:
      TypeError, ValueError: not of one of these forms, or negative.

    Example:
      >>> paddings("same", (3, 4), (1, 1))
      ((1, 1), (1, 2))
      >>> paddings(((0, 1), 2), (3, 3), (1, 1))
      ((0, 1), (2, 2))
    """
    rank = len(kernel)
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * rank
        if padding == "same":
            return tuple(same_padding(k, d) for k, d in zip(kernel, dilation, strict=True))
        if padding == "full":
            return tuple(((k - 1) * d,) * 2 for k, d in zip(kernel, dilation, strict=True))
        raise ValueError(f"{what} must be integers, 'same', 'valid' or 'full', got {padding!r}")
    if not isinstance(padding, Sequence):
        both = as_int(padding, what, 0)
        return ((both, both),) * rank
    if len(padding) != rank:
        raise ValueError(
            f"{what} must be an int or have one entry per axis ({rank} axes), an int or a pair "
            f"(low, high), got {padding!r}"
        )
    pairs = []
    for entry in padding:
        if isinstance(entry, Sequence) and not isinstance(entry, str):
            if len(entry) != 2:
                raise ValueError(f"{what}: an entry must be an int or (low, high), got {entry!r}")
            pairs.append((as_int(entry[0], what, 0), as_int(entry[1], what, 0)))
        else:
            both = as_int(entry, what, 0)
            pairs.append((both, both))
    return tuple(pairs)


def make_windows(
    rank: int,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    transposed: bool = False,
    output_padding: int | Sequence[int] = 0,
) -> tuple[Window, ...]:
    """One `geometry.Window` per spatial axis, from the arguments of a convolution or a pool.

    `kernel`, `stride`, `dilation` and `output_padding` are an int or one int per axis; `padding`
    is what `paddings` takes.

    Raises:
      TypeError, ValueError: see `per_axis`, `paddings` and `geometry.Window`.

    Example:
      >>> [w.output_size(28) for w in make_windows(2, 5, stride=2, padding="same")]
      [14, 14]
    """
    kernels = per_axis(kernel, rank, "kernel")
    strides = per_axis(stride, rank, "stride")
    dilations = per_axis(dilation, rank, "dilation")
    extras = per_axis(output_padding, rank, "output_padding", minimum=0)
    pads = paddings(padding, kernels, dilations)
    return tuple(
        Window(kernel=k, stride=s, padding=p, dilation=d, transposed=transposed, output_padding=e)
        for k, s, p, d, e in zip(kernels, strides, pads, dilations, extras, strict=True)
    )
