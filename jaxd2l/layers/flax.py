"""A Flax module as a layer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.layers.core import Array, Context, Layer, Params, Shape, State, check_name
from jaxd2l.records import record


@record
class FlaxModule(Layer):
    """A `flax.linen` module inside a network, under its own name.

    Its "params" collection becomes our parameters and its other collections (such as
    "batch_stats") our statistics. `train_argument` names the argument by which the module is told
    that it trains ("train", or "!deterministic" and "!use_running_average" for the opposite
    sense); None passes none. Its dropout gets this layer's key.

    A network with a Flax module in it cannot be written to a file; keep it in code. `summarize`
    reads receptive field and MACs off the module's trace.

    Raises:
      TypeError: not a linen module (wrap an nnx one with `nnx.bridge.to_linen`).

    Example:
      >>> import flax.linen as nn
      >>> from jaxd2l import init, apply, layers
      >>> net = layers.Serial([FlaxModule("features", nn.Dense(4)), layers.Dense("head", 2)])
      >>> params, state = init(net, jax.random.key(0), (3,))
      >>> sorted(params), params["features"]["kernel"].shape
      (['features', 'head'], (3, 4))
    """

    name: str
    module: Any
    train_argument: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "FlaxModule")
        import flax.linen as nn

        if not isinstance(self.module, nn.Module):
            raise TypeError(
                f"FlaxModule {self.name!r}: expected a flax.linen module, got {self.module!r}; "
                f"wrap an nnx module with flax.nnx.bridge.to_linen"
            )

        if self.train_argument is not None and not isinstance(self.train_argument, str):
            raise TypeError(
                f"FlaxModule {self.name!r}: train_argument must be the name of an argument, "
                f"got {self.train_argument!r}"
            )

    def _arguments(self, train: bool) -> dict[str, bool]:
        if self.train_argument is None:
            return {}
        if self.train_argument.startswith("!"):
            return {self.train_argument[1:]: not train}
        return {self.train_argument: train}

    def _variables(self, key: Array, input_shape: Shape, dtype: Any) -> dict[str, Any]:
        x = jnp.zeros((1, *input_shape), dtype)
        rngs = {"params": key, "dropout": key}
        return dict(self.module.init(rngs, x, **self._arguments(False)))

    def init(self, key: Array, input_shape: Shape, dtype: Any) -> tuple[Params, State]:
        variables = self._variables(key, input_shape, dtype)
        cast = jax.tree.map(
            lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, variables
        )
        return cast.pop("params", {}), cast

    def output_shape(self, input_shape: Shape) -> Shape:
        return _output_shape(self, input_shape)

    def apply(self, params: Params, state: State, x: Array, context: Context) -> tuple[Any, State]:
        variables = {"params": params, **state}
        arguments = self._arguments(context.train)
        rngs = {"dropout": context.key} if context.run_key is not None else {}
        if context.train and state:
            y, updated = self.module.apply(
                variables, x, **arguments, rngs=rngs, mutable=list(state)
            )
            return y, {**state, **updated}
        return self.module.apply(variables, x, **arguments, rngs=rngs), state

    def macs(self, input_shape: Shape) -> int | None:
        return None


@functools.lru_cache(maxsize=256)  # `apply` asks at every trace, and this traces the module twice
def _output_shape(layer: FlaxModule, input_shape: Shape) -> Shape:
    def run(key: Array) -> Any:
        variables = layer._variables(key, input_shape, jnp.float32)
        x = jnp.zeros((1, *input_shape), jnp.float32)
        return layer.module.apply(variables, x, **layer._arguments(False))

    y = jax.eval_shape(run, jax.random.key(0))
    if not hasattr(y, "shape"):
        raise ValueError(f"FlaxModule {layer.name!r}: it must return one array, got {y!r}")
    return tuple(y.shape[1:])
