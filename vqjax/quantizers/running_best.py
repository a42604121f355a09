"""The best score of each row so far, while blocks of scores pass by."""

import jax
import jax.numpy as jnp

Best = tuple[jax.Array, jax.Array]  # scores of rows, float32 [N], and their places, int32 [N]


def worst(num_rows: int) -> Best:
  """Where a search begins: a score of -inf at place 0."""
  return jnp.full(num_rows, -jnp.inf, jnp.float32), jnp.zeros(num_rows, jnp.int32)


def better(best: Best, scores: jax.Array, places: jax.Array, num_places: int) -> Best:
  """The better of the best so far and a block: scores [N b] at places [b], below `num_places`."""
  # Two plain reductions: XLA's argmax is half as fast on a CPU.
  top = jnp.max(scores, axis=-1)
  place = jnp.min(jnp.where(scores == top[:, None], places[None], num_places), axis=-1)
  won = top > best[0]  # strict: an earlier block keeps a tie; false for NaN
  return jnp.where(won, top, best[0]), jnp.where(won, place, best[1])
