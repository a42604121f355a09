"""Exact nearest code in bounded memory: the one door for accelerator kernels."""

import jax
import jax.numpy as jnp

# Scores held at a time, N x block; 2**26 float32 entries are 256 MiB, divided over the devices
# that the rows are sharded over.
MAX_SCORES = 2**26


def nearest_code(z, codes, *, block=None):
  """Index of the nearest code of each row, `argmin_k |z - c_k|^2`.

  Scans blocks of codes with a running best, so an N x K matrix never exists at large K and a
  row-sharded `z` stays in place: no collective is needed (blocks of *rows* would gather `z`).
  Ties go to the lowest index. No gradient flows.

  Args:
    z: float32 [N D].
    codes: float32 [K D].
    block: codes scored at a time; by default as many as keep N x block within 2**26 scores.

  Returns:
    int32 [N] in [0, K).
  """
  z, codes = jax.lax.stop_gradient((z, codes))
  num_rows, (num_codes, width) = z.shape[0], codes.shape
  if block is None:
    block = max(MAX_SCORES // max(num_rows, 1) // 128, 1) * 128
  half_norms = jnp.sum(codes * codes, axis=-1) / 2  # [K]

  def best_of(codes, half_norms):
    # argmin |z - c|^2 = argmax z.c - |c|^2 / 2; |z|^2 is the same for all codes.
    scores = jnp.matmul(z, codes.T, precision=jax.lax.Precision.HIGHEST) - half_norms[None]
    return jnp.max(scores, axis=-1), jnp.argmax(scores, axis=-1).astype(jnp.int32)

  if num_codes <= block:
    return best_of(codes, half_norms)[1]

  num_blocks = -(-num_codes // block)
  pad = num_blocks * block - num_codes
  codes = jnp.pad(codes, ((0, pad), (0, 0))).reshape(num_blocks, block, width)
  half_norms = jnp.pad(half_norms, (0, pad), constant_values=jnp.inf)  # padding never wins
  starts = jnp.arange(num_blocks, dtype=jnp.int32) * block

  def scan_block(best, xs):
    codes, half_norms, start = xs
    score, index = best_of(codes, half_norms)
    better = score > best[0]  # strict: an earlier block keeps a tie
    return (jnp.where(better, score, best[0]), jnp.where(better, index + start, best[1])), None

  first = jnp.full(num_rows, -jnp.inf, z.dtype), jnp.zeros(num_rows, jnp.int32)
  (_, index), _ = jax.lax.scan(scan_block, first, (codes, half_norms.reshape(-1, block), starts))
  return index
