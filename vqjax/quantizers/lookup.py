"""Exact nearest code in bounded memory: the one door to the search."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqjax.quantizers.running_best import Best, better, worst

# Scores held at a time, N x block, divided over the devices that the rows are sharded over. An
# accelerator wants few large blocks: 2**26 float32 scores are 256 MiB. A CPU wants blocks that
# stay in its cache: 4 MiB; on two cores that is twice as fast at N = 4096, K = 16,384.
MAX_SCORES = 2**26
MAX_SCORES_CPU = 2**20


def nearest_code(
  z: jax.Array, codes: jax.Array, *, block: int | None = None, kernel: bool = False
) -> jax.Array:
  """Index of the nearest code of each row, `argmin_k |z - c_k|^2`.

  Scans blocks of codes with a running best, so an N x K matrix never exists at large K and a
  row-sharded `z` stays in place: no collective is needed (blocks of *rows* would gather `z`).
  Ties go to the lowest index. A row with a NaN gets some index. No gradient flows.

  Args:
    z: float32 [N D].
    codes: float32 [K D].
    block: codes that the scan scores at a time; by default as many as keep N x block within 2**26
      scores, on a CPU within 2**20, and at least 128.
    kernel: on NVIDIA GPUs search by the kernel of `lookup_kernel`, which writes no scores to
      memory; the scan still runs on other devices, under `vmap`, and for widths above 128. Both
      sum in float32, in an order of their own: codes as near as rounding may change places.

  Returns:
    int32 [N] in [0, K).
  """
  z, codes = jax.lax.stop_gradient((z, codes))

  def scan(most_scores: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    fitting = max(most_scores // max(z.shape[0], 1) // 128, 1) * 128
    return functools.partial(_scan, block=fitting if block is None else block)

  searches = {'cpu': scan(MAX_SCORES_CPU), 'default': scan(MAX_SCORES)}
  if kernel:
    from vqjax.quantizers import lookup_kernel  # here: Pallas takes a quarter of a second

    if z.shape[1] <= lookup_kernel.MAX_WIDTH:
      searches['cuda'] = functools.partial(lookup_kernel.nearest_code, scan=searches['default'])
  indices: jax.Array = jax.lax.platform_dependent(z, codes, **searches)
  return indices


def _scan(z: jax.Array, codes: jax.Array, *, block: int) -> jax.Array:
  num_codes = codes.shape[0]

  def score(codes: jax.Array, places: jax.Array) -> jax.Array:
    # argmin |z - c|^2 = argmax z.c - |c|^2 / 2; |z|^2 is the same for all codes.
    half_norms = jnp.where(places < num_codes, jnp.sum(codes * codes, axis=-1) / 2, jnp.inf)
    products = jnp.matmul(z, codes.T, precision=jax.lax.Precision.HIGHEST)
    return barrier(products) - half_norms[None]

  return argmax_over_blocks(score, in_blocks(codes, block), z.shape[0])


def in_blocks(codes: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
  """Codes [K D] in M blocks of at most `block`: (codes [M b D], places int32 [M b]).

  Places count on through the padding of the last block, where they are K and more.
  """
  num_codes, width = codes.shape
  block = min(block, num_codes)
  padded = -(-num_codes // block) * block
  codes = jnp.pad(codes, ((0, padded - num_codes), (0, 0))).reshape(-1, block, width)
  return codes, jnp.arange(padded, dtype=jnp.int32).reshape(-1, block)


def argmax_over_blocks(
  score: Callable[..., jax.Array], blocks: tuple[jax.Array, ...], num_rows: int
) -> jax.Array:
  """Place of the best score of each row: the first of equals, 0 for rows of NaN or -inf.

  Args:
    score: scores [N b] of a block, -inf in the padding. They are used twice, so a `barrier` must
      keep the compiler from computing them in two ways.
    blocks: a tuple of arrays [M b ...], arguments of `score`; places last.
    num_rows: N.

  Returns:
    int32 [N].
  """

  def scan_block(best: Best, block: tuple[jax.Array, ...]) -> tuple[Best, None]:
    return better(best, score(*block), block[-1], blocks[-1].size), None

  return jax.lax.scan(scan_block, worst(num_rows), blocks)[0][1]


def barrier(x: jax.Array) -> jax.Array:
  """`x`, computed once: the compiler moves nothing across it."""
  same: jax.Array = jax.lax.optimization_barrier(x)  # type: ignore[no-untyped-call] # jax has none
  return same
