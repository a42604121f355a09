"""What the training of a transformer over tokens minimises: a dataclass for each published recipe.

All are functions of an apply, which is the network with its weights, and of symbols, labels and a
key of each image. What is drawn for an image comes from its own key, so that neither the batch nor
the devices that it is split over matter; a look at held-out images gives them keys that stay.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vqjax.generation import masking
from vqjax.generation.layout import MASKED

# The held-out number that ranks checkpoints. Not the loss: of few images it rises again while what
# is drawn still gets better, as it punishes a network that is too sure of itself.
BEST_METRIC = 'token_accuracy'

# (symbols [B N], labels [B], **what a network takes beside them) -> logits [B N V].
Apply = Callable[..., jax.Array]
Loss = tuple[jax.Array, dict[str, jax.Array]]  # of each image: the loss [B], others [B] by name


class Objective(Protocol):
  """A recipe: a frozen dataclass of its settings.

  Attributes:
    label_drop: the probability that an image trains the null class in place of its own.
  """

  @property
  def label_drop(self) -> float: ...

  def __call__(
    self,
    apply: Apply,
    symbols: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    progress: jax.Array,
    *,
    null: int,
  ) -> Loss:
    """Symbols int32 [B N], labels int32 [B], typed keys [B] -> (loss [B], numbers [B] by name).

    The loss is a mean over those positions of an image that count, in nats, float32, and
    `token_accuracy` the share of those whose largest logit is the symbol's. `progress` [] is the
    share of the run that is done, `null` the label of the null class.
    """


def held_out(objective: Any) -> Any:
  """The same objective without what makes training harder than its task: no labels are dropped."""
  return dataclasses.replace(objective, label_drop=0.0)


@dataclasses.dataclass(frozen=True)
class Causal:
  """Each symbol from those before it, as LlamaGen trains: the mean over all positions.

  Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation (2024).
  """

  label_drop: float = 0.1

  def __call__(
    self,
    apply: Apply,
    symbols: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    progress: jax.Array,
    *,
    null: int,
  ) -> Loss:
    """See `Objective`."""
    labels = drop_labels(labels, keys, self.label_drop, null)
    logits = apply(symbols, labels)
    return _loss(logits, symbols, jnp.ones(symbols.shape, jnp.bool_))


@dataclasses.dataclass(frozen=True)
class Permuted:
  """Each symbol from those before it in an order of its image's own, which becomes raster (RAR).

  Yu et al., Randomized Autoregressive Visual Generation (2024): an image has a uniformly random
  order with a probability that is 1 up to `anneal_start`, 0 from `anneal_end` on, both shares of
  the run, and falls linearly between; raster order otherwise. The symbols of a cell, where it has
  several, are visited apart.

  Attributes:
    label_drop: see `Objective`.
    anneal_start: share of the run with random orders alone.
    anneal_end: share of the run after which all orders are raster.
  """

  label_drop: float = 0.1
  anneal_start: float = 0.5
  anneal_end: float = 0.75

  def __call__(
    self,
    apply: Apply,
    symbols: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    progress: jax.Array,
    *,
    null: int,
  ) -> Loss:
    """See `Objective`; logits are asked for with `orders` [B N], and come in that order."""
    labels = drop_labels(labels, keys, self.label_drop, null)
    orders = self.orders(keys, progress, symbols.shape[1])
    logits = apply(symbols, labels, orders=orders)
    targets = jnp.take_along_axis(symbols, orders, axis=1)
    return _loss(logits, targets, jnp.ones(targets.shape, jnp.bool_))

  def orders(self, keys: jax.Array, progress: jax.Array, length: int) -> jax.Array:
    """An order of each image: typed keys [B] -> int32 [B N]."""
    span = max(self.anneal_end - self.anneal_start, 1e-9)
    chance = jnp.clip((self.anneal_end - progress) / span, 0.0, 1.0)

    def of(key):
      chosen, order = jax.random.split(jax.random.fold_in(key, _ORDERS))
      permuted = jax.random.permutation(order, jnp.arange(length, dtype=jnp.int32))
      random = jax.random.uniform(chosen) < chance
      return jnp.where(random, permuted, jnp.arange(length, dtype=jnp.int32))

    return jax.vmap(of)(keys)


@dataclasses.dataclass(frozen=True)
class Halton:
  """Masked symbols from the others, as Halton-MaskGIT trains: the mean over all positions.

  Besnier et al., Halton Scheduler For Masked Generative Image Transformer (ICLR 2025): every symbol
  is masked by itself, with a probability that `schedule` gives for a number uniform in [0, 1). The
  positions that are not masked count too, and the mask is one of the classes, K + 1 in all.
  `token_accuracy` is of masked positions.

  Attributes:
    label_drop: see `Objective`.
    schedule: name in `masking.RATES`.
  """

  label_drop: float = 0.1
  schedule: str = 'arccos'

  def __call__(
    self,
    apply: Apply,
    symbols: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    progress: jax.Array,
    *,
    null: int,
  ) -> Loss:
    """See `Objective`."""
    labels = drop_labels(labels, keys, self.label_drop, null)
    hidden = masking.independent(_fold(keys, _MASKS), symbols.shape[1], self.schedule)
    logits = apply(jnp.where(hidden, MASKED, symbols), labels)
    return _loss(logits, symbols, jnp.ones(symbols.shape, jnp.bool_), judged=hidden)


@dataclasses.dataclass(frozen=True)
class MaskGIT:
  """Masked symbols from the others, as MaskGIT trains: the mean over the masked positions.

  Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022): so many symbols of an
  image are masked as `schedule` gives for a number uniform in [0, 1), and at least the share
  `min_rate`; the loss has smoothed labels. No training loop was released: the mask follows the
  paper, and how its authors' `min_masking_rate` enters is a guess.

  Attributes:
    label_drop: see `Objective`; the published network has no null class.
    schedule: name in `masking.RATES`.
    min_rate: the least share of symbols that is masked.
    label_smoothing: share of the target that is spread over all classes.
  """

  label_drop: float = 0.0
  schedule: str = 'cosine'
  min_rate: float = 0.5
  label_smoothing: float = 0.1

  def __call__(
    self,
    apply: Apply,
    symbols: jax.Array,
    labels: jax.Array,
    keys: jax.Array,
    progress: jax.Array,
    *,
    null: int,
  ) -> Loss:
    """See `Objective`."""
    labels = drop_labels(labels, keys, self.label_drop, null)
    hidden = masking.exact(_fold(keys, _MASKS), symbols.shape[1], self.schedule, self.min_rate)
    logits = apply(jnp.where(hidden, MASKED, symbols), labels)
    return _loss(logits, symbols, hidden, smoothing=self.label_smoothing)


# What is drawn of an image's key, each from a stream of its own.
_LABELS, _ORDERS, _MASKS = range(3)


def drop_labels(labels: jax.Array, keys: jax.Array, rate: float, null: int) -> jax.Array:
  """Each label int32 [B] becomes `null` with this probability, by the keys [B]."""
  if not rate:
    return labels
  dropped = jax.vmap(lambda key: jax.random.uniform(key) < rate)(_fold(keys, _LABELS))
  return jnp.where(dropped, jnp.int32(null), labels)


def _fold(keys, stream):
  return jax.vmap(lambda key: jax.random.fold_in(key, stream))(keys)


def _loss(logits, targets, counted, *, judged=None, smoothing=0.0):
  """Cross-entropy [B] over the positions `counted` [B N] and accuracy over `judged` ones."""
  logits = logits.astype(jnp.float32)
  # Not by log_softmax: of many codes an array as large as the logits is slow to write and read.
  total = jax.nn.logsumexp(logits, axis=-1)
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  loss = total - picked
  if smoothing:
    loss = (1 - smoothing) * loss + smoothing * (total - jnp.mean(logits, axis=-1))
  right = jnp.argmax(logits, axis=-1) == targets
  judged = counted if judged is None else judged
  return _mean(loss, counted), {'token_accuracy': _mean(right.astype(jnp.float32), judged)}


def _mean(values, where):
  """Over the positions that count: [B N] -> [B]; 0 where none does."""
  weights = where.astype(jnp.float32)
  return jnp.sum(values * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


OBJECTIVES: dict[str, Any] = {
  'causal': Causal,
  'permuted': Permuted,
  'halton': Halton,
  'maskgit': MaskGIT,
}
