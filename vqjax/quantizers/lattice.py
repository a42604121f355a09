"""Quantizers without a codebook: each channel is rounded, and the code is read off the channels."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.quantizers import losses, ops
from vqjax.quantizers.estimators import straight_through
from vqjax.quantizers.quantizer import Quantized, Quantizer

MAX_CODES = 2**30  # a token is an int32
MAX_LEVELS = 2**16  # of one channel; float32 tells neighbours apart up to 2^24
MAX_COUNTED = 2**22  # beyond it usage and perplexity are left out: their counts are [K]


class Lattice(Quantizer):
  """What quantizers without a codebook share."""

  def _quantized(self, z, q, indices, mask, loss, terms):
    """The result of rows `z` and their codes `q` [... D]."""
    if self.num_codes <= MAX_COUNTED:
      counted = None if mask is None else _token_mask(mask, indices).reshape(-1)
      counts = ops.code_counts(indices.reshape(-1), self.num_codes, counted)
      terms = terms | {'perplexity': ops.perplexity(counts), 'usage': ops.usage(counts)}
    return Quantized(z_q=q, indices=indices, loss=loss, metrics=terms)

  def estimate(self, z, q):
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
  estimator: Callable = straight_through

  def __post_init__(self):
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
  def num_codes(self):
    return math.prod(self.levels)

  def enter(self, z):
    if z.shape[-1] != len(self.levels):
      raise ValueError(
        f'z has width {z.shape[-1]}; FSQ.levels {self.levels} needs {len(self.levels)}.'
      )
    along = lambda values: self._along(values, z.ndim)
    levels = np.asarray(self.levels)
    if self.bound == 'soft_clamp':
      v = along(1 + 1 / (levels - 1))
      return v * jnp.tanh(z / v)
    if self.symmetric:
      return jnp.tanh(z)
    half, offset = (levels - 1) * (1 + 1e-3) / 2, np.where(levels % 2, 0, 0.5)
    bounded = jnp.tanh(z + along(np.arctanh(offset / half))) * along(half) - along(offset)
    return bounded / along(levels // 2)

  def select(self, z, *, train, mask=None, observe=True):
    digits = jax.lax.stop_gradient(self._digits(z))
    q = self._values(digits)
    indices = jnp.sum(digits * self._along(self._basis, z.ndim, jnp.int32), axis=-1)
    terms = _terms(z, q, mask)
    return self._quantized(z, q, indices, mask, jnp.zeros((), jnp.float32), terms)

  def lookup(self, indices):
    along = lambda values: self._along(values, indices.ndim + 1, jnp.int32)
    digits = (indices[..., None] // along(self._basis)) % along(self.levels)
    legal = (indices >= 0) & (indices < self.num_codes)
    return jnp.where(legal[..., None], self._values(digits), jnp.nan)

  @property
  def _basis(self):
    return np.cumprod((1, *self.levels[:-1]))

  def _digits(self, z):
    """Level of each channel, int32 in [0, L): any z, such as a residual, gives a legal one."""
    along = lambda values: self._along(values, z.ndim)
    top = along(np.asarray(self.levels) - 1)
    if self.symmetric:
      digits = jnp.floor(top * (z + 1) / 2 + 0.5)
    else:
      half = along(np.asarray(self.levels) // 2)
      digits = jnp.round(z * half) + half
    # NaN survives the clip and would become any integer.
    return jnp.clip(jnp.nan_to_num(digits), 0, top).astype(jnp.int32)

  def _values(self, digits):
    along = lambda values: self._along(values, digits.ndim)
    levels, digits = np.asarray(self.levels), digits.astype(jnp.float32)
    if self.symmetric:
      return digits * along(2 / (levels - 1)) - 1
    return (digits - along(levels // 2)) / along(levels // 2)

  def _along(self, values, ndim, dtype=jnp.float32):
    """Values per channel, to broadcast against [... D] of that rank."""
    return jnp.asarray(values, dtype).reshape((1,) * (ndim - 1) + (-1,))


class LFQ(Lattice):
  """Lookup-free quantization: the code is the sign of every channel; K = 2^bits.

  `q = scale sign(z)` (0 goes to -), the first channel the most significant bit. With
  `p_n = softmax_k(2 tau z_n . c_k)` over all codes the loss is
  `entropy_weight (mean_n H(p_n) - gamma H(mean_n p_n)) + commitment_weight mean((z - sg q)^2)`.
  Yu et al., MAGVIT-v2 (arXiv 2310.05737), equations 3 to 5; constants of vector-quantize-pytorch.

  `H(p_n)` is exact for any number of bits, since p_n factorises over them. `H(mean_n p_n)` is
  exact up to `entropy_bits` bits; beyond, the bits are cut into groups of at most so many and
  their entropies added, an upper bound, as BSQ and MAGVIT-v2 do. A row takes 2^(entropy_bits / 2)
  numbers. The logarithm has a floor, as the original's: it bounds the pull on a code not in use.
  Deviation: beyond 9 bits a group it is not 1e-5 but 2^-(bits + 7), or equal use of 2^17 codes
  would have no gradient. Metrics besides: `sample_entropy`, `code_entropy` (nats); `perplexity`
  and `usage` up to 2^22 codes.

  Attributes:
    bits: width of z.
    scale: of the codes, above 0.
    tokens: a row is written as so many tokens of bits / tokens bits, at most 30 each; more than
      one append an axis to the indices.
    commitment_weight: MAGVIT-v2 has 0.25.
    entropy_weight: MAGVIT-v2 has 0.1.
    diversity_gamma: gamma.
    inverse_temperature: tau.
    entropy_bits: see above; 1 to 20. 18 makes the loss of an 18-bit MAGVIT-v2 exact.
    estimator: in the space of `enter`.
  """

  bits: int
  scale: float = 1.0
  tokens: int = 1
  commitment_weight: float = 0.0
  entropy_weight: float = 0.1
  diversity_gamma: float = 1.0
  inverse_temperature: float = 100.0
  entropy_bits: int = 10
  estimator: Callable = straight_through

  def __post_init__(self):
    super().__post_init__()
    kind = type(self).__name__
    if self.bits < 1:
      raise ValueError(f'{kind}.bits is {self.bits}; legal: at least 1.')
    if self.tokens < 1 or self.bits % self.tokens or self.bits // self.tokens > 30:
      raise ValueError(
        f'{kind}.tokens is {self.tokens}; legal: divisors of bits={self.bits} that leave at most '
        '30 bits a token.'
      )
    if not 1 <= self.entropy_bits <= 20:
      raise ValueError(f'{kind}.entropy_bits is {self.entropy_bits}; legal: 1 to 20.')
    for field in ('scale', 'inverse_temperature'):
      if getattr(self, field) <= 0:
        raise ValueError(f'{kind}.{field} is {getattr(self, field)}; legal: above 0.')

  @property
  def num_codes(self):
    return 2 ** (self.bits // self.tokens)

  @property
  def token_axes(self):
    return int(self.tokens > 1)

  @property
  def level(self):
    """Absolute value of a code's channels."""
    return self.scale

  def enter(self, z):
    if z.shape[-1] != self.bits:
      kind = type(self).__name__
      raise ValueError(f'z has width {z.shape[-1]}; {kind}.bits={self.bits} needs {self.bits}.')
    return z

  def select(self, z, *, train, mask=None, observe=True):
    signs = jax.lax.stop_gradient(z > 0)
    q = jnp.where(signs, self.level, -self.level).astype(jnp.float32)
    bits = signs.reshape(*z.shape[:-1], self.tokens, -1).astype(jnp.int32)
    weights = 2 ** jnp.arange(bits.shape[-1], dtype=jnp.int32)[::-1]
    indices = jnp.sum(bits * weights.reshape((1,) * (bits.ndim - 1) + (-1,)), axis=-1)
    indices = indices if self.tokens > 1 else indices[..., 0]
    flat_mask = None if mask is None else mask.reshape(-1)
    sample, code = self._entropies(ops.rows(z), flat_mask)
    terms = _terms(z, q, mask) | {'sample_entropy': sample, 'code_entropy': code}
    loss = self.entropy_weight * (sample - self.diversity_gamma * code)
    loss = loss + self.commitment_weight * terms['commitment']
    return self._quantized(z, q, indices, mask, loss, terms)

  def lookup(self, indices):
    tokens = indices if self.tokens > 1 else indices[..., None]
    shifts = jnp.arange(self.bits // self.tokens, dtype=jnp.int32)[::-1]
    bits = (tokens[..., None] >> shifts.reshape((1,) * tokens.ndim + (-1,))) & 1
    q = jnp.where(bits == 1, self.level, -self.level).astype(jnp.float32)
    legal = (tokens >= 0) & (tokens < self.num_codes)
    q = jnp.where(legal[..., None], q, jnp.nan)
    return q.reshape(*q.shape[:-2], self.bits)

  def _entropies(self, x, mask):
    """(mean of the rows' entropies, entropy of the mean), of rows [N bits], in nats."""
    logits = 4 * self.inverse_temperature * self.level * x  # of + against -
    p = jax.nn.sigmoid(logits)
    sample = ops.masked_mean(jnp.sum(ops.bit_entropy(logits), axis=-1, keepdims=True), mask)
    code = jnp.zeros((), jnp.float32)
    for start in range(0, self.bits, self.entropy_bits):
      group = p[:, start : start + self.entropy_bits]
      floor = min(1e-5, 2.0 ** -(group.shape[1] + 7))
      code = code + ops.entropy(_mean_joint(group, mask), floor)
    return sample, code


class BSQ(LFQ):
  """Binary spherical quantization: signs on a sphere, `q = scale sign(z) / sqrt(bits)`.

  As LFQ after `scale z / |z|`, with gradient. Zhao et al., arXiv 2406.07548, with scale 1.
  """

  @property
  def level(self):
    return self.scale * self.bits**-0.5

  def enter(self, z):
    return self.scale * ops.unit(super().enter(z))


def _mean_joint(p, mask):
  """Mean over rows of the joint distribution of independent bits: p [N bits] -> [2^bits].

  The mean of outer products is one product of the two halves' joints: a row takes 2^(bits/2).
  """
  half = p.shape[1] // 2
  mask = jnp.ones(p.shape[:1], bool) if mask is None else mask
  first = jnp.where(mask[:, None], _joint(p[:, :half]), 0)
  sums = jnp.matmul(first.T, _joint(p[:, half:]), precision=jax.lax.Precision.HIGHEST)
  return sums.reshape(-1) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)


def _joint(p):
  """Joint distribution of independent bits: [N bits] -> [N 2^bits]."""
  joint = jnp.ones((p.shape[0], 1), jnp.float32)
  for i in range(p.shape[1]):
    pair = jnp.stack([1 - p[:, i], p[:, i]], axis=-1)
    joint = (joint[:, :, None] * pair[:, None]).reshape(p.shape[0], -1)
  return joint


def _terms(z, q, mask):
  flat = None if mask is None else mask.reshape(-1)
  return losses.terms('l2', ops.rows(z), ops.rows(q), None, None, flat)


def _token_mask(mask, indices):
  """A row's mask [...] for each of its tokens, in the shape of `indices`."""
  extra = indices.ndim - mask.ndim
  return jnp.broadcast_to(mask.reshape(mask.shape + (1,) * extra), indices.shape)
