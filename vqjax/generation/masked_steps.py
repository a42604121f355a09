"""What the samplers of masked transformers share: to predict, to draw, and to choose what stays.

What is random comes from each image's own key, folded with the step.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from vqjax.errors import UserError
from vqjax.generation import guidance
from vqjax.generation.layout import MASKED

# (logits [B M V'], step int32 []) -> a symbol of each distribution, int32 [B M]
Draw = Callable[[jax.Array, jax.Array], jax.Array]
# step int32 [] -> Gumbel noise of the confidences, float32 [B N]
Noise = Callable[[jax.Array], jax.Array]

_BLOCKS, _SYMBOLS, _CHOICES, _ROLL = range(4)  # what is drawn, each of a stream of its own


def _gumbel(keys, stream, step, shape):
  """Standard Gumbel noise of typed keys [B], each image's from its own: float32 [B *shape]."""
  fold = lambda key: jax.random.fold_in(jax.random.fold_in(key, stream), step)
  return jax.vmap(lambda key: jax.random.gumbel(fold(key), shape))(keys)


def draw_by(keys: jax.Array) -> Draw:
  """Draws by typed keys [B], by Gumbel-max in two levels.

  First a block of about sqrt(V) symbols by what they weigh together, then a symbol of it: the same
  distribution as that of the largest of all logits plus noise, for 2 sqrt(V) numbers in place of V,
  whose making takes longer than a small network's pass.
  """

  def draw(logits, step):
    size = math.isqrt(logits.shape[-1])
    rest = -logits.shape[-1] % size
    blocks = jnp.pad(logits, ((0, 0), (0, 0), (0, rest)), constant_values=-jnp.inf)
    blocks = blocks.reshape(*logits.shape[:2], -1, size)
    weights = jax.nn.logsumexp(blocks, axis=-1)
    weights = weights + _gumbel(keys, _BLOCKS, step, weights.shape[1:])
    block = jnp.argmax(weights, axis=-1)
    within = jnp.take_along_axis(blocks, block[..., None, None], axis=2)[:, :, 0]
    within = within + _gumbel(keys, _SYMBOLS, step, within.shape[1:])
    return block * size + jnp.argmax(within, axis=-1)

  return draw


def choices_by(keys: jax.Array, length: int) -> Noise:
  """Noise of the confidences by typed keys [B]."""
  return lambda step: _gumbel(keys, _CHOICES, step, (length,))


def rolls_by(keys: jax.Array, count: int) -> jax.Array:
  """A whole number below `count` by typed keys [B]: int32 [B]."""
  roll = lambda key: jax.random.randint(jax.random.fold_in(key, _ROLL), (), 0, count)
  return jax.vmap(roll)(keys)


def require(sampler: Any, *rules: tuple[str, bool, str]) -> None:
  """Refuses settings, each given by its name, whether it is legal, and what is."""
  for name, is_legal, legal in (
    ('steps', sampler.steps >= 1, '1 or more, up to the symbols of an image'),
    ('guidance', sampler.guidance == 0 or sampler.guidance >= 1, '0 or 1 (none), or more'),
    *rules,
  ):
    if not is_legal:
      raise UserError(f'{name} is {getattr(sampler, name)!r}; legal: {legal}.')


def fits(sampler: Any, model: Any) -> None:
  """Refuses more steps than symbols, and guidance that the model cannot have."""
  length = model.layout.length
  if sampler.steps > length:
    raise UserError(
      f'steps is {sampler.steps}; legal: 1..{length}, as an image has {length} symbols.'
    )
  guidance.check(sampler.guidance, model)


def start_from(model: Any, labels: jax.Array, known: jax.Array | None) -> jax.Array:
  """What is known, MASKED elsewhere: int32 [B N]."""
  if known is None:
    return jnp.full((len(labels), model.layout.length), MASKED, jnp.int32)
  return known.astype(jnp.int32)


def predict(
  sampler: Any,
  model: Any,
  params: Any,
  symbols: jax.Array,
  labels: jax.Array,
  scale: ArrayLike,
  places: jax.Array | None = None,
) -> jax.Array:
  """Logits [B N V'] with guidance of a scale, or those at places [B M] alone, [B M V']."""
  guided = guidance.check(sampler.guidance, model)
  if guided:
    symbols, labels = guidance.doubled(symbols), guidance.doubled_labels(labels, model.num_classes)
    places = None if places is None else guidance.doubled(places)
  logits = model.apply({'params': params}, symbols, labels)
  if places is not None:
    logits = jnp.take_along_axis(logits, places[..., None], axis=1)
  if guided:
    logits = guidance.guide(*guidance.halves(logits), scale)
  return logits


def ranks(confidence: jax.Array) -> jax.Array:
  """The place of each among those of its image, 0 for the least: int32 [B N].

  Not by comparison with the k-th: XLA may compute a number once for a sort and once for that, and
  round it otherwise. Of equal ones the first in the sequence is the least.
  """
  return jnp.argsort(jnp.argsort(confidence, axis=1), axis=1)


def symbols_of(drawn: jax.Array, model: Any) -> jax.Array:
  """What was drawn, MASKED for what is beyond V."""
  return jnp.where(drawn < model.layout.base, drawn, MASKED).astype(jnp.int32)


def log_p(logits: jax.Array, drawn: jax.Array) -> jax.Array:
  """Of what was drawn from logits [B N V']: float32 [B N]."""
  picked = jnp.take_along_axis(logits, drawn[..., None], axis=-1)[..., 0]
  return picked - jax.nn.logsumexp(logits, axis=-1)


def filled(model: Any, symbols: jax.Array) -> jax.Array:
  """Of every step's symbols [T B N] the last, V - 1 where the mask itself was drawn."""
  last = jnp.where(symbols[-1] == MASKED, model.layout.base - 1, symbols[-1])
  return symbols.at[-1].set(last)
