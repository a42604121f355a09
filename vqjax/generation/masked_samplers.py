"""Samplers of masked transformers: all symbols are predicted at once, and a few of them kept.

`trace` takes what is random from elsewhere, and shows every step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqjax.generation import filters, masked_steps, orders
from vqjax.generation.layout import MASKED

_INVERSE = ('inverse_temperature_start', 'inverse_temperature_end')


@dataclasses.dataclass(frozen=True)
class HaltonSampler:
  """Reveals symbols in an order that is fixed before; see `orders.halton`.

  Besnier et al., Halton Scheduler for Masked Generative Image Transformer (ICLR 2025). Step t of T
  draws the next symbols of the order, up to `max(t + 1, int(N (1 - arccos((t + 1) / T) / (pi /
  2))))` of them, from softmax(b_t (u + s (c - u))) of the conditional and unconditional logits, and
  never revises one. The parts of a cell stand side by side in the order. A draw may be the mask
  itself, where the network has it among its classes: the symbol then stays masked for later steps
  and becomes V - 1 at the end, as in the original.

  Attributes:
    steps: T, 1..N.
    guidance: s in every step; 0 or 1 without, and then no unconditional pass is made. The
      original's w is s - 1.
    inverse_temperature_start: what multiplies the logits at the first step (`sm_temp_min`); larger
      is more certain.
    inverse_temperature_end: the same at the last step, linear between (`sm_temp_max`).
    temp_power: exponent of that line.
    temp_warmup: steps at the beginning whose inverse temperature is halved.
    top_k: draws among so many of the most probable symbols; 0 for all.
    randomize: begins an image's order at a place of its own.
  """

  steps: int = 32
  guidance: float = 1.0
  inverse_temperature_start: float = 1.0
  inverse_temperature_end: float = 1.0
  temp_power: float = 1.0
  temp_warmup: int = 0
  top_k: int = 0
  randomize: bool = False

  def __post_init__(self) -> None:
    masked_steps.require(
      self,
      ('top_k', self.top_k >= 0, '0 (all symbols) or more'),
      *((name, getattr(self, name) >= 0, '0 or more') for name in _INVERSE),
      ('temp_power', self.temp_power >= 0, '0 or more'),
      ('temp_warmup', self.temp_warmup >= 0, '0 (no step) or more'),
    )

  def __call__(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    keys: jax.Array,
    known: jax.Array | None = None,
  ) -> jax.Array:
    """See `contracts.Sampler`."""
    rolls = None
    if self.randomize:
      cells = int(np.prod(model.layout.grid))
      rolls = masked_steps.rolls_by(keys, cells)
    return self.trace(model, params, labels, masked_steps.draw_by(keys), known, rolls)[-1]

  def trace(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    draw: masked_steps.Draw,
    known: jax.Array | None = None,
    rolls: jax.Array | None = None,
  ) -> jax.Array:
    """The symbols after every step, MASKED where none is: int32 [T B N].

    `rolls` int32 [B]: cell i of an image's order is cell (i - roll) mod (h w) of `orders.halton`.
    """
    masked_steps.fits(self, model)
    length, parts = model.layout.length, model.layout.parts
    counts = np.append(0, orders.reveal_counts(length, orders.steps_done(self.steps)))
    most = int(np.diff(counts).max())  # of a step: no other symbols are drawn
    order = jnp.asarray(orders.halton(model.layout))[None]
    if rolls is not None:
      at = jnp.arange(order.shape[1])[None] - rolls[:, None]
      order = jnp.take(order[0], at % order.shape[1])
    order = order[:, :, None] * parts + jnp.arange(parts, dtype=jnp.int32)[None, None]
    order = jnp.broadcast_to(order.reshape(len(order), length), (len(labels), length))
    order = jnp.pad(order, ((0, 0), (0, most)))  # so that no slice reaches beyond it

    start = masked_steps.start_from(model, labels, known)

    def step(symbols, now):
      t, begin, end, inverse_temperature = now
      places = jax.lax.dynamic_slice_in_dim(order, begin, most, axis=1)
      logits = masked_steps.predict(self, model, params, symbols, labels, self.guidance, places)
      logits = filters.top_k(inverse_temperature * logits, self.top_k)
      drawn = masked_steps.symbols_of(draw(logits, t), model)
      due = jnp.arange(most)[None] < end - begin
      due &= jnp.take_along_axis(start, places, axis=1) == MASKED
      put = lambda row, place, new: row.at[place].set(new, mode='drop')
      symbols = jax.vmap(put)(symbols, jnp.where(due, places, length), drawn)
      return symbols, symbols

    each = (jnp.arange(self.steps), counts[:-1], counts[1:], self._inverse_temperatures())
    return masked_steps.filled(model, jax.lax.scan(step, start, jax.tree.map(jnp.asarray, each))[1])

  def _inverse_temperatures(self):
    line = np.linspace(self.inverse_temperature_start, self.inverse_temperature_end, self.steps)
    warming = np.arange(self.steps) < self.temp_warmup
    return (line**self.temp_power * np.where(warming, 0.5, 1.0)).astype(np.float32)


_RANDOMIZE = ('linear', 'warm_up', 'random', 'no')


@dataclasses.dataclass(frozen=True)
class ConfidenceSampler:
  """Reveals the symbols that are most probable, as Halton-MaskGIT's other sampler does.

  Step t of T draws a symbol at every place and writes those whose confidence, log p plus noise, is
  among the k_t largest, `k_t = max(t + 1, int(N (1 - rate(t / (T - 1)))))`. What was revealed
  before counts among them and is written anew: symbols are revised until the last step. Guidance
  and noise follow the line t / (T - 1): the scale grows from 1, the noise falls to 0.

  Deviations: symbols in `known` are not overwritten, which the original's are; a single step
  reveals everything, not one symbol; equally confident symbols at the edge are not all revealed.

  Attributes:
    steps: T, 1..N.
    guidance: s of the last step; 0 or 1 without. The original's w is s - 1.
    inverse_temperature: what multiplies the logits (`sm_temp`).
    choice_temperature: of the confidences' Gumbel noise at first (`r_temp`).
    schedule: of `masking`; the original's are arccos, cosine, linear, root and square.
    randomize: 'linear' as above; 'warm_up', any symbols in the first two steps and no noise later;
      'random', any symbols in every step; 'no', no noise.
  """

  steps: int = 12
  guidance: float = 1.0
  inverse_temperature: float = 1.0
  choice_temperature: float = 4.5
  schedule: str = 'arccos'
  randomize: str = 'linear'

  def __post_init__(self) -> None:
    masked_steps.require(
      self,
      ('inverse_temperature', self.inverse_temperature >= 0, '0 or more'),
      ('choice_temperature', self.choice_temperature >= 0, '0 (no noise) or more'),
      ('randomize', self.randomize in _RANDOMIZE, ', '.join(_RANDOMIZE)),
    )

  def __call__(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    keys: jax.Array,
    known: jax.Array | None = None,
  ) -> jax.Array:
    """See `contracts.Sampler`."""
    noise = masked_steps.choices_by(keys, model.layout.length)
    return self.trace(model, params, labels, masked_steps.draw_by(keys), noise, known)[0][-1]

  def trace(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    draw: masked_steps.Draw,
    noise: masked_steps.Noise,
    known: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Every step's (symbols after it, symbols drawn in it), MASKED where none is: int32 [T B N]."""
    masked_steps.fits(self, model)
    length = model.layout.length
    progress = orders.steps_begun(self.steps)
    counts = orders.reveal_counts(length, progress, self.schedule)
    start = masked_steps.start_from(model, labels, known)

    def step(symbols, now):
      t, count, done = now
      scale = 1 + (self.guidance - 1) * done
      logits = masked_steps.predict(self, model, params, symbols, labels, scale)
      logits = self.inverse_temperature * logits
      drawn = draw(logits, t)
      confidence = self._confidence(t, done, masked_steps.log_p(logits, drawn), noise(t))
      drawn = masked_steps.symbols_of(drawn, model)
      confidence = jnp.where(symbols == MASKED, confidence, jnp.inf)
      write = (masked_steps.ranks(confidence) >= length - count) & (start == MASKED)
      symbols = jnp.where(write, drawn, symbols)
      return symbols, (symbols, drawn)

    each = (jnp.arange(self.steps), jnp.asarray(counts), jnp.asarray(progress))
    symbols, drawn = jax.lax.scan(step, start, each)[1]
    return masked_steps.filled(model, symbols), drawn

  def _confidence(self, t, done, log_p, noise):
    if self.randomize == 'linear':
      return log_p + self.choice_temperature * (1 - done) * noise
    first = {'warm_up': 2, 'random': self.steps, 'no': 0}[self.randomize]
    # In place of uniform numbers: they only rank the symbols.
    return jnp.where(t < first, noise, log_p)


@dataclasses.dataclass(frozen=True)
class MaskGITSampler:
  """Reveals the symbols that are most probable, as MaskGIT does.

  Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022). Step t of T draws a symbol
  at every unknown place; those whose confidence, log p plus noise, is among the m_t smallest are
  masked again, `m_t = max(1, min(unknown - 1, int(U rate((t + 1) / T))))`, of U unknown at first.
  Nothing that stays is revised. The last step's symbols are the result, none masked.

  Deviation: guidance, which the original does not have and its network cannot have.

  Attributes:
    steps: T, 1..N.
    guidance: s in every step, `u + s (c - u)`; 0 or 1 without.
    choice_temperature: of the confidences' Gumbel noise, times 1 - (t + 1) / T.
    schedule: of `masking`; the original's are cosine, linear, powX, log and exp.
    start: the step to begin at, to change a part of an image in fewer steps.
  """

  steps: int = 12
  guidance: float = 1.0
  choice_temperature: float = 4.5
  schedule: str = 'cosine'
  start: int = 0

  def __post_init__(self) -> None:
    masked_steps.require(
      self,
      ('choice_temperature', self.choice_temperature >= 0, '0 (no noise) or more'),
      ('start', 0 <= self.start < self.steps, '0 or more, and less than steps'),
    )

  def __call__(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    keys: jax.Array,
    known: jax.Array | None = None,
  ) -> jax.Array:
    """See `contracts.Sampler`."""
    noise = masked_steps.choices_by(keys, model.layout.length)
    return self.trace(model, params, labels, masked_steps.draw_by(keys), noise, known)[1][-1]

  def trace(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    draw: masked_steps.Draw,
    noise: masked_steps.Noise,
    known: jax.Array | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Every step's (symbols after it, MASKED where masked again, all symbols): int32 [T-start B N].

    Both are asked for by the steps 0..T-1-start, counted from `start`.
    """
    masked_steps.fits(self, model)
    layout = model.layout
    lengths = jnp.asarray(orders.mask_lengths(layout.length, self.steps, self.schedule))
    start = masked_steps.start_from(model, labels, known)
    initial = jnp.sum(start == MASKED, axis=1)  # U

    def step(symbols, now):
      t, length, done = now
      unknown = symbols == MASKED
      logits = masked_steps.predict(self, model, params, symbols, labels, self.guidance)
      logits = logits[..., : layout.base]
      drawn = draw(logits, t)
      choice = self.choice_temperature * (1 - done) * noise(t)
      confidence = jnp.where(unknown, masked_steps.log_p(logits, drawn) + choice, jnp.inf)
      drawn = jnp.where(unknown, masked_steps.symbols_of(drawn, model), symbols)
      count = jnp.minimum(jnp.sum(unknown, axis=1) - 1, jnp.take(length, initial))
      count = jnp.maximum(count, 1)[:, None]
      symbols = jnp.where(unknown & (masked_steps.ranks(confidence) < count), MASKED, drawn)
      return symbols, (symbols, drawn)

    each = (lengths[self.start :], jnp.asarray(orders.steps_done(self.steps))[self.start :])
    return jax.lax.scan(step, start, (jnp.arange(self.steps - self.start), *each))[1]
