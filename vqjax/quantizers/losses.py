"""The two terms that hold rows and codes together, in the forms of the published systems."""

import jax
import jax.numpy as jnp

from vqjax.quantizers import ops
from vqjax.quantizers.assignments import squared_distances

KINDS = ('l2', 'l1', 'cross_entropy')


def terms(
  kind: str,
  z: jax.Array,
  q: jax.Array,
  codes: jax.Array | None,
  indices: jax.Array | None,
  mask: jax.Array | None = None,
) -> dict[str, jax.Array]:
  """Commitment and codebook term, unweighted.

  `l2`: `mean((z - sg q)^2)` and `mean((sg z - q)^2)`; `l1` with absolute values; means over all
  elements. `cross_entropy`: commitment is `mean_n -log softmax_k(-|z - c_k|)[indices]`, which
  moves rows and all codes at once and so stands for both terms; codebook is the l2 distance as a
  number without gradient. It holds N x K numbers (OptVQ's baselines; NaturalSpeech 2).

  Args:
    kind: one of KINDS.
    z: rows [N D].
    q: their codes [N D].
    codes: [K D]; for cross_entropy, None will do for the others.
    indices: int32 [N]; likewise.
    mask: rows that count [N], or None.

  Returns:
    {'commitment': [], 'codebook': []}.
  """
  stop = jax.lax.stop_gradient
  if kind == 'cross_entropy':
    assert codes is not None
    assert indices is not None
    logits = -jnp.sqrt(squared_distances(z, codes))
    chosen = jnp.take_along_axis(logits, indices[:, None], axis=1)
    surprise = jax.nn.logsumexp(logits, axis=1, keepdims=True) - chosen
    return {
      'commitment': ops.masked_mean(surprise, mask),
      'codebook': ops.masked_mean(jnp.square(stop(z - q)), mask),
    }
  error = jnp.square if kind == 'l2' else jnp.abs
  return {
    'commitment': ops.masked_mean(error(z - stop(q)), mask),
    'codebook': ops.masked_mean(error(stop(z) - q), mask),
  }
