"""The layer of self-attention: every position of a sequence looks at the others."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.geometry import as_int
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    check_flags,
    check_initializers,
    check_name,
)
from jaxd2l.ops import attention, initializers
from jaxd2l.records import as_float, record


@record
class SelfAttention(Layer):
    """Multi-head attention of a sequence to itself, with as many features out as in.

    With `causal` a position sees itself and what is before it; then the layer has a carry, the keys
    and values so far, and a sequence can be extended. Padding (`Context.lengths`) is never seen.

    Args:
      heads: how many; the features are divided over them.
      causal: whether positions are hidden from those before them.
      rotary: base of rotary positions (10000.0 in the paper), None for no positions.
      dropout: fraction of the attention weights dropped in training.

    Shapes: (n, t, d) -> (n, t, d) with e = d / heads; query_kernel, key_kernel, value_kernel
    (d, heads, e), output_kernel (heads, e, d), biases (heads, e) and (d,). The carry is `key`,
    `value` (n, length, heads, e) and `position` (n,).

    Source: Vaswani et al. 2017; D2L 11.5, 11.6.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(SelfAttention("attention", 4, causal=True), (35, 64)).parameters
      16640
    """

    name: str
    heads: int
    causal: bool = False
    rotary: float | None = None
    dropout: float = 0.0
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()

    def __post_init__(self) -> None:
        check_name(self.name, "SelfAttention")
        check_flags(self, "causal", "bias")
        check_initializers(self, "kernel_init")
        object.__setattr__(self, "heads", as_int(self.heads, "SelfAttention: heads", 1))
        rate = as_float(self.dropout, "SelfAttention: dropout (the fraction dropped)", 0, 1)
        object.__setattr__(self, "dropout", rate)
        if self.rotary is not None:
            base = as_float(self.rotary, "SelfAttention: rotary (a base)", 1)
            object.__setattr__(self, "rotary", base)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ValueError(f"SelfAttention needs sequences (t, features), got {input_shape}")
        if input_shape[1] % self.heads:
            raise ValueError(
                f"SelfAttention {self.name!r}: {input_shape[1]} features cannot be divided over "
                f"{self.heads} heads"
            )
        if self.rotary is not None and self._head(input_shape)[1] % 2:
            raise ValueError(
                f"SelfAttention {self.name!r}: rotary positions take the features of a head in "
                f"pairs, but {input_shape[1]} features over {self.heads} heads are "
                f"{self._head(input_shape)[1]} each"
            )
        return input_shape

    def _head(self, input_shape: Shape) -> tuple[int, int]:
        return self.heads, input_shape[-1] // self.heads

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        d, (heads, e) = input_shape[-1], self._head(input_shape)
        inward = Parameter((d, heads, e), self.kernel_init, (d, d))
        declared = {f"{name}_kernel": inward for name in ("query", "key", "value")}
        declared["output_kernel"] = Parameter((heads, e, d), self.kernel_init, (d, d))
        if self.bias:
            zeros = initializers.Constant(0.0)
            declared |= {
                f"{name}_bias": Parameter((heads, e), zeros) for name in ("query", "key", "value")
            }
            declared["output_bias"] = Parameter((d,), zeros)
        return declared

    def carry(
        self, input_shape: Shape, length: int | None, dtype: Any
    ) -> dict[str, jax.ShapeDtypeStruct]:
        if not self.causal:
            return {}
        if length is None:
            raise ValueError(
                "initial_carry: attention needs length=..., how many positions its cache must hold"
            )
        entries = jax.ShapeDtypeStruct((length, *self._head(input_shape)), dtype)
        return {
            "key": entries,
            "value": entries,
            "position": jax.ShapeDtypeStruct((), jnp.int32),
        }

    def macs(self, input_shape: Shape) -> int | None:
        t, d = input_shape
        return 4 * t * d * d

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        weights = attention.HeadWeights(
            **{name.removesuffix("_kernel"): value for name, value in params.items()}
        )
        drops = context.train and self.dropout > 0
        cache = None
        if "position" in state:
            cache = attention.Cache(state["key"], state["value"], state["position"])
        y, cache = attention.multi_head_attention(
            x,
            x,
            x,
            weights,
            causal=self.causal,
            lengths=context.lengths,
            rotary=self.rotary,
            dropout=self.dropout if drops else 0.0,
            dropout_key=context.key if drops else None,
            examples=context.examples,
            cache=cache,
        )
        return y, (state if cache is None else {**state, **cache._asdict()})
