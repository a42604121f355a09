"""Quantizers that keep the sign of every channel: a code is a row of bits."""

import math

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.estimators import EstimatorLike, straight_through
from vqjax.quantizers.lattice import Lattice, distance_terms
from vqjax.quantizers.quantizer import Quantized


class LFQ(Lattice):
  """Lookup-free quantization: the code is the sign of every channel; K = 2^bits.

  `q = scale sign(z)`, where 0 counts as negative; the first channel the most significant bit. With
  `p_n = softmax_k(2 tau z_n . c_k)` over all codes the loss is
  `entropy_weight (mean_n H(p_n) - gamma H(mean_n p_n)) + commitment_weight mean((z - sg q)^2)`.
  Yu et al., MAGVIT-v2 (arXiv 2310.05737), equations 3 to 5; constants of vector-quantize-pytorch.

  `H(p_n)` is exact for any number of bits, since p_n factorises over them. `H(mean_n p_n)` is
  exact up to `entropy_bits` bits; beyond, the bits are cut into groups of at most so many and
  their entropies added, an upper bound, as BSQ and MAGVIT-v2 do. Memory: 2^(entropy_bits / 2)
  numbers a row.

  Deviations, both of the floor that the original puts under the logarithm, `log max(p, 1e-5)`. In
  `H(mean_n p_n)` the floor bounds the pull on a code not in use; beyond 9 bits a group it is here
  2^-(bits + 7), since with 1e-5 equal use of 2^17 codes would have no gradient. In `H(p_n)` there
  is none, because a floor under the product of the bits' probabilities could only be had by listing
  all 2^bits codes for every row. So `H(p_n)` is larger here, by at most 1e-5 2^bits / e nats. Of 64
  normal rows, in the mean: at tau = 100 by 1e-7 (6, 9 and 12 bits alike); at the worst tau, between
  0.5 and 1, by 3e-5, 4e-4 and 4e-3.

  Metrics besides: `sample_entropy`, `code_entropy` (nats); `perplexity` and `usage` up to 2^22
  codes.

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
  estimator: EstimatorLike = straight_through

  def __post_init__(self) -> None:
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
  def num_codes(self) -> int:
    return 1 << (self.bits // self.tokens)

  @property
  def token_axes(self) -> int:
    return int(self.tokens > 1)

  @property
  def level(self) -> float:
    """Absolute value of a code's channels."""
    return self.scale

  def enter(self, z: jax.Array) -> jax.Array:
    if z.shape[-1] != self.bits:
      kind = type(self).__name__
      raise ValueError(f'z has width {z.shape[-1]}; {kind}.bits={self.bits} needs {self.bits}.')
    return z

  def select(
    self, z: jax.Array, *, train: bool, mask: jax.Array | None = None, observe: bool = True
  ) -> Quantized:
    signs = jax.lax.stop_gradient(z > 0)
    q = jnp.where(signs, self.level, -self.level).astype(jnp.float32)
    bits = signs.reshape(*z.shape[:-1], self.tokens, -1).astype(jnp.int32)
    weights = 2 ** jnp.arange(bits.shape[-1], dtype=jnp.int32)[::-1]
    indices = jnp.sum(bits * weights.reshape((1,) * (bits.ndim - 1) + (-1,)), axis=-1)
    indices = indices if self.tokens > 1 else indices[..., 0]
    flat_mask = None if mask is None else mask.reshape(-1)
    sample, code = self._entropies(ops.rows(z), flat_mask)
    terms = distance_terms(z, q, mask) | {'sample_entropy': sample, 'code_entropy': code}
    loss = self.entropy_weight * (sample - self.diversity_gamma * code)
    loss = loss + self.commitment_weight * terms['commitment']
    return self._quantized(z, q, indices, mask, loss, terms)

  def lookup(self, indices: jax.Array) -> jax.Array:
    tokens = indices if self.tokens > 1 else indices[..., None]
    shifts = jnp.arange(self.bits // self.tokens, dtype=jnp.int32)[::-1]
    bits = (tokens[..., None] >> shifts.reshape((1,) * tokens.ndim + (-1,))) & 1
    q = jnp.where(bits == 1, self.level, -self.level).astype(jnp.float32)
    legal = (tokens >= 0) & (tokens < self.num_codes)
    q = jnp.where(legal[..., None], q, jnp.nan)
    return q.reshape(*q.shape[:-2], self.bits)

  def _entropies(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
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
  def level(self) -> float:
    return self.scale * math.pow(self.bits, -0.5)

  def enter(self, z: jax.Array) -> jax.Array:
    return self.scale * ops.unit(super().enter(z))


def _mean_joint(p: jax.Array, mask: jax.Array | None) -> jax.Array:
  """Mean over rows of the joint distribution of independent bits: p [N bits] -> [2^bits].

  The mean of outer products is one product of the two halves' joints: a row takes 2^(bits/2).
  """
  half = p.shape[1] // 2
  mask = jnp.ones(p.shape[:1], bool) if mask is None else mask
  first = jnp.where(mask[:, None], _joint(p[:, :half]), 0)
  sums = jnp.matmul(first.T, _joint(p[:, half:]), precision=jax.lax.Precision.HIGHEST)
  return sums.reshape(-1) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)


def _joint(p: jax.Array) -> jax.Array:
  """Joint distribution of independent bits: [N bits] -> [N 2^bits]."""
  joint = jnp.ones((p.shape[0], 1), jnp.float32)
  for i in range(p.shape[1]):
    pair = jnp.stack([1 - p[:, i], p[:, i]], axis=-1)
    joint = (joint[:, :, None] * pair[:, None]).reshape(p.shape[0], -1)
  return joint
