"""Classifiers of texts: networks from tokens (n, t) to logits (n, num_classes).

The tokens of a text come first and padding after them, `data.text.labelled_dataset` makes such
rows. How much padding there is changes nothing: no window and no recurrence reads it.
"""

from collections.abc import Sequence

from jaxd2l.geometry import as_int
from jaxd2l.layers import (
    LSTM,
    Activation,
    Conv,
    Dense,
    Dropout,
    Embedding,
    FirstStep,
    Flatten,
    GlobalMaxPool,
    KMaxPool,
    LastStep,
    Layer,
    Padded,
    Parallel,
    RealSteps,
    Serial,
)


def textcnn(
    vocabulary: int = 1000,
    num_classes: int = 2,
    embedding: int = 100,
    widths: Sequence[int] = (3, 4, 5),
    features: int = 100,
    k: int = 1,
    dropout: float = 0.5,
    padding: int = 1,
) -> Padded:
    """TextCNN: detectors of n-grams slide over the words, the strongest answers are classified.

    For each width w, convolutions of w words, ReLU and the maximum over time, or the `k` largest
    values in the order in which they occur; all widths side by side, dropout, a dense layer. The
    windows are those inside the text, t - w + 1 of them, as in the paper's formula; a text shorter
    than a window has one, filled up with zero vectors.

    Args:
      widths: of the convolutions, in tokens, each once.
      features: of each width.
      k: how many maxima over time; the rows must have at least so many tokens, padding included.
      padding: the token that pads.

    Shapes: tokens (n, t) -> (n, num_classes).

    Raises:
      ValueError: no widths, one of them twice or below 1, or what the layers refuse.

    Source: Kim 2014, arXiv:1408.5882; k-max: Kalchbrenner et al. 2014, arXiv:1404.2188; D2L 16.3,
    which also trains the vector of the padding and lets windows see it.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(textcnn(), (32,)).parameters
      220902
    """
    each = tuple(as_int(width, "textcnn: each width", 1) for width in widths)
    if not each or len(set(each)) < len(each):
        raise ValueError(f"textcnn: widths must be one or more different integers, got {widths!r}")
    over_time = [GlobalMaxPool()] if as_int(k, "textcnn: k", 1) == 1 else [KMaxPool(k), Flatten()]

    def branch(width: int) -> Layer:
        convolution = Conv(f"conv{width}", features, (width,), padding=((0, width - 1),))
        # ReLU leaves nothing below 0, so zeros in the place of windows beyond the text never win.
        return Serial([convolution, Activation("relu"), RealSteps(width), *over_time])

    parts: list[Layer] = [Embedding("embedding", vocabulary, embedding), RealSteps()]
    parts.append(Parallel([branch(width) for width in each], "concat"))
    parts += [Dropout("dropout", dropout)] if dropout else []
    return Padded(Serial([*parts, Dense("output", num_classes)]), padding)


def bilstm(
    vocabulary: int = 1000,
    num_classes: int = 2,
    embedding: int = 100,
    features: int = 100,
    depth: int = 2,
    dropout: float = 0.0,
    padding: int = 1,
) -> Padded:
    """Bidirectional LSTM: what each direction knows after the whole text is classified.

    Each of the `depth` layers reads the text forwards and backwards, and the next one sees both
    side by side. Of the last layer the forward state at the last word and the backward state at the
    first go, joined, to a dense layer. Dropout acts on the vectors of the words, between layers and
    before the dense layer.

    Args:
      features: of each direction.
      padding: the token that pads.

    Shapes: tokens (n, t) -> (n, num_classes).

    Raises:
      ValueError: depth below 1, or what the layers refuse.

    Source: Schuster and Paliwal 1997; Graves and Schmidhuber 2005; D2L 10.4, 16.2, which also joins
    the two states that have read one word only and so has twice as many inputs to its dense layer.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(bilstm(), (32,)).parameters
      502002
    """
    parts: list[Layer] = [Embedding("embedding", vocabulary, embedding)]
    depth = as_int(depth, "bilstm: depth", 1)
    for i in range(1, depth + 1):
        parts += [Dropout(f"dropout{i}", dropout)] if dropout else []
        forward, backward = LSTM("forward", features), LSTM("backward", features, reverse=True)
        ends = [Serial([forward, LastStep()]), Serial([backward, FirstStep()])]
        branches = ends if i == depth else [forward, backward]
        parts.append(Parallel(branches, "concat", name=f"bilstm{i}"))
    parts += [Dropout("dropout", dropout)] if dropout else []
    return Padded(Serial([*parts, Dense("output", num_classes)]), padding)
