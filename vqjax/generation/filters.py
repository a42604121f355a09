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
  least = jax.lax.top_k(logits, k)[0][..., -1:]
  return jnp.where(logits < least, -jnp.inf, logits)


def top_p(logits: jax.Array, p: float) -> jax.Array:
  """Logits [... V], -inf outside the fewest that have probability p together; 1 keeps all.

  The symbol that crosses p stays, and so the most probable one always does (nucleus sampling,
  Holtzman et al., 2020). Deviation: of symbols equally probable at the edge LlamaGen keeps some, as
  an unstable sort has them; here all stay.
  """
  if p >= 1:
    return logits
  falling = -jnp.sort(-logits, axis=-1)
  reached = jnp.cumsum(jax.nn.softmax(falling), axis=-1)
  # One is kept while those before it have not gone beyond p.
  kept = jnp.concatenate([jnp.ones_like(reached[..., :1], jnp.bool_), reached[..., :-1] <= p], -1)
  least = jnp.min(jnp.where(kept, falling, jnp.inf), axis=-1, keepdims=True)
  return jnp.where(logits < least, -jnp.inf, logits)
