"""The masked transformer of Halton-MaskGIT.

Besnier et al., Halton Scheduler for Masked Generative Image Transformer (ICLR 2025). With the rows
of the token table `e`, of the positions `p` and of the classes `c = cls_emb[label]`:

    x = [e[symbols] + p; registers]
    x += gate1 * attention(rms(x) (1 + scale1) + shift1)        for every block, with
    x += gate2 * swiglu(rms(x) (1 + scale2) + shift2)           (shift1, ..) = W silu(c) + b
    logits = (rms(x) (1 + scale) + shift) e^T + bias            without the registers

Attention is bidirectional; queries and keys are normalised over all heads together, without a
weight. Parameter names follow the original's keys.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.generation.blocks import RMSNorm, SwiGLU, attend, modulate, part_logits
from vqjax.generation.layout import MASKED, Layout

# The published ones; a head is width // heads wide, so that all together may be narrower (small).
SIZES: dict[str, dict[str, int]] = {
  'tiny': {'width': 384, 'depth': 6, 'heads': 6},
  'small': {'width': 512, 'depth': 12, 'heads': 6},
  'base': {'width': 768, 'depth': 12, 'heads': 12},
  'large': {'width': 1024, 'depth': 24, 'heads': 16},
  'xlarge': {'width': 1152, 'depth': 28, 'heads': 16},
}

_xavier = nn.initializers.xavier_uniform()
_normal = nn.initializers.normal(0.02)


class MaskedTransformer(nn.Module):
  """Symbols [B N], MASKED where unknown, labels [B] -> logits float32 [B N V+1].

  The last class is the mask itself: the original counts it in the loss, where it is never right,
  and lets it be drawn. Each of P > 1 parts of a cell has V + 1 rows of the table and outputs of its
  own.

  Attributes:
    layout: of the symbols.
    num_classes: C; row C of the classes' table is the null class.
    width: D.
    depth: blocks.
    heads: of attention, each D // heads wide.
    registers: learned tokens behind the image's, which only attention reads.
    dropout: of attention's probabilities, its output and the product inside the feed-forward.
    dtype: of the computation; parameters are float32.
  """

  layout: Layout
  num_classes: int
  width: int = 768
  depth: int = 12
  heads: int = 12
  registers: int = 1
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32

  @property
  def has_null(self) -> bool:
    """True: also without classes, where it is the only one."""
    return True

  @nn.compact
  def __call__(self, symbols: jax.Array, labels: jax.Array, *, train: bool = False) -> jax.Array:
    parts, rows = self.layout.parts, self.layout.base + 1
    table = nn.Embed(parts * rows, self.width, embedding_init=_normal, name='tok_emb')
    classes = nn.Embed(
      self.num_classes + 1, self.width, self.dtype, embedding_init=_normal, name='cls_emb'
    )
    positions = self.param('pos_emb', _normal, (self.layout.length, self.width))
    bias = self.param('head_bias', nn.initializers.zeros, (parts * rows,))

    ids = jnp.where(symbols == MASKED, self.layout.base, symbols)
    part = jnp.arange(self.layout.length, dtype=ids.dtype) % parts
    x = table(ids + rows * part[None]) + positions[None]
    if self.registers:
      tail = self.param('reg_tokens', _normal, (self.registers, self.width))
      tail = jnp.broadcast_to(tail[None], (len(x), *tail.shape))
      x = jnp.concatenate([x, tail], axis=1)
    x = x.astype(self.dtype)
    condition = nn.silu(classes(labels))
    for i in range(self.depth):
      x = _Block(self.heads, self.dropout, self.dtype, name=f'layer_{i}')(x, condition, train=train)
    x = x[:, : self.layout.length]
    shift, scale = _modulation(condition, 2, self.width, _xavier, self.dtype, 'last_mlp')
    x = modulate(RMSNorm(use_bias=True, name='last_norm')(x), shift, scale)
    return part_logits(x, table.embedding, bias, parts)


class _Block(nn.Module):
  """A block, [B T D] and the condition's silu [B D] -> [B T D]; changes nothing at first."""

  heads: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, condition: jax.Array, *, train: bool) -> jax.Array:
    shift1, scale1, gate1, shift2, scale2, gate2 = _modulation(
      *(condition, 6, x.shape[-1], nn.initializers.zeros, self.dtype, 'mlp')
    )
    attention = _Attention(self.heads, self.dropout, self.dtype, name='attn')
    x = x + gate1 * attention(modulate(RMSNorm(name='ln1')(x), shift1, scale1), train=train)
    feed_forward = SwiGLU(
      inner_dropout=self.dropout, kernel_init=_xavier, dtype=self.dtype, name='ff'
    )
    return x + gate2 * feed_forward(modulate(RMSNorm(name='ln2')(x), shift2, scale2), train=train)


class _Attention(nn.Module):
  """[B T D] -> [B T D]."""

  heads: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    width = x.shape[-1]
    head = width // self.heads

    def dense(features, name):
      return nn.Dense(features, use_bias=False, kernel_init=_xavier, dtype=self.dtype, name=name)

    q, k, v = (dense(self.heads * head, name)(x) for name in ('wq', 'wk', 'wv'))
    whole = RMSNorm(use_scale=False)
    q, k, v = (y.reshape(*x.shape[:2], self.heads, head) for y in (whole(q), whole(k), v))
    key = self.make_rng('dropout') if train and self.dropout else None
    x = attend(q, k, v, dropout=self.dropout, key=key)
    x = dense(width, 'wo')(x.reshape(*x.shape[:2], -1))
    return nn.Dropout(self.dropout, deterministic=not train)(x)


def _modulation(
  condition: jax.Array, count: int, width: int, init: Any, dtype: DTypeLike, name: str
) -> list[jax.Array]:
  """`count` of [B 1 D], linear in the condition."""
  m = nn.Dense(count * width, kernel_init=init, dtype=dtype, name=name)(condition)
  return jnp.split(m[:, None], count, axis=-1)
