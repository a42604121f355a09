"""Quantizers without a codebook: each channel is rounded, and the code is read off the channels."""

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.quantizers import losses, ops
from vqjax.quantizers.estimators import EstimatorLike, straight_through
from vqjax.quantizers.quantizer import Quantized, Quantizer

MAX_CODES = 2**30  # a token is an int32
MAX_LEVELS = 2**16  # of one channel; float32 tells neighbours apart up to 2^24
MAX_COUNTED = 2**22  # beyond it usage and perplexity are left out: their counts are [K]


class Lattice(Quantizer):
  """What quantizers without a codebook share."""

  if TYPE_CHECKING:  # the last field of each; one declared here would be the first

    @property
    def estimator(self) -> EstimatorLike: ...

  def _quantized(
    self,
    z: jax.Array,
    q: jax.Array,
    indices: jax.Array,
    mask: jax.Array | None,
    loss: jax.Array,
    terms: dict[str, jax.Array],
  ) -> Quantized:
    """The result of rows `z` and their codes `q` [... D]."""
    if self.num_codes <= MAX_COUNTED:
      counted = None if mask is None else _token_mask(mask, indices).reshape(-1)
      counts = ops.code_counts(indices.reshape(-1), self.num_codes, counted)
      terms = terms | {'perplexity': ops.perplexity(counts), 'usage': ops.usage(counts)}
    return Quantized(z_q=q, indices=indices, loss=loss, metrics=terms)

  def estimate(self, z: jax.Array, q: jax.Array) -> jax.Array:
    return self.estimator(ops.rows(z), ops.rows(q)).reshape(q.shape)


class FSQ(Lattice):
  """Finite scalar quantization: channel i takes one of `levels[i]` values; K is their product.

  `u = (tanh(z + s) h - o) / floor(L/2)`, `h = (L - 1)(1 + 1e-3) / 2`, `o = 1/2` for even L, else
  0, `s = atanh(o / h)`; `q = round(u floor(L/2)) / floor(L/2)`. Mentzer et al., arXiv 2309.15505,
  with the constants of vector-quantize-pytorch (Google's notebook has tan for atanh and 1 - 1e-3:
  values at the edges of a bin differ). No loss, no collapse: there is nothing to learn. Index:
  the first channel is the least significant digit. All arithmetic is float32 and int32, so that
  bfloat16 latents reach every code.

  Attributes:
    levels: at least 3 each (2 if `symmetric`) and at most 2^16; product at most 2^30.
    symmetric: levels evenly over [-1, 1], `u = tanh(z)` (arXiv 2411.19842); allows 2.
    bound: `tanh`, or `soft_clamp` (with `symmetric`): `v tanh(z / v)`, `v = 1 + 1 / (L - 1)`,
      almost the identity inside [-1, 1]; for the residual FSQ of that paper,
      `Residual(FSQ(levels, symmetric=True, bound='soft_clamp'), 2, share=True, scale=...)`.
    estimator: in the space of u.
  """

  levels: tuple[int, ...]
  symmetric: bool = False
  bound: str = 'tanh'
  estimator: EstimatorLike = straight_through

  def __post_init__(self) -> None:
    super().__post_init__()
    smallest = 2 if self.symmetric else 3
    if not self.levels or min(self.levels) < smallest:
      raise ValueError(
        f'FSQ.levels is {self.levels}; legal: at least one, each {smallest} or more'
        + ('.' if self.symmetric else ' (2 with symmetric=True).')
      )
    if max(self.levels) > MAX_LEVELS:
      raise ValueError(f'FSQ.levels is {self.levels}; legal: at most 2^16 in one channel.')
    if math.prod(self.levels) > MAX_CODES:
      raise ValueError(
        f'FSQ.levels is {self.levels}, which makes {math.prod(self.levels)} codes; legal: at most '
        '2^30, so that a token is an int32; split the channels by Grouped.'
      )
    if self.bound not in ('tanh', 'soft_clamp') or (self.bound != 'tanh' and not self.symmetric):
      raise ValueError(
        f'FSQ.bound is {self.bound!r}; legal: tanh, and soft_clamp with symmetric=True.'
      )

  @property
  def num_codes(self) -> int:
    return math.prod(self.levels)

  def enter(self, z: jax.Array) -> jax.Array:
    if z.shape[-1] != len(self.levels):
      raise ValueError(
        f'z has width {z.shape[-1]}; FSQ.levels {self.levels} needs {len(self.levels)}.'
      )
    along = functools.partial(self._along, ndim=z.ndim)
    levels = np.asarray(self.levels)
    if self.bound == 'soft_clamp':
      v = along(1 + 1 / (levels - 1))
      return v * jnp.tanh(z / v)
    if self.symmetric:
      return jnp.tanh(z)
    half, offset = (levels - 1) * (1 + 1e-3) / 2, np.where(levels % 2, 0, 0.5)
    bounded = jnp.tanh(z + along(np.arctanh(offset / half))) * along(half) - along(offset)
    return bounded / along(levels // 2)

  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    digits = jax.lax.stop_gradient(self._digits(z))
    q = self._values(digits)
    indices = jnp.sum(digits * self._along(self._basis, z.ndim, jnp.int32), axis=-1)
    terms = distance_terms(z, q, mask)
    return self._quantized(z, q, indices, mask, jnp.zeros((), jnp.float32), terms)

  def lookup(self, indices: jax.Array) -> jax.Array:
    along = functools.partial(self._along, ndim=indices.ndim + 1, dtype=jnp.int32)
    digits = (indices[..., None] // along(self._basis)) % along(self.levels)
    legal = (indices >= 0) & (indices < self.num_codes)
    return jnp.where(legal[..., None], self._values(digits), jnp.nan)

  @property
  def _basis(self) -> np.ndarray:
    return np.cumprod((1, *self.levels[:-1]))

  def _digits(self, z: jax.Array) -> jax.Array:
    """Level of each channel, int32 in [0, L): any z, such as a residual, gives a legal one."""
    along = functools.partial(self._along, ndim=z.ndim)
    top = along(np.asarray(self.levels) - 1)
    if self.symmetric:
      digits = jnp.floor(top * (z + 1) / 2 + 0.5)
    else:
      half = along(np.asarray(self.levels) // 2)
      digits = jnp.round(z * half) + half
    # NaN survives the clip and would become any integer.
    return jnp.clip(jnp.nan_to_num(digits), 0, top).astype(jnp.int32)

  def _values(self, digits: jax.Array) -> jax.Array:
    along = functools.partial(self._along, ndim=digits.ndim)
    levels, digits = np.asarray(self.levels), digits.astype(jnp.float32)
    if self.symmetric:
      return digits * along(2 / (levels - 1)) - 1
    return (digits - along(levels // 2)) / along(levels // 2)

  def _along(self, values: Any, ndim: int, dtype: Any = jnp.float32) -> jax.Array:
    """Values per channel, to broadcast against [... D] of that rank."""
    return jnp.asarray(values, dtype).reshape((1,) * (ndim - 1) + (-1,))


def distance_terms(z: jax.Array, q: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
  """Distances of rows and codes [... D], as metrics."""
  flat = None if mask is None else mask.reshape(-1)
  return losses.terms('l2', ops.rows(z), ops.rows(q), None, None, flat)


def _token_mask(mask: jax.Array, indices: jax.Array) -> jax.Array:
  """A row's mask [...] for each of its tokens, in the shape of `indices`."""
  extra = indices.ndim - mask.ndim
  return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * extra), indices.shape)
