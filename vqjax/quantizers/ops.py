"""Small numerics that every quantizer shares: rows, masks, norms, code statistics."""

import jax
import jax.numpy as jnp


def rows(x: jax.Array) -> jax.Array:
  """Flattens all leading axes: [... D] -> [N D]."""
  return x.reshape(-1, x.shape[-1])


def norm(x: jax.Array, eps: float = 1e-6) -> jax.Array:
  """Euclidean length of each row, never below `eps`: `max(|x|, eps)`, [... D] -> [... 1].

  The floor sits inside the root, so that the gradient at `x = 0` is zero and not NaN
  (`jnp.linalg.norm` differentiates `sqrt` at 0).
  """
  return jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), eps * eps))


def unit(x: jax.Array, eps: float = 1e-6) -> jax.Array:
  """Rows scaled to length one, `x / max(|x|, eps)`: [... D] -> [... D]; a zero row stays zero."""
  return x / norm(x, eps)


def counted(rows: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Rows that may move state, [N D] -> bool [N]: those that `mask` [N] holds for and are finite."""
  finite = jnp.isfinite(rows).all(axis=-1)
  return finite if mask is None else finite & mask


def masked_mean(x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean over all elements of `x` [N D], or of the rows where `mask` [N] holds.

  Without rows the mean is 0. A mask of ones gives the same bits as no mask, and what stands
  in masked rows changes neither the value nor the gradient, be it NaN.
  """
  if mask is None:
    mask = jnp.ones(x.shape[:1], bool)
  count = jnp.maximum(jnp.sum(mask, dtype=x.dtype), 1) * x.shape[1]
  return jnp.sum(jnp.where(mask[:, None], x, 0)) / count


def mean_row(x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """Mean of the rows of `x` [N D] where `mask` [N] holds: [D]; 0 without rows."""
  mask = jnp.ones(x.shape[:1], bool) if mask is None else mask
  count = jnp.maximum(jnp.sum(mask, dtype=x.dtype), 1)
  return jnp.sum(jnp.where(mask[:, None], x, 0), axis=0) / count


def entropy(p: jax.Array, floor: float = 2.0**-126) -> jax.Array:
  """`-sum p log max(p, floor)` over the last axis, in nats; `0 log 0 = 0`, in gradient too.

  The floor is the smallest normal number: a smaller one may be flushed to zero.
  """
  return -jnp.sum(p * jnp.log(jnp.maximum(p, floor)), axis=-1)


def bit_entropy(logits: jax.Array) -> jax.Array:
  """Entropy of a bit that is 1 with probability `sigmoid(logits)`, in nats; no 0 log 0 occurs."""
  p = jax.nn.sigmoid(logits)
  return -(p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits))


def code_counts(indices: jax.Array, num_codes: int, mask: jax.Array | None = None) -> jax.Array:
  """How often each code occurs: int32 [N] -> float32 [K].

  Rows with a false `mask` are left out, and so are tokens outside [0, K), such as the -1 of a
  level that quantizer dropout left out.
  """
  weights = (indices >= 0) if mask is None else mask & (indices >= 0)
  counts = jnp.zeros(num_codes, jnp.float32)
  return counts.at[jnp.maximum(indices, 0)].add(weights.astype(jnp.float32), mode='drop')


def perplexity(counts: jax.Array) -> jax.Array:
  """Effective number of codes, `exp(-sum p log p)` with `p = counts / sum`: [K] -> [] in [1, K].

  All-zero counts give 1. The originals add 1e-10 inside the logarithm; `0 log 0 = 0` needs none.
  """
  return jnp.exp(entropy(counts / jnp.maximum(jnp.sum(counts), 1)))


def usage(counts: jax.Array) -> jax.Array:
  """Fraction of codes that occur at least once: [K] -> [] in [0, 1]."""
  return jnp.mean(counts > 0, dtype=jnp.float32)


@jax.custom_vjp
def with_value(y: jax.Array, q: jax.Array) -> jax.Array:
  """`q` in value, `y` in gradient: what `y + sg(q - y)` means, without its rounding."""
  del y
  return q


def _with_value_fwd(y: jax.Array, q: jax.Array) -> tuple[jax.Array, None]:
  del y
  return q, None


def _with_value_bwd(_: None, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  return g, jnp.zeros_like(g)


with_value.defvjp(_with_value_fwd, _with_value_bwd)
