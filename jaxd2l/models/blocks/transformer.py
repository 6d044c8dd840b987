"""The block of a transformer: attention, then two dense layers at each position."""

from collections.abc import Callable

from jaxd2l.layers import (
    Activation,
    Dense,
    Dropout,
    Identity,
    Layer,
    LayerNorm,
    Parallel,
    SelfAttention,
    Serial,
)


def transformer_block(
    features: int,
    heads: int,
    hidden: int,
    *,
    causal: bool,
    norm_first: bool = True,
    rotary: float | None = None,
    dropout: float = 0.0,
    norm: Callable[[str], Layer] = LayerNorm,
    name: str | None = None,
) -> Layer:
    """x + f(norm(x)) (`norm_first`) or norm(x + f(x)), for f attention and then f the dense layers.

    f of the dense layers is W2 gelu(W1 x + b1) + b2 with `hidden` units between. Dropout acts on
    the attention weights and on the output of each f. `norm` makes a norm of a name: the default
    layer norm, whose statistics are those of one position.

    Shapes: (n, t, features) -> the same.

    Source: Vaswani et al. 2017 (norm last); Radford et al. 2019, GPT-2, and Xiong et al. 2020 (norm
    first); D2L 11.7.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(transformer_block(64, 4, 256, causal=True), (35, 64)).parameters
      49984
    """
    if not isinstance(norm_first, bool):
        raise TypeError(f"transformer_block: norm_first must be True or False, got {norm_first!r}")
    attend: Layer = SelfAttention("attention", heads, causal=causal, rotary=rotary, dropout=dropout)
    feed: list[Layer] = [Dense("dense1", hidden), Activation("gelu"), Dense("dense2", features)]
    parts: list[Layer] = []
    for number, inside in enumerate(([attend], feed), 1):
        own = norm(f"norm{number}")
        branch = [own, *inside] if norm_first else [*inside]
        branch += [Dropout(f"dropout{number}", dropout)] if dropout else []
        parts.append(Parallel([Identity(), Serial(branch)], "add"))
        parts += [] if norm_first else [own]
    return Serial(parts, name=name)
