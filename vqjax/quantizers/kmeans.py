"""k-means: where to start a codebook. On sharded rows the statistics are global."""

import functools

import jax
import jax.numpy as jnp

from vqjax.quantizers import lookup, ops


@functools.partial(jax.jit, static_argnames=('num_codes', 'farthest_first'))
def kmeans_plus_plus(
  key: jax.Array,
  rows: jax.Array,
  num_codes: int,
  *,
  mask: jax.Array | None = None,
  farthest_first: bool = False,
) -> jax.Array:
  """Rows drawn as starting centres: each with probability `D(x)^2 / sum D^2`.

  `D(x)` is the distance to the nearest centre so far; the first is uniform. Arthur and
  Vassilvitskii 2007. One pass over the rows a centre. Where all rows are centres already, because
  there are fewer than K different ones, the rest are rows drawn at random plus normal noise of
  1e-3 of the rows' standard deviation, or 1e-5 of their size if that is more, which float32 can
  tell apart: still K different codes (vqtorch returns fewer).

  Args:
    key: of the draws.
    rows: float32 [N D]. Rows that are not finite are left out.
    num_codes: K.
    mask: rows that may be drawn [N], or None.
    farthest_first: the farthest row is taken in place of a draw, which is what torchpq, and so
      vqtorch, calls k-means++.

  Returns:
    float32 [K D].

  Raises:
    ValueError: rows of another rank, or no codes.
  """
  rows, mask = _checked(rows, mask, num_codes)
  first_key, draw_key, noise_key = jax.random.split(key, 3)

  def draw(key: jax.Array, weights: jax.Array) -> jax.Array:
    """An index with probability in proportion to `weights` [N]; uniform where all are zero."""
    weights = jnp.where(jnp.any(weights > 0), weights, mask.astype(jnp.float32))
    return jax.random.categorical(key, jnp.log(weights))

  def add(k: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    centres, nearest = state
    key = jax.random.fold_in(draw_key, k)
    weights = jnp.where(mask, nearest, 0)
    farthest = jnp.argmax(weights)
    some = jnp.any(weights > 0)
    index = draw(key, weights)
    index = jnp.where(some & farthest_first, farthest, index)
    row = take(index)
    noise = spread * jax.random.normal(jax.random.fold_in(noise_key, k), row.shape, jnp.float32)
    row = jnp.where(some, row, row + noise)
    return centres.at[k].set(row), jnp.minimum(nearest, distance(row))

  # `rows[index]` would gather sharded rows, whole, for every centre.
  places = jnp.arange(rows.shape[0])

  def take(index: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where((places == index)[:, None], rows, 0), axis=0)

  def distance(row: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(rows - row[None]), axis=-1)

  off = rows - ops.mean_row(rows, mask)[None]
  deviation = jnp.sqrt(ops.masked_mean(jnp.square(off), mask))
  size = jnp.sqrt(ops.masked_mean(jnp.square(rows), mask))
  spread = jnp.maximum(1e-3 * deviation, jnp.where(size > 0, 1e-5 * size, 1e-3))
  first = take(draw(first_key, mask.astype(jnp.float32)))
  centres = jnp.zeros((num_codes, rows.shape[1]), jnp.float32).at[0].set(first)
  start = centres, distance(first)
  found: tuple[jax.Array, jax.Array] = jax.lax.fori_loop(1, num_codes, add, start)
  return found[0]


@functools.partial(jax.jit, static_argnames=('iters', 'sphere'))
def lloyd(
  rows: jax.Array,
  codes: jax.Array,
  iters: int,
  *,
  mask: jax.Array | None = None,
  sphere: bool = False,
) -> jax.Array:
  """Lloyd's iterations: each code to the mean of the rows nearest to it; one without rows stays.

  Args:
    rows: float32 [N D].
    codes: float32 [K D], where to start.
    iters: at least 0.
    mask: rows that count [N], or None. Rows that are not finite are left out.
    sphere: codes are brought back to length one, for rows of length one (spherical k-means); one
      whose rows cancel has no direction and stays.

  Returns:
    float32 [K D].
  """
  if iters < 0:
    raise ValueError(f'iters is {iters}; legal: at least 0.')
  rows, mask = _checked(rows, mask, codes.shape[0])

  def step(_: jax.Array, codes: jax.Array) -> jax.Array:
    indices = lookup.nearest_code(rows, codes)
    counts = ops.code_counts(indices, codes.shape[0], mask)[:, None]
    sums = jnp.zeros_like(codes).at[indices].add(rows)  # rows that do not count are zero
    moved, has_mean = sums / jnp.maximum(counts, 1), counts > 0
    if sphere:
      has_mean &= ops.norm(moved) > 1e-6
      moved = ops.unit(moved)
    return jnp.where(has_mean, moved, codes)

  moved: jax.Array = jax.lax.fori_loop(0, iters, step, codes)
  return moved


def kmeans(
  key: jax.Array,
  rows: jax.Array,
  num_codes: int,
  *,
  iters: int = 10,
  mask: jax.Array | None = None,
  sphere: bool = False,
  farthest_first: bool = False,
) -> jax.Array:
  """`kmeans_plus_plus`, then `iters` of `lloyd`: K centres of rows [N D], float32 [K D]."""
  codes = kmeans_plus_plus(key, rows, num_codes, mask=mask, farthest_first=farthest_first)
  start = ops.unit(codes) if sphere else codes
  moved: jax.Array = lloyd(rows, start, iters, mask=mask, sphere=sphere)
  return moved


def _checked(
  rows: jax.Array, mask: jax.Array | None, num_codes: int
) -> tuple[jax.Array, jax.Array]:
  """(rows with zeros where they do not count, which do)."""
  if rows.ndim != 2 or rows.shape[0] == 0:
    raise ValueError(f'rows have shape {rows.shape}; legal: [N D] with at least one row.')
  if num_codes < 1:
    raise ValueError(f'num_codes is {num_codes}; legal: at least 1.')
  mask = ops.counted(rows, mask)
  return jnp.where(mask[:, None], rows, 0).astype(jnp.float32), mask
