"""The causal transformer of RAR.

Yu et al., Randomized Autoregressive Visual Generation (2024), as bytedance/1d-tokenizer publishes
it. The sequence is a learned token, the class, then the symbols in an order that training draws for
each image and sampling keeps to raster. Each place knows by a table which place it predicts. Blocks
are those of DiT (adaLN-Zero) with LayerNorm on the queries and keys of each head. Parameter names
follow the original's keys: `blocks_3/attn/qkv` is `blocks.3.attn.qkv`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.generation.blocks import modulate
from vqjax.generation.caches import Cache, attend_causal
from vqjax.generation.layout import Layout

# The published sizes, as fields of `RAR`.
SIZES = {
  'B': {'width': 768, 'depth': 24, 'heads': 16, 'mlp_width': 3072},
  'L': {'width': 1024, 'depth': 24, 'heads': 16, 'mlp_width': 4096},
  'XL': {'width': 1280, 'depth': 32, 'heads': 16, 'mlp_width': 5120},
  'XXL': {'width': 1408, 'depth': 40, 'heads': 16, 'mlp_width': 6144},
}

# The original's tables have more rows than a sequence has places, and its files hold them.
SPARE_POSITIONS, SPARE_STEPS = 1024, 100

_init = nn.initializers.normal(0.02)
_FIRST = 2  # places before the first symbol


def _layer_norm(dtype: DTypeLike, name: str | None = None, affine: bool = True) -> nn.LayerNorm:
  return nn.LayerNorm(
    1e-6, dtype, use_bias=affine, use_scale=affine, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Causal attention of heads with normed queries and keys; fields as in `RAR`."""

  heads: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: jax.Array, cache: Cache | None, index: jax.Array | int, *, train: bool
  ) -> tuple[jax.Array, Cache | None]:
    batch, length, width = x.shape
    qkv = nn.Dense(3 * width, kernel_init=_init, dtype=self.dtype, name='qkv')(x)
    qkv = qkv.reshape(batch, length, 3, self.heads, -1)
    q = _layer_norm(self.dtype, 'q_norm')(qkv[:, :, 0])
    k = _layer_norm(self.dtype, 'k_norm')(qkv[:, :, 1])
    key = self.make_rng('dropout') if train and self.dropout else None
    h, cache = attend_causal(q, k, qkv[:, :, 2], cache, index, dropout=self.dropout, key=key)
    h = h.reshape(batch, length, width)
    h = nn.Dense(width, kernel_init=_init, dtype=self.dtype, name='proj')(h)
    return nn.Dropout(self.dropout, deterministic=not train)(h), cache


class Block(nn.Module):
  """`x += gate attn(modulated norm(x))`, then the feed-forward likewise; fields as in `RAR`."""

  heads: int
  mlp_width: int
  dropout: float
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    condition: jax.Array,
    cache: Cache | None = None,
    index: jax.Array | int = 0,
    *,
    train: bool = False,
  ) -> tuple[jax.Array, Cache | None]:
    width = x.shape[-1]
    drop = nn.Dropout(self.dropout, deterministic=not train)

    def dense(x, features, name, init=_init):
      return nn.Dense(features, kernel_init=init, dtype=self.dtype, name=name)(x)

    m = dense(nn.silu(condition), 6 * width, 'adaLN_modulation', nn.initializers.zeros)
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(m, 6, axis=-1)
    h = modulate(_layer_norm(self.dtype, 'norm1')(x), shift1, scale1)
    h, cache = Attention(self.heads, self.dropout, self.dtype, name='attn')(
      h, cache, index, train=train
    )
    x = x + gate1 * h
    h = modulate(_layer_norm(self.dtype, 'norm2')(x), shift2, scale2)
    h = drop(nn.gelu(dense(h, self.mlp_width, 'mlp_fc1'), approximate=False))
    return x + gate2 * drop(dense(h, width, 'mlp_fc2')), cache


class RAR(nn.Module):
  """RAR's class-conditional transformer: `contracts.Causal`.

  Parts of a cell as in `llamagen.GPT`.

  Deviation: the original also puts out logits behind the last symbol, which predict nothing.

  Attributes:
    layout: of the tokens.
    num_classes: C; class C is the null class. Classes stand behind the codes in one table.
    width: D.
    depth: blocks.
    heads: of attention, which divide D.
    mlp_width: hidden width of the feed-forward.
    dropout: of attention's probabilities, its output, and both layers of the feed-forward.
    dtype: of the computation; parameters and logits are float32.
  """

  layout: Layout
  num_classes: int
  width: int = 768
  depth: int = 24
  heads: int = 16
  mlp_width: int = 3072
  dropout: float = 0.0
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    rows, length = self.layout.parts * self.layout.base, self.layout.length
    table = lambda name, count: self.param(name, _init, (1, count, self.width))
    self.embeddings = nn.Embed(  # of the symbols, a mask that nothing uses, the classes and null
      rows + self.num_classes + 2, self.width, embedding_init=_init, dtype=self.dtype
    )
    self.cls_token = self.param('cls_token', nn.initializers.zeros, (1, 1, self.width))
    self.pos_embed = table('pos_embed', length + SPARE_POSITIONS)
    self.target_aware_pos_embed = table('target_aware_pos_embed', length + SPARE_POSITIONS)
    self.timesteps_embeddings = table('timesteps_embeddings', length + SPARE_STEPS)
    self.blocks = [
      Block(self.heads, self.mlp_width, self.dropout, self.dtype) for _ in range(self.depth)
    ]
    self.last_norm = _layer_norm(self.dtype, affine=False)
    self.adaln_before_head = nn.Dense(
      2 * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype
    )
    self.lm_head = nn.Dense(rows, kernel_init=_init, dtype=self.dtype)

  @property
  def has_null(self) -> bool:
    """Always: the last row of the embeddings."""
    return True

  def __call__(
    self,
    symbols: jax.Array,
    labels: jax.Array,
    *,
    train: bool = False,
    orders: jax.Array | None = None,
  ) -> jax.Array:
    """Symbols [B N], labels [B] -> logits [B N V]; see `contracts.Causal`.

    With `orders` int32 [B N], the place that an image's j-th symbol stands at, symbols are visited
    in that order: logits j are of the symbol at place orders[j].
    """
    batch, length = symbols.shape
    places = jnp.arange(length)[None] if orders is None else orders
    if orders is not None:
      symbols = jnp.take_along_axis(symbols, orders, axis=1)
    condition = self._condition(labels)
    rows = self.layout.rows(symbols, jnp.broadcast_to(places, symbols.shape))
    first = jnp.broadcast_to(self.cls_token.astype(self.dtype), (batch, 1, self.width))
    x = jnp.concatenate([first, condition[:, None], self.embeddings(rows[:, :-1])], axis=1)
    x = x + self._positions(places)
    c = condition[:, None] + self.timesteps_embeddings[:, : length + 1].astype(self.dtype)
    for block in self.blocks:
      x, _ = block(x, c, train=train)
    return self._logits(x[:, 1:], c[:, 1:], places)

  def start(self, labels: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """See `contracts.Causal`."""
    batch, length = len(labels), self.layout.length
    condition = self._condition(labels)
    first = jnp.broadcast_to(self.cls_token.astype(self.dtype), (batch, 1, self.width))
    x = jnp.concatenate([first, condition[:, None]], axis=1)
    x = x + self._positions(jnp.arange(1)[None])
    empty = Cache.empty(batch, length + 1, self.heads, self.width, self.dtype)
    return self._next(x, 0, {'condition': condition, 'layers': (empty,) * self.depth})

  def step(
    self, symbols: jax.Array, index: jax.Array, cache: dict[str, Any]
  ) -> tuple[jax.Array, dict[str, Any]]:
    """See `contracts.Causal`."""
    x = self.embeddings(self.layout.rows(symbols[:, None], index))
    here = jax.lax.dynamic_slice_in_dim(self.pos_embed, index + _FIRST, 1, axis=1)
    to = jax.lax.dynamic_slice_in_dim(self.target_aware_pos_embed, index + 1 + _FIRST, 1, axis=1)
    return self._next(x + (here + to).astype(self.dtype), index + _FIRST, cache)

  def _condition(self, labels):
    """Labels [B] -> their embeddings [B D]."""
    return self.embeddings(self.layout.parts * self.layout.base + 1 + labels)

  def _positions(self, places):
    """Places [B N] of the symbols in the order of visits -> [B 1+N D] of all but the last."""
    here = jnp.pad(places[:, :-1] + _FIRST, [(0, 0), (1, 0)], constant_values=1)
    x = jnp.take(self.pos_embed[0], here, axis=0)
    x = x + jnp.take(self.target_aware_pos_embed[0], places + _FIRST, axis=0)
    first = jnp.broadcast_to(self.pos_embed[:, :1], (len(x), 1, self.width))
    return jnp.concatenate([first, x], axis=1).astype(self.dtype)

  def _next(self, x, index, cache):
    """Embeddings [B T D] that stand at `index` of the sequence -> (logits [B V], the cache)."""
    steps = jax.lax.dynamic_slice_in_dim(self.timesteps_embeddings, index, x.shape[1], axis=1)
    c = cache['condition'][:, None] + steps.astype(self.dtype)
    kept = []
    for block, layer in zip(self.blocks, cache['layers'], strict=True):
      x, layer = block(x, c, layer, index)
      kept.append(layer)
    place = jnp.asarray(index + x.shape[1] - _FIRST)[None]
    logits = self._logits(x[:, -1:], c[:, -1:], place)[:, 0]
    return logits, {'condition': cache['condition'], 'layers': tuple(kept)}

  def _logits(self, x, condition, places):
    """Outputs [B n D] that predict the symbols at these places -> logits [B n V]."""
    # The scale stands first here, the shift in the blocks.
    scale, shift = jnp.split(self.adaln_before_head(nn.silu(condition)), 2, axis=-1)
    x = modulate(self.last_norm(x), shift, scale)
    logits = self.lm_head(x).astype(jnp.float32)
    return self.layout.of_places(logits, jnp.broadcast_to(places, logits.shape[:-1]))
