"""The search for the nearest code in one kernel for NVIDIA GPUs that writes no scores to memory."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas import triton
from jax.sharding import NamedSharding, PartitionSpec

from vqjax.quantizers.running_best import Best, better, worst

# A tile of scores, and the fewest numbers that Triton sums over: powers of two. Compiled for an
# H100, 64 x 128 need more registers than there are: 1.4 KB of every thread lie in memory.
ROWS, CODES, MIN_WIDTH = 64, 64, 16
# A block of rows stays on the chip while the codes pass by. Beyond, products outweigh the scores.
MAX_WIDTH = 128


def nearest_code(
  z: jax.Array,
  codes: jax.Array,
  *,
  scan: Callable[[jax.Array, jax.Array], jax.Array],
  interpret: bool = False,
) -> jax.Array:
  """`lookup.nearest_code`, each program of a grid with a block of rows: [N D], [K D] -> int32 [N].

  A program takes the codes block by block and keeps the best score and place of each of its rows;
  products are of float32 precision. Of rows that are sharded under jit every device searches its
  own, and codes are gathered where they are sharded; `jax.shard_map` needs check_vma=False.

  JAX 0.11 warns that Pallas will lose its Triton backend. The one that it is to keep for NVIDIA
  GPUs has no products of float32 precision.

  Args:
    z: float32 [N D], D at most 128.
    codes: float32 [K D].
    scan: the search without a kernel, which runs under `vmap`.
    interpret: run on any device, slowly.

  Returns:
    int32 [N] in [0, K).
  """

  @jax.custom_batching.custom_vmap
  def search(z: jax.Array, codes: jax.Array) -> jax.Array:
    half_norms = jnp.sum(codes * codes, axis=-1) / 2
    index: jax.Array = _by_rows(z, codes, half_norms, interpret)
    return index

  @search.def_vmap
  def of_batch(_: int, mapped: list[bool], *args: jax.Array) -> tuple[jax.Array, bool]:
    axes = tuple(0 if is_mapped else None for is_mapped in mapped)
    return jax.vmap(scan, axes)(*args), True

  index: jax.Array = search(z, codes)
  return index


@functools.partial(custom_partitioning, static_argnums=(3,))
def _by_rows(z: jax.Array, codes: jax.Array, half_norms: jax.Array, interpret: bool) -> jax.Array:
  return _of_device(z, codes, half_norms, interpret=interpret)


def _partition(interpret: bool, mesh: Any, args: Any, result: Any) -> tuple[Any, Any, Any, Any]:
  """Rows stay where they are; whatever else is sharded is gathered."""
  del args
  rows = NamedSharding(mesh, PartitionSpec(result.sharding.spec[0]))
  whole = NamedSharding(mesh, PartitionSpec())
  return mesh, functools.partial(_of_device, interpret=interpret), rows, (rows, whole, whole)


_by_rows.def_partition(
  _partition, sharding_rule='n d, k d, k -> n', need_replication_factors=('d', 'k')
)


def _of_device(
  z: jax.Array, codes: jax.Array, half_norms: jax.Array, *, interpret: bool
) -> jax.Array:
  (num_rows, width), num_codes = z.shape, codes.shape[0]
  rows, blocks = -(-num_rows // ROWS) * ROWS, -(-num_codes // CODES)
  wide = max(pl.next_power_of_2(width), MIN_WIDTH)
  more = blocks * CODES - num_codes
  z = jnp.pad(z, ((0, rows - num_rows), (0, wide - width)))
  codes = jnp.pad(codes, ((0, more), (0, wide - width)))
  half_norms = jnp.pad(half_norms, (0, more), constant_values=jnp.inf)
  search = pl.pallas_call(
    functools.partial(_search, blocks=blocks),
    grid=(rows // ROWS,),
    in_specs=[
      pl.BlockSpec((ROWS, wide), lambda i: (i, 0)),
      pl.BlockSpec(codes.shape, lambda i: (0, 0)),
      pl.BlockSpec(half_norms.shape, lambda i: (0,)),
    ],
    out_specs=pl.BlockSpec((ROWS,), lambda i: (i,)),
    out_shape=jax.ShapeDtypeStruct((rows,), jnp.int32),
    compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
    interpret=interpret,
    name='nearest_code',
  )
  index: jax.Array = search(z, codes, half_norms)[:num_rows]
  return index


def _search(
  z_ref: Any, codes_ref: Any, half_norms_ref: Any, index_ref: Any, *, blocks: int
) -> None:
  """One program: the indices of a block of rows."""
  z = z_ref[...]

  def take(i: jax.Array, best: Best) -> Best:
    block = pl.ds(i * CODES, CODES)
    products = jax.lax.dot_general(
      z, codes_ref[block, :], (((1,), (1,)), ((), ())), precision=jax.lax.Precision.HIGHEST
    )
    places = i * CODES + jnp.arange(CODES, dtype=jnp.int32)
    return better(best, products - half_norms_ref[block][None], places, blocks * CODES)

  index_ref[...] = jax.lax.fori_loop(0, blocks, take, worst(ROWS))[1]
