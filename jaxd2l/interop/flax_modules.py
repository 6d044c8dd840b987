"""A network as a Flax module, linen or nnx. (A linen module inside a network:
`layers.FlaxModule`.)
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.layers import Layer, apply, init
from jaxd2l.layers.composites import sibling_names
from jaxd2l.layers.shapes import check_network, check_shape


def as_linen(net: Layer) -> Any:
    """A network as a `flax.linen` module, called as `module(x, train=False)`.

    Its collection "params" holds our parameters and "batch_stats" our statistics, in the trees and
    under the names that `init` gives them, so that trained ones fit as they are:
    `as_linen(net).apply({"params": params, "batch_stats": state}, x)`. With `train=True` the
    statistics change, so "batch_stats" must be mutable, and dropout draws from the stream
    "dropout". New arrays have the dtype of x.

    Shapes:
      x: (n, *input_shape); the result is that of `jaxd2l.apply`, bit for bit.

    Raises:
      TypeError: not a network.

    Source: Flax's convention for modules that normalise and drop out; D2L 6.1.

    Example:
      >>> import flax.linen as nn
      >>> from jaxd2l import layers
      >>> model = nn.Sequential([as_linen(layers.Dense("features", 4)), nn.Dense(2)])
      >>> variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> jax.tree.map(jnp.shape, variables["params"]["layers_0"])
      {'features': {'bias': (4,), 'kernel': (3, 4)}}
    """
    check_network(net)
    return _linen_class()(net)


@functools.cache  # one class, so that equal modules are equal
def _linen_class() -> Any:
    import flax.linen as nn
    from flax.core import unfreeze

    class Network(nn.Module):
        """A jaxd2l network as a linen module."""

        net: Any

        @nn.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            x = jnp.asarray(x)
            new = self.is_initializing()
            if new:
                dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
                made = init(self.net, self.make_rng("params"), x.shape[1:], dtype=dtype)
                params = {name: self.param(name, lambda _, t=t: t) for name, t in made[0].items()}
                state = {
                    name: self.variable("batch_stats", name, lambda t=t: t).value
                    for name, t in made[1].items()
                }
            else:
                own = unfreeze(dict(self.variables))
                params, state = own.get("params", {}), own.get("batch_stats", {})
            random = train and (new or self.has_rng("dropout"))
            key = self.make_rng("dropout") if random else None
            y, updated = apply(self.net, params, state, x, key=key, train=train)
            if train and not new:
                for name, tree in updated.items():
                    self.put_variable("batch_stats", name, tree)
            return y

    return Network


def as_nnx(net: Layer, input_shape: Any, rngs: Any) -> Any:
    """A network as a `flax.nnx` module with new parameters, called as `module(x)`.

    Parameters are `nnx.Param` and statistics `nnx.BatchStat`, at our paths:
    `module.conv1["kernel"]` is `params["conv1"]["kernel"]`, and
    `nnx.update(module, export_nnx(net, params, state))` puts trained ones in. `module.train()`
    (how it starts) and `module.eval()` set its one flag, `deterministic`: batch norm and dropout
    both follow it.

    Args:
      net: the network.
      input_shape: shape of one input, without the batch axis.
      rngs: `nnx.Rngs`; the parameters are drawn from its stream "params", and dropout from a fork
        of "dropout" (or the default stream, as everywhere in nnx). A network without dropout needs
        no such stream: `nnx.Rngs(params=0)`.

    Shapes:
      x: (n, *input_shape); the result is that of `jaxd2l.apply`, bit for bit.

    Raises:
      TypeError: not a network.
      ValueError: a layer has the name of something that nnx modules have, such as "train".

    Source: Flax's convention for modules that normalise and drop out; D2L 6.1.

    Example:
      >>> from flax import nnx
      >>> from jaxd2l import layers
      >>> model = as_nnx(layers.Dense("head", 2), (3,), nnx.Rngs(params=0))
      >>> model(jnp.ones((5, 3))).shape, model.head["kernel"].shape
      ((5, 2), (3, 2))
    """
    check_network(net)
    return _nnx_class()(net, check_shape(input_shape), rngs)


@functools.cache
def _nnx_class() -> Any:
    from flax import nnx

    class Network(nnx.Module):
        """A jaxd2l network as an nnx module."""

        def __init__(self, net: Layer, input_shape: tuple[int, ...], rngs: Any) -> None:
            params, state = init(net, rngs.params(), input_shape)
            self.net = net
            self.deterministic = False
            random = "dropout" in rngs or "default" in rngs
            self.rngs = rngs.dropout.fork() if random else nnx.data(None)
            variables = _merge(
                jax.tree.map(nnx.Param, params), jax.tree.map(nnx.BatchStat, state), nnx.Variable
            )
            for name, tree in variables.items():
                if hasattr(self, name):
                    raise ValueError(
                        f"as_nnx: nnx modules have an attribute {name!r}, so no layer at the top "
                        f"can have this name; put the layers into a Serial with a name"
                    )
                setattr(self, name, nnx.data(tree))

        def __call__(self, x: Any) -> Any:
            names = [name for name in sibling_names(self.net) if hasattr(self, name)]
            variables = {name: getattr(self, name) for name in names}
            params, state = (_values(variables, kind) for kind in (nnx.Param, nnx.BatchStat))
            train = not self.deterministic
            key = self.rngs() if train and self.rngs is not None else None
            y, new = apply(self.net, params, state, x, key=key, train=train)
            if train:
                _store(variables, new)
            return y

        def set_view(self, deterministic: bool | None = None) -> None:
            """What `nnx.view` calls.

            Args:
              deterministic: if True, batch norm uses its running statistics and dropout does
                nothing.
            """
            if deterministic is not None:
                self.deterministic = deterministic

    return Network


def _merge(a: dict[str, Any], b: dict[str, Any], leaf: Any) -> dict[str, Any]:
    """Two nested dicts as one; they share levels but no leaf."""
    out = dict(a)
    for name, value in b.items():
        if name not in out:
            out[name] = value
        elif isinstance(value, leaf) or isinstance(out[name], leaf):
            raise ValueError(f"as_nnx: {name!r} is a parameter and a statistic of one layer")
        else:
            out[name] = _merge(out[name], value, leaf)
    return out


def _values(tree: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The arrays of the variables of one kind, without the levels that have none."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            inner = _values(value, kind)
            if inner:
                out[name] = inner
        elif isinstance(value, kind):
            out[name] = value.get_value()
    return out


def _store(variables: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write `values` into the variables at the same paths."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            _store(variables[name], value)
        else:
            variables[name].set_value(value)
