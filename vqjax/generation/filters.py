"""What is left of a distribution before a symbol is drawn from it."""

import jax
import jax.numpy as jnp


def temper(logits: jax.Array, temperature: float) -> jax.Array:
  """Logits [... V] divided by a temperature, 1e-5 at least: 0 is all but an argmax."""
  return logits / max(temperature, 1e-5)


def top_k(logits: jax.Array, k: int) -> jax.Array:
  """Logits [... V], -inf below the k-th largest; 0 keeps all. Ties with the k-th all stay."""
  if k <= 0 or k >= logits.shape[-1]:
    return logits
  largest, places = jax.lax.top_k(logits, k)
  return _keep(logits, largest[..., -1:], places, jnp.ones_like(places, jnp.bool_))


def top_p(logits: jax.Array, p: float) -> jax.Array:
  """Logits [... V], -inf outside the fewest that have probability p together; 1 keeps all.

  The symbol that crosses p stays, and so the most probable one always does (nucleus sampling,
  Holtzman et al., 2020). Deviation: of symbols equally probable at the edge LlamaGen keeps some, as
  an unstable sort has them; here all stay.
  """
  if p >= 1:
    return logits
  places = jnp.argsort(-logits, axis=-1)
  falling = jnp.take_along_axis(logits, places, axis=-1)
  reached = jnp.cumsum(jax.nn.softmax(falling), axis=-1)
  # One is kept while those before it have not gone beyond p.
  kept = jnp.concatenate([jnp.ones_like(reached[..., :1], jnp.bool_), reached[..., :-1] <= p], -1)
  least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
  return _keep(logits, least, places, kept)


def _keep(logits, least, places, kept):
  """What equals `least` or more, and, of `places` [... n] along the last axis, those in `kept`.

  By place too: XLA may compute logits once for a sort and once for a comparison and round them
  otherwise, so that the least of those kept, and even the only one, fell below itself.
  """
  by_place = jnp.zeros_like(logits, jnp.bool_)
  by_place = jnp.put_along_axis(by_place, places, kept, axis=-1, inplace=False)
  return jnp.where(by_place | (logits >= least), logits, -jnp.inf)
