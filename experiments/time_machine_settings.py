"""What time_machine.py trains: the book's rows, our recipe and its parts, the first edition.

from time_machine_settings import BOOK, FIRST, NETWORKS, ablation
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from time_machine_training import STEPS, Setting

from jaxd2l import layers, models
from jaxd2l.ops.initializers import Constant, FanInUniform, Initializer, Normal

#: Of the networks that the book makes "from scratch".
SCRATCH: dict[str, Initializer] = {"*kernel": Normal(0.01), "*bias": Constant(0.0)}
#: Of the book's "concise" networks; our recurrent layers start like PyTorch's as they are.
TORCH: dict[str, Initializer] = {"output/*": FanInUniform()}


def gru2(vocabulary: int, dropout: float = 0.0) -> layers.Layer:
    """The book's deep GRU: two layers of 32 units."""
    return models.gru_lm(vocabulary, depth=2, dropout=dropout)


def concise_gru(vocabulary: int) -> layers.Layer:
    """One layer that resets after its product, as PyTorch's."""
    gru = layers.GRU("gru1", 32, reset_after=True)
    return layers.Serial([layers.OneHot(vocabulary), gru, layers.Dense("output", vocabulary)])


def concise_gru2(vocabulary: int) -> layers.Layer:
    """Two layers that reset after their products, as PyTorch's."""
    grus = [layers.GRU(f"gru{i}", 32, reset_after=True) for i in (1, 2)]
    return layers.Serial([layers.OneHot(vocabulary), *grus, layers.Dense("output", vocabulary)])


def clipped_sgd(rate: float, steps: int) -> optax.GradientTransformation:
    """The book's: the gradient's norm is at most 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate))


class Published(NamedTuple):
    """Perplexities (training, validation) of the book's two editions; the JAX one lacks a row."""

    jax: tuple[float, float] | None
    torch: tuple[float, float]

    @property
    def validation(self) -> list[float]:
        return [edition[1] for edition in self if edition is not None]


class Row(NamedTuple):
    """One row of the book's table: what it prints, and our setting."""

    rate: float
    published: Published
    setting: Setting


def _row(
    make: Callable[[int], layers.Layer],
    start: Mapping[str, Initializer],
    epochs: int,
    rate: float,
    jax_edition: tuple[float, float] | None,
    torch_edition: tuple[float, float],
) -> Row:
    sgd = functools.partial(clipped_sgd, rate)
    return Row(rate, Published(jax_edition, torch_edition), Setting(make, epochs, sgd, start))


BOOK = {
    "RNN from scratch": _row(models.rnn_lm, SCRATCH, 100, 1, (6.18, 7.31), (6.16, 7.24)),
    "RNN concise": _row(models.rnn_lm, TORCH, 100, 1, None, (5.87, 7.19)),
    "GRU from scratch": _row(models.gru_lm, SCRATCH, 50, 4, (5.68, 6.68), (5.73, 6.74)),
    "GRU concise": _row(concise_gru, TORCH, 50, 4, (5.66, 7.27), (4.94, 6.55)),
    "LSTM from scratch": _row(models.lstm_lm, SCRATCH, 50, 4, (6.90, 7.51), (6.94, 7.42)),
    "LSTM concise": _row(models.lstm_lm, TORCH, 50, 4, (5.47, 6.85), (5.76, 6.69)),
    "2-layer GRU": _row(concise_gru2, TORCH, 100, 2, (3.61, 6.61), (4.13, 6.11)),
}

#: One setting for all networks, chosen on the validation windows with seeds 100 and 101.
RATE, DECAY, DROPOUT, NOISE = 0.03, 0.05, 0.1, 0.1


def adamw(steps: int, decay: float = DECAY) -> optax.GradientTransformation:
    """AdamW (kernels only) with clipping; the rate rises for 5 % of the steps and falls to 0."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, steps // 20, steps)

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda a: a.ndim > 1, params)

    adam = optax.adamw(schedule, weight_decay=decay, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def recipe(
    make: Callable[..., layers.Layer],
    epochs: int,
    optimizer: Callable[[int], optax.GradientTransformation] = adamw,
    dropout: float = DROPOUT,
    noise: float = NOISE,
) -> Setting:
    """Our own: an epoch reads every character once, in batches of 16 windows."""
    dropped = functools.partial(make, dropout=dropout)
    return Setting(dropped, epochs, optimizer, TORCH, 16, STEPS, noise=noise)


#: By network: how it is made, its epochs, the book's rate, and the rows it stands against.
NETWORKS: Mapping[str, tuple[Callable[..., layers.Layer], int, float, Sequence[str]]] = {
    "RNN": (models.rnn_lm, 100, 1, ("RNN from scratch", "RNN concise")),
    "GRU": (models.gru_lm, 50, 4, ("GRU from scratch", "GRU concise")),
    "LSTM": (models.lstm_lm, 50, 4, ("LSTM from scratch", "LSTM concise")),
    "2-layer GRU": (gru2, 100, 2, ("2-layer GRU",)),
}


def ablation(make: Callable[..., layers.Layer], epochs: int, rate: float) -> dict[str, Setting]:
    """The recipe, and what is left of it without one of its parts."""
    plain = functools.partial(adamw, decay=0.0)
    return {
        "the recipe": recipe(make, epochs),
        "no noise on the weights": recipe(make, epochs, noise=0.0),
        "no dropout": recipe(make, epochs, dropout=0.0),
        "no weight decay": recipe(make, epochs, plain),
        "the book's SGD for AdamW": recipe(make, epochs, functools.partial(clipped_sgd, rate)),
    }


def _first(make: Callable[..., layers.Layer]) -> Setting:
    wide = functools.partial(make, features=256)
    sgd = functools.partial(clipped_sgd, 1.0)
    return Setting(wide, 500, sgd, TORCH, batch=32, steps=35, carry=True)


#: 10,000 characters, 256 units, windows of 35 in order, the state carried on.
FIRST = {"GRU": _first(models.gru_lm), "LSTM": _first(models.lstm_lm)}
GOAL = 1.1  # training perplexity, as printed in the book
