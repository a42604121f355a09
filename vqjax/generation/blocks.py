"""What the transformers over tokens are built of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class RMSNorm(nn.Module):
  """`x / sqrt(mean(x^2) + eps)`, times a weight and plus a bias, where it has them; [... D].

  Zhang and Sennrich, Root Mean Square Layer Normalization (NeurIPS 2019). The mean is float32; the
  quotient returns to the type of `x` before the weight, as in LlamaGen.
  """

  eps: float = 1e-5
  use_scale: bool = True
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
    y = y.astype(x.dtype)
    shape, lead = x.shape[-1:], (1,) * (x.ndim - 1)
    if self.use_scale:
      scale = self.param('scale', nn.initializers.ones, shape)
      y = y * scale.astype(x.dtype).reshape(*lead, -1)
    if self.use_bias:
      bias = self.param('bias', nn.initializers.zeros, shape)
      y = y + bias.astype(x.dtype).reshape(*lead, -1)
    return y


class SwiGLU(nn.Module):
  """`w2(silu(w1 x) * w3 x)` without biases; Shazeer, GLU Variants Improve Transformer (2020).

  The hidden width is two thirds of 4 D, rounded up to a multiple of 256, as in LlamaGen and
  Halton-MaskGIT.

  Attributes:
    dropout: of the output.
    inner_dropout: of the product, before w2.
    kernel_init: of all three.
    dtype: of the computation.
  """

  dropout: float = 0.0
  inner_dropout: float = 0.0
  kernel_init: Any = nn.initializers.normal(0.02)
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    width = x.shape[-1]

    def dense(features, name):
      return nn.Dense(
        features, use_bias=False, kernel_init=self.kernel_init, dtype=self.dtype, name=name
      )

    hidden = swiglu_width(width)
    h = nn.silu(dense(hidden, 'w1')(x)) * dense(hidden, 'w3')(x)
    h = nn.Dropout(self.inner_dropout, deterministic=not train)(h)
    h = dense(width, 'w2')(h)
    return nn.Dropout(self.dropout, deterministic=not train)(h)


def swiglu_width(width: int) -> int:
  """Hidden width of `SwiGLU` at a width D: int(8 D / 3), rounded up to a multiple of 256."""
  return -(-int(2 * 4 * width / 3) // 256) * 256


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  causal: bool = False,
  mask: jax.Array | None = None,
  dropout: float = 0.0,
  key: jax.Array | None = None,
) -> jax.Array:
  """Attention of heads: q [B T H d], k and v [B S H d] -> [B T H d], logits times d^-0.5.

  Args:
    q: queries.
    k: keys.
    v: values.
    causal: query t sees keys 0..t alone.
    mask: bool, to be broadcast to [B H T S]: True where a query sees a key.
    dropout: of probabilities, where there is a `key`; without it the fused path is taken.
    key: typed key [].
  """
  if key is None or not dropout:
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)
  if causal:
    seen = nn.make_causal_mask(jnp.zeros((1, q.shape[1])), dtype=jnp.bool_)
    mask = seen if mask is None else seen & mask
  return nn.dot_product_attention(
    *(q, k, v),
    mask=mask,
    dropout_rng=key,
    dropout_rate=dropout,
    broadcast_dropout=False,
    deterministic=False,
    force_fp32_for_softmax=True,
  )


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
  """`x (1 + scale) + shift`, of [B T D] and [B 1 D] or [B T D] (Peebles and Xie, DiT, 2023)."""
  return x * (1 + scale) + shift


def part_logits(x: jax.Array, table: jax.Array, bias: jax.Array, parts: int) -> jax.Array:
  """Logits float32 [B N V] of states [B N D] by rows of a table [P V D], part after part.

  Symbol j is part j mod P of its cell: its logits are `x_j table[j mod P]^T + bias[j mod P]`.

  Args:
    x: states, in the type that the product is computed in.
    table: [P*V D].
    bias: [P*V].
    parts: P.
  """
  batch, length, width = x.shape
  x = x.reshape(batch, length // parts, parts, width)
  table = table.reshape(parts, -1, width).astype(x.dtype)
  y = jnp.einsum('bcpd,pvd->bcpv', x, table, preferred_element_type=jnp.float32)
  y = y + bias.reshape(1, 1, parts, -1)
  return y.reshape(batch, length, -1)
