"""The multilayer perceptron."""

from collections.abc import Sequence

from jaxd2l.layers import Activation, Dense, Dropout, Flatten, Layer, Serial


def mlp(
    hidden: Sequence[int] = (256,),
    num_classes: int = 10,
    activation: str = "relu",
    dropout: Sequence[float] = (),
) -> Layer:
    """Flatten, then one dense layer and activation for each width in `hidden`, then the logits.

    Args:
      hidden: the widths of the hidden layers.
      num_classes: the number of outputs.
      activation: after every hidden layer.
      dropout: the fraction dropped after each hidden layer, one per layer; () for none. The
        book's two-hidden-layer form is `mlp((256, 256), dropout=(0.5, 0.5))`.

    Raises:
      ValueError: as many dropout rates as hidden layers are needed.

    Source: D2L 5.1, 5.6. 784-256-10 has 203,530 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(mlp(), (28, 28, 1)).parameters
      203530
    """
    for what, wanted, given in (("hidden", "widths", hidden), ("dropout", "rates", dropout)):
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise TypeError(f"mlp: {what} must be a sequence of {wanted}, got {given!r}")
    if dropout and len(dropout) != len(hidden):
        raise ValueError(
            f"mlp: dropout needs one rate per hidden layer, got {len(dropout)} for {len(hidden)}"
        )
    layers: list[Layer] = [Flatten()]
    for i, width in enumerate(hidden, 1):
        layers += [Dense(f"dense{i}", width), Activation(activation)]
        if dropout:
            layers.append(Dropout(f"dropout{i}", dropout[i - 1]))
    return Serial([*layers, Dense("output", num_classes)])
