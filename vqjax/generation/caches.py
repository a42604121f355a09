"""Causal attention over all places at once, or over one after another with what was seen kept."""

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.generation.blocks import attend


@flax.struct.dataclass
class Cache:
  """Keys and values of the S places of a sequence, of one layer; zeros where none was seen yet.

  Attributes:
    keys: [B S H d].
    values: [B S H d].
  """

  keys: jax.Array
  values: jax.Array

  @classmethod
  def empty(cls, batch: int, length: int, heads: int, width: int, dtype: DTypeLike) -> 'Cache':
    """A cache of zeros; `width` is that of all heads."""
    zeros = jnp.zeros((batch, length, heads, width // heads), dtype)
    return cls(zeros, zeros)


def attend_causal(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  cache: Cache | None = None,
  index: jax.Array | int = 0,
  *,
  dropout: float = 0.0,
  key: jax.Array | None = None,
) -> tuple[jax.Array, Cache | None]:
  """Attention of T places to those before them: q, k, v [B T H d] -> ([B T H d], the cache).

  Without a cache the T places are the sequence; with one they stand at `index` of it, and all that
  stands before is in the cache. `dropout` and `key` as in `attend`; a cache has none.
  """
  if cache is None:
    return attend(q, k, v, causal=True, dropout=dropout, key=key), None
  put = lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new, index, axis=1)
  cache = Cache(put(cache.keys, k), put(cache.values, v))
  seen = jnp.arange(cache.keys.shape[1])[None] <= index + jnp.arange(q.shape[1])[:, None]
  return attend(q, cache.keys, cache.values, mask=seen[None, None]), cache
