"""Language models: networks that give logits of the next token at every position of a sequence.

They take tokens (n, t) and give logits (n, t, vocabulary). As networks they go through `init`,
`apply`, `fit` and `summarize` like any other; `layers.extend` runs them on from a carry, and
`jaxd2l.generation` generates text with them.
"""

from collections.abc import Callable

from jaxd2l.geometry import as_int
from jaxd2l.layers import (
    GRU,
    LSTM,
    RNN,
    Dense,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    LearnedPositions,
    OneHot,
    Serial,
    SinusoidalPositions,
)
from jaxd2l.models import blocks
from jaxd2l.ops.initializers import Normal

POSITIONS = ("learned", "sinusoidal", "rotary")


def _recurrent_lm(
    kind: Callable[[str, int], Layer],
    name: str,
    vocabulary: int,
    features: int,
    depth: int,
    embedding: int | None,
    dropout: float,
) -> Serial:
    depth = as_int(depth, f"{name}_lm: depth", 1)
    parts: list[Layer] = [OneHot(vocabulary)]
    if embedding is not None:
        parts = [Embedding("embedding", vocabulary, embedding)]
        parts += [Dropout("dropout0", dropout)] if dropout else []
    for i in range(1, depth + 1):
        parts.append(kind(f"{name}{i}", features))
        parts += [Dropout(f"dropout{i}", dropout)] if dropout else []
    return Serial([*parts, Dense("output", vocabulary)])


def rnn_lm(
    vocabulary: int = 28,
    features: int = 32,
    depth: int = 1,
    embedding: int | None = None,
    dropout: float = 0.0,
) -> Serial:
    """Language model of plain recurrent layers (tanh): 2,876 parameters in the book's size.

    Tokens enter as one-hot vectors, or through an `embedding` of that many features. Dropout acts
    on connections that are not recurrent: on an embedding and on the output of each layer.

    Source: D2L 9.5, 9.6; dropout as in Zaremba et al. 2014.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(rnn_lm(), (32,)).parameters
      2876
    """
    return _recurrent_lm(RNN, "rnn", vocabulary, features, depth, embedding, dropout)


def gru_lm(
    vocabulary: int = 28,
    features: int = 32,
    depth: int = 1,
    embedding: int | None = None,
    dropout: float = 0.0,
) -> Serial:
    """Language model of gated recurrent units; options as of `rnn_lm`.

    Source: D2L 10.2, 10.3 (deep).

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(gru_lm(depth=2), (32,)).parameters
      13020
    """
    return _recurrent_lm(GRU, "gru", vocabulary, features, depth, embedding, dropout)


def lstm_lm(
    vocabulary: int = 28,
    features: int = 32,
    depth: int = 1,
    embedding: int | None = None,
    dropout: float = 0.0,
) -> Serial:
    """Language model of LSTM layers; options as of `rnn_lm`.

    Source: D2L 10.1.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(lstm_lm(), (32,)).parameters
      8732
    """
    return _recurrent_lm(LSTM, "lstm", vocabulary, features, depth, embedding, dropout)


def gpt(
    vocabulary: int = 28,
    features: int = 64,
    heads: int = 4,
    depth: int = 4,
    length: int = 128,
    positions: str = "learned",
    norm_first: bool = True,
    dropout: float = 0.0,
) -> Serial:
    """Decoder-only transformer: causal self-attention, layer norm, four times as many hidden units.

    Args:
      length: the most positions it can see, the size of the table of learned and sinusoidal ones;
        rotary ones need none, and go on for ever.
      positions: "learned", "sinusoidal" or "rotary".
      norm_first: norms inside the residual branches and one at the end (GPT-2), or after each
        addition (Vaswani et al.).

    Source: Radford et al. 2018, 2019; D2L 11.7, 11.9.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(gpt(), (128,)).parameters
      211868
    """
    if positions not in POSITIONS:
        raise ValueError(f"gpt: positions must be one of {POSITIONS}, got {positions!r}")
    parts: list[Layer] = [Embedding("embedding", vocabulary, features, Normal(0.02))]
    if positions == "learned":
        parts.append(LearnedPositions("positions", length))
    elif positions == "sinusoidal":
        parts.append(SinusoidalPositions("positions", length))
    parts += [Dropout("dropout", dropout)] if dropout else []

    def block(name: str) -> Layer:
        return blocks.transformer_block(
            features,
            heads,
            4 * features,
            causal=True,
            norm_first=norm_first,
            rotary=10000.0 if positions == "rotary" else None,
            dropout=dropout,
            name=name,
        )

    parts += blocks.repeated(block, as_int(depth, "gpt: depth", 1))
    parts += [LayerNorm("norm")] if norm_first else []
    return Serial([*parts, Dense("output", vocabulary)])
