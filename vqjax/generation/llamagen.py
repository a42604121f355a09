"""The causal transformer of LlamaGen.

Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation (2024). A
class, then the symbols in raster order; each place predicts the next symbol. RMSNorm, SwiGLU and
rotary positions as in Llama, without any bias. Module names follow the original's keys:
`layers_3/attention/wqkv` is `layers.3.attention.wqkv`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vqjax.errors import UserError
from vqjax.generation.blocks import RMSNorm, SwiGLU
from vqjax.generation.caches import Cache, attend_causal
from vqjax.generation.layout import Layout

# The published sizes, as fields of `GPT`.
SIZES = {
  'B': {'width': 768, 'depth': 12, 'heads': 12},
  'L': {'width': 1024, 'depth': 24, 'heads': 16},
  'XL': {'width': 1280, 'depth': 36, 'heads': 20},
  'XXL': {'width': 1536, 'depth': 48, 'heads': 24},
  '3B': {'width': 3200, 'depth': 24, 'heads': 32},
  'XXXL': {'width': 2560, 'depth': 48, 'heads': 40},
  '1B': {'width': 2048, 'depth': 22, 'heads': 32},
  '7B': {'width': 4096, 'depth': 32, 'heads': 32},
}

_init = nn.initializers.normal(0.02)


def rotations(layout: Layout, head_dim: int) -> np.ndarray:
  """Cosines and sines of the class and of every symbol: float32 [1 + N, head_dim / 2, 2].

  The angles of cell (r, c) are `r f_i`, then `c f_i`, with `f_i = 10000 ** (-i / (head_dim / 4))`,
  i < head_dim / 4; all parts of a cell have those of the cell. The row of the class is zero, its
  cosines too: queries and keys of the class vanish, as in the original.

  Raises:
    UserError: `head_dim` is no multiple of 4.
  """
  if head_dim % 4:
    raise UserError(
      f'a head is {head_dim} wide; legal: a multiple of 4, for the pairs of two coordinates; '
      'change width or heads.'
    )
  frequencies = 10_000.0 ** (-np.arange(head_dim // 4) / (head_dim // 4))
  cells = np.indices(layout.grid).reshape(2, -1).T.repeat(layout.parts, axis=0)  # [N 2]
  angles = (cells[:, :, None] * frequencies).reshape(len(cells), -1)
  table = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  return np.concatenate([np.zeros_like(table[:1]), table]).astype(np.float32)


def rotate(x: jax.Array, table: jax.Array) -> jax.Array:
  """Turns the pairs of channels (2m, 2m + 1) of x [B T H d] by `table` [T d/2 2], in float32."""
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  a, b = pairs[..., 0], pairs[..., 1]
  cos, sin = table[None, :, None, :, 0], table[None, :, None, :, 1]
  pairs = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
  return pairs.reshape(x.shape).astype(x.dtype)


class Attention(nn.Module):
  """Causal attention of rotated heads, between two projections; fields as in `GPT`."""

  heads: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    table: jax.Array,
    cache: Cache | None,
    index: jax.Array | int,
    *,
    train: bool,
  ) -> tuple[jax.Array, Cache | None]:
    batch, length, width = x.shape

    def dense(x, features, name):
      return nn.Dense(features, use_bias=False, kernel_init=_init, dtype=self.dtype, name=name)(x)

    qkv = dense(x, 3 * width, 'wqkv').reshape(batch, length, 3, self.heads, -1)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    h, cache = attend_causal(rotate(q, table), rotate(k, table), v, cache, index)
    h = dense(h.reshape(batch, length, width), width, 'wo')
    return nn.Dropout(self.dropout, deterministic=not train)(h), cache


class Block(nn.Module):
  """`x += attention(norm(x))`, `x += ffn(norm(x))`, with stochastic depth; fields as in `GPT`."""

  heads: int
  dropout: float
  drop_path: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    table: jax.Array,
    cache: Cache | None = None,
    index: jax.Array | int = 0,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, Cache | None]:
    path = nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not train)
    attention = Attention(self.heads, self.dropout, self.dtype, name='attention')
    h, cache = attention(RMSNorm(name='attention_norm')(x), table, cache, index, train=train)
    x = x + path(h)
    ffn = SwiGLU(dropout=self.dropout, dtype=self.dtype, name='feed_forward')
    return x + path(ffn(RMSNorm(name='ffn_norm')(x), train=train)), cache


class GPT(nn.Module):
  """LlamaGen's class-conditional transformer: `contracts.Causal`.

  With P > 1 parts a symbol has a row of its own in each part's table and each part a head of its
  own; all heads are computed and that of the part is kept.

  Attributes:
    layout: of the tokens.
    num_classes: C; class C is the null class.
    width: D.
    depth: layers.
    heads: of attention, which divide D into multiples of 4.
    token_dropout: of the embeddings, the class's too.
    dropout: of what attention and feed-forward put out.
    drop_path: stochastic depth of the last layer, per image; growing linearly from 0 at the first.
      The published recipe sets `dropout` to 0 where it has this.
    dtype: of the computation; parameters and logits are float32.
  """

  layout: Layout
  num_classes: int
  width: int = 768
  depth: int = 12
  heads: int = 12
  token_dropout: float = 0.0
  dropout: float = 0.0
  drop_path: float = 0.0
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    rows = self.layout.parts * self.layout.base
    embed = lambda rows: nn.Embed(rows, self.width, embedding_init=_init, dtype=self.dtype)
    self.cls_embedding = embed(self.num_classes + 1)
    self.tok_embeddings = embed(rows)
    rates = np.linspace(0, self.drop_path, self.depth).tolist()
    self.layers = [Block(self.heads, self.dropout, rate, self.dtype) for rate in rates]
    self.norm = RMSNorm()
    # From zeros: at first every symbol is as likely as any.
    self.output = nn.Dense(
      rows, use_bias=False, kernel_init=nn.initializers.zeros, dtype=self.dtype
    )
    self.embedding_dropout = nn.Dropout(self.token_dropout)
    self.table = rotations(self.layout, self.width // self.heads)

  @property
  def has_null(self) -> bool:
    """Always: row C of the classes."""
    return True

  def __call__(self, symbols: jax.Array, labels: jax.Array, *, train: bool = False) -> jax.Array:
    """Symbols [B N], labels [B] -> logits [B N V]; see `contracts.Causal`."""
    places = jnp.arange(self.layout.length)
    tokens = self.tok_embeddings(self.layout.rows(symbols, places)[:, :-1])
    x = jnp.concatenate([self.cls_embedding(labels)[:, None], tokens], axis=1)
    x = self.embedding_dropout(x, deterministic=not train)
    for layer in self.layers:
      x, _ = layer(x, jnp.asarray(self.table[:-1]), train=train)
    return self._logits(x, places)

  def start(self, labels: jax.Array) -> tuple[jax.Array, tuple[Cache, ...]]:
    """See `contracts.Causal`."""
    empty = Cache.empty(len(labels), self.layout.length, self.heads, self.width, self.dtype)
    return self._next(self.cls_embedding(labels), 0, (empty,) * self.depth)

  def step(
    self, symbols: jax.Array, index: jax.Array, cache: tuple[Cache, ...]
  ) -> tuple[jax.Array, tuple[Cache, ...]]:
    """See `contracts.Causal`."""
    rows = self.layout.rows(symbols[:, None], index)
    return self._next(self.tok_embeddings(rows)[:, 0], index + 1, cache)

  def _next(self, x, index, caches):
    """The embedding [B D] of place `index` of the sequence -> (logits [B V], the caches)."""
    table = jax.lax.dynamic_slice_in_dim(jnp.asarray(self.table), index, 1)
    x, kept = x[:, None], []
    for layer, cache in zip(self.layers, caches, strict=True):
      x, cache = layer(x, table, cache, index)
      kept.append(cache)
    return self._logits(x, jnp.asarray(index)[None])[:, 0], tuple(kept)

  def _logits(self, x, places):
    """Outputs [B n D] that predict the symbols at these places [n] -> logits [B n V]."""
    logits = self.output(self.norm(x)).astype(jnp.float32)
    return self.layout.of_places(logits, places)
