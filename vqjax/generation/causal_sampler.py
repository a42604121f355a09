"""Symbols drawn one after another, each given those before it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vqjax.errors import UserError
from vqjax.generation import filters, guidance
from vqjax.generation.layout import MASKED


@dataclasses.dataclass(frozen=True)
class CausalSampler:
  """LlamaGen's and RAR's sampler: `contracts.Sampler` for causal transformers.

  The keys and values of what was drawn are kept, so that each symbol takes one place's pass. With
  guidance the null class runs along as the other half of a batch twice as large.

  Attributes:
    temperature: divides the logits; at 0 the most probable symbol is taken.
    top_k: how many of the most probable symbols are drawn from; 0 for all.
    top_p: what probability those that are drawn from have together; 1 for all.
    guidance: scale s of `u + s (c - u)`; 0 or 1 for none.
    guidance_interval: LlamaGen's, the symbols 0..k+1 are guided and those behind are not; -1 for
      all.
    guidance_power: RAR's, the scale grows from 1 to s along a cosine of this power; 0 for s always.

  Raises:
    UserError: a value outside these.
  """

  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  guidance: float = 0.0
  guidance_interval: int = -1
  guidance_power: float = 0.0

  def __post_init__(self) -> None:
    for name, is_legal, legal in (
      ('temperature', self.temperature >= 0, '0 (the most probable symbol) or more'),
      ('top_k', self.top_k >= 0, '0 (all symbols) or more'),
      ('top_p', 0 < self.top_p <= 1, 'above 0, and 1 (all symbols) at most'),
      ('guidance', self.guidance == 0 or self.guidance >= 1, '0 or 1 (none), or more'),
      ('guidance_interval', self.guidance_interval >= -1, '-1 (all symbols) or more'),
      ('guidance_power', self.guidance_power >= 0, '0 (a constant scale) or more'),
    ):
      if not is_legal:
        raise UserError(f'{name} is {getattr(self, name)}; legal: {legal}.')

  def __call__(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    keys: jax.Array,
    known: jax.Array | None = None,
  ) -> jax.Array:
    """See `contracts.Sampler`."""

    def noise(place):
      fold = jax.vmap(lambda key: jax.random.fold_in(key, place))
      return jax.vmap(lambda key: jax.random.gumbel(key, (model.layout.base,)))(fold(keys))

    return self.trace(model, params, labels, noise, known)[0]

  def trace(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    noise: Callable[[jax.Array], jax.Array],
    known: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """As the call, with the noise given and the logits shown.

    Args:
      model: as in the call, and so all that is not named here.
      params: of it.
      labels: [B].
      noise: place of a symbol, int32 [] -> what is added to its filtered logits [B V] before the
        largest is taken: Gumbel's for a draw, zeros for the most probable symbol.
      known: [B N].

    Returns:
      (symbols int32 [B N], logits [B N V] after guidance, before they are filtered).
    """
    length, batch = model.layout.length, len(labels)
    guided = guidance.check(self.guidance, model)
    apply: Any = functools.partial(model.apply, {'params': params})
    if guided:
      labels = guidance.doubled_labels(labels, model.num_classes)
    scales = guidance.power_cosine(self.guidance, length, self.guidance_power)
    if self.guidance_interval >= 0:
      scales = guidance.until(scales, self.guidance_interval + 1)
    if known is None:
      known = jnp.full((batch, length), MASKED, jnp.int32)
    places = jnp.arange(length), jnp.asarray(scales), known.T

    def draw(logits, at):
      place, scale, given = at
      if guided:
        logits = guidance.guide(*guidance.halves(logits), scale)
      left = filters.temper(logits, self.temperature)
      left = filters.top_p(filters.top_k(left, self.top_k), self.top_p)
      drawn = jnp.argmax(left + noise(place), axis=-1).astype(jnp.int32)
      return jnp.where(given == MASKED, drawn, given), logits

    def step(carry, inputs):
      symbols, cache = carry
      index, at = inputs
      fed = guidance.doubled(symbols) if guided else symbols
      logits, cache = apply(fed, index, cache, method='step')
      symbols, logits = draw(logits, at)
      return (symbols, cache), (symbols, logits)

    logits, cache = apply(labels, method='start')
    first = draw(logits, jax.tree.map(lambda x: x[0], places))
    rest = places[0][:-1], jax.tree.map(lambda x: x[1:], places)
    _, others = jax.lax.scan(step, (first[0], cache), rest)
    join = lambda one, more: jnp.concatenate([one[:, None], more.swapaxes(0, 1)], axis=1)
    symbols, logits = jax.tree.map(join, first, others)
    return symbols, logits
