"""Balanced assignment by entropic optimal transport: every code gets its share of the rows."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vqjax.quantizers import lookup, ops
from vqjax.quantizers.assignments import squared_distances

Blocks = tuple[jax.Array, jax.Array]  # codes [M b D], their places [M b]
HIGHEST = jax.lax.Precision.HIGHEST
GUARD = 1e-8  # of the original's divisions; a code out of all rows' reach gets no row because of it
MAX_BLOCK = 2**23  # entries of M computed at a time: 32 MiB


@dataclasses.dataclass(frozen=True)
class Sinkhorn:
  """The assignment of OptVQ: every row is sent to codes, and every code gets 1 / K of all rows.

  `A = (D - mean D) / (std D + 1e-6)`, `D_ik = |z_i - c_k|` not squared; `M = exp(-epsilon
  (A - min A))`; `Q = diag(c) M diag(r)` by `iters` turns of scaling columns to 1 / K and rows to
  1 / N; a row takes `argmax_k Q_ik`. Arxiv 2412.15195, section 3. Here the K scalings r and the N
  scalings c are iterated in place of Q, and the code is `argmin_k epsilon A_ik - log r_k`: the
  nearest code, where code k costs `-log r_k` more. That is the same code; for an outlier, whose row
  of M is all zero in float32, it is still the cheapest one (the original gives it code 0).

  Mean, deviation, minimum and column sums are those of all rows, of all devices' under jit with
  sharded rows (the original takes the former of its own process). A row's code depends on the
  other rows: evaluate with `Nearest()`. Deviation: a code or row without mass in float32 keeps its
  scaling, where the original's grows without bound times zero.

  Attributes:
    epsilon: inverse temperature, above 0; more is closer to the unregularised transport.
    iters: turns, at least 1.
    normalize: `all`: as above, over the whole matrix; `dim`: `A = D / sqrt(width)`; `none`:
      `A = D`; neither of these subtracts the minimum.
    sample: a code drawn with probability `Q_ik / sum_k Q_ik` in place of the likeliest; RNG stream
      `vq`. The draw depends neither on `max_kernel` nor on sharding.
    max_kernel: entries of M, N x K, up to which it is kept; beyond, it is computed anew in every
      turn, by blocks of codes of at most so many entries, which takes about twice as long. 2**26
      float32 entries are 256 MiB, divided over the devices that the rows are sharded over.
  """

  epsilon: float = 10.0
  iters: int = 5
  normalize: str = 'all'
  sample: bool = False
  max_kernel: int = 2**26
  whole_batch: ClassVar[bool] = True

  @property
  def uses_key(self) -> bool:
    return self.sample

  def __post_init__(self) -> None:
    if not 0 < self.epsilon < math.inf:
      raise ValueError(f'Sinkhorn.epsilon is {self.epsilon}; legal: above 0 and finite.')
    for field in ('iters', 'max_kernel'):
      if getattr(self, field) < 1:
        raise ValueError(f'Sinkhorn.{field} is {getattr(self, field)}; legal: at least 1.')
    if self.normalize not in ('all', 'dim', 'none'):
      raise ValueError(f'Sinkhorn.normalize is {self.normalize!r}; legal: all, dim, none.')

  def __call__(
    self,
    z: jax.Array,
    codes: jax.Array,
    *,
    key: jax.Array | None = None,
    mask: jax.Array | None = None,
    step: jax.Array | None = None,
  ) -> jax.Array:
    """Codes of the rows, int32 [N].

    Rows that are not finite, and those where `mask` [N] is false, count nowhere and get some code.
    """
    del step
    if self.sample and key is None:
      raise ValueError(
        "Sinkhorn(sample=True) draws codes and has no key; apply with rngs={'vq': key}, and leave "
        'eval_assign to Nearest().'
      )
    exponent, blocks, prices, _ = self._solve(z, codes, mask)

    def score(prices: jax.Array, codes: jax.Array, places: jax.Array) -> jax.Array:
      scores = jnp.log(prices)[None] - exponent(codes, places)
      if self.sample and key is not None:
        scores = scores + _noise(key, places, z.shape[0])
      return lookup.barrier(scores)

    return lookup.argmax_over_blocks(score, (prices, *blocks), z.shape[0])

  def plan(self, z: jax.Array, codes: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Q as a dense matrix, for study: [N D], [K D] -> [N K].

    Rows sum to 1 and columns to about N / K; rows that do not count are 0.
    """
    exponent, blocks, prices, scaling = self._solve(z, codes, mask)

    def block_of_plan(block: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
      prices, codes, places = block
      return scaling[:, None] * jnp.exp(-exponent(codes, places)) * prices[None]

    columns = jax.lax.map(block_of_plan, (prices, *blocks))  # [M N b]
    return jnp.moveaxis(columns, 0, 1).reshape(len(z), -1)[:, : len(codes)]

  def _solve(
    self, z: jax.Array, codes: jax.Array, mask: jax.Array | None
  ) -> tuple[Callable[[jax.Array, jax.Array], jax.Array], Blocks, jax.Array, jax.Array]:
    """(exponent epsilon A of a block, blocks of codes, prices [M b], scalings of rows [N])."""
    z, codes = jax.lax.stop_gradient((z, codes))
    num_codes, num_rows = codes.shape[0], z.shape[0]
    # Both without a mask and with one of ones the compiler cannot know that every row counts, and
    # makes the same program of it, bit for bit.
    mask = ops.counted(z, mask)
    z = jnp.where(mask[:, None], z, 0)
    counted = jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1)
    blocks = lookup.in_blocks(codes, max(min(self.max_kernel, MAX_BLOCK) // num_rows, 1))
    low, factor = self._normalization(z, codes, mask, counted, blocks)

    def exponent(codes: jax.Array, places: jax.Array) -> jax.Array:
      cost = jnp.sqrt(squared_distances(z, codes))
      return jnp.where((places < num_codes)[None], (cost - low) * factor, jnp.inf)

    def kernel(block: Blocks) -> jax.Array:
      return jnp.exp(-exponent(*block))

    # Columns of M by blocks of codes: kept where they fit, else computed whenever they are needed.
    keep = num_rows * num_codes <= self.max_kernel
    source: Any = jax.lax.map(kernel, blocks) if keep else blocks

    def columns_of(block: Any) -> jax.Array:
      return block if keep else kernel(block)

    nothing = jnp.zeros(num_rows, jnp.float32)

    def turn(_: jax.Array, scalings: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
      prices, scaling = scalings

      # Both halves of a turn in one pass over M: a code's price needs its own column only.
      def scan_block(mass: jax.Array, block: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
        prices, columns = block[0], columns_of(block[1])
        prices = _rescaled(prices, jnp.matmul(scaling, columns, precision=HIGHEST), num_codes)
        return mass + jnp.matmul(columns, prices, precision=HIGHEST), prices

      mass, prices = jax.lax.scan(scan_block, nothing, (prices, source))
      return prices, _rescaled(scaling, mass, counted)

    def add_mass(mass: jax.Array, block: Any) -> tuple[jax.Array, None]:
      return mass + jnp.sum(columns_of(block), axis=-1), None

    mass, _ = jax.lax.scan(add_mass, nothing, source)
    scaling = jnp.where(mask, 1 / (jnp.sum(jnp.where(mask, mass, 0)) + GUARD), 0)
    prices = jnp.ones(blocks[1].shape, jnp.float32)
    prices, scaling = jax.lax.fori_loop(0, self.iters, turn, (prices, scaling))
    return exponent, blocks, prices, counted * scaling

  def _normalization(
    self, z: jax.Array, codes: jax.Array, mask: jax.Array, counted: jax.Array, blocks: Blocks
  ) -> tuple[jax.Array | float, jax.Array | float]:
    """(low, factor) of `epsilon A = (D - low) factor`."""
    if self.normalize != 'all':
      return 0.0, self.epsilon / (math.sqrt(z.shape[1]) if self.normalize == 'dim' else 1.0)
    # Mean and deviation in one pass, about the root mean square of D, which is known beforehand
    # and lies within one deviation of the mean, so that nothing cancels.
    z_mean, code_mean = jnp.sum(z, axis=0) / counted, jnp.mean(codes, axis=0)
    square = jnp.sum(z * z) / counted + jnp.sum(codes * codes) / len(codes)
    pivot = jnp.sqrt(jnp.maximum(square - 2 * jnp.sum(z_mean * code_mean), 0))

    def scan_block(
      so_far: tuple[jax.Array, jax.Array, jax.Array], block: Blocks
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
      columns, places = block
      cost = jnp.sqrt(squared_distances(z, columns))
      real = (places < len(codes))[None]
      off = jnp.where(real, cost - pivot, 0)
      sums, squares, lows = so_far
      sums, squares = sums + jnp.sum(off, axis=-1), squares + jnp.sum(off * off, axis=-1)
      lows = jnp.minimum(lows, jnp.min(jnp.where(real, cost, jnp.inf), axis=-1))
      return (sums, squares, lows), None

    zeros = jnp.zeros(len(z), jnp.float32)
    (sums, squares, lows), _ = jax.lax.scan(scan_block, (zeros, zeros, zeros + jnp.inf), blocks)

    def total(rows: jax.Array) -> jax.Array:
      return jnp.sum(jnp.where(mask, rows, 0))

    size = counted * len(codes)
    variance = (total(squares) - total(sums) ** 2 / size) / jnp.maximum(size - 1, 1)
    deviation = jnp.sqrt(jnp.maximum(variance, 0))
    low = jnp.min(jnp.where(mask, lows, jnp.inf))
    return jnp.where(jnp.any(mask), low, 0), self.epsilon / (deviation + 1e-6)


def _rescaled(scaling: jax.Array, mass: jax.Array, total: jax.Array | float) -> jax.Array:
  """Scalings after which the sums `scaling * mass` are 1 / total, up to the guard."""
  # Bounded, because a mass of hardly anything would take many turns beyond float32.
  scaled = jnp.minimum(scaling / (scaling * mass + GUARD) / total, 1e30)
  return jnp.where(mass > 0, scaled, scaling)


def _noise(key: jax.Array, places: jax.Array, num_rows: int) -> jax.Array:
  """Gumbel noise [N b], one stream for each code."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
  return jax.vmap(lambda key: jax.random.gumbel(key, (num_rows,), jnp.float32), out_axes=1)(keys)
