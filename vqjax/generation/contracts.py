"""What samplers and training ask of a transformer over tokens."""

from typing import Any, Protocol, runtime_checkable

import jax

from vqjax.generation.layout import Layout


@runtime_checkable
class Transformer(Protocol):
  """A linen module over symbols [B N] of a `Layout`, given the class of each image.

  Labels are int32 [B] in 0..num_classes; `num_classes` itself is the null class, which stands for
  none: label dropout trains it, guidance asks for it, and without classes (`num_classes=0`) it is
  the only one. Logits are float32 whatever `dtype` is. With `train` dropout draws from the stream
  'dropout'; nothing else is drawn in a module, labels are dropped and tokens masked outside.
  """

  layout: Layout
  num_classes: int

  @property
  def has_null(self) -> bool:
    """Whether the null class has a row of its own; without one there is no guidance."""


class Causal(Transformer, Protocol):
  """Predicts symbol after symbol, in raster order."""

  def __call__(self, symbols: jax.Array, labels: jax.Array, *, train: bool = False) -> jax.Array:
    """Symbols [B N], labels [B] -> logits [B N V]; those at j see the symbols before j alone."""

  def start(self, labels: jax.Array) -> tuple[jax.Array, Any]:
    """Labels [B] -> (logits [B V] of the first symbol, an empty cache but for what stands first).

    The cache is a tree of arrays of fixed shapes with B in front.
    """

  def step(self, symbols: jax.Array, index: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
    """Symbols [B] at place `index` (int32 []) -> (logits [B V] of the next one, the cache)."""


class Masked(Transformer, Protocol):
  """Predicts symbols at the places that are masked, from all others at once."""

  def __call__(self, symbols: jax.Array, labels: jax.Array, *, train: bool = False) -> jax.Array:
    """Symbols [B N], MASKED where unknown, labels [B] -> logits [B N V'], V' >= V.

    What is beyond V, such as a class for the mask itself, a network says in its docstring.
    """


class Sampler(Protocol):
  """Draws symbols: a frozen dataclass of its settings, shown by its repr and hashed by value."""

  def __call__(
    self,
    model: Any,
    params: Any,
    labels: jax.Array,
    keys: jax.Array,
    known: jax.Array | None = None,
  ) -> jax.Array:
    """Labels [B], a typed key of each image [B] -> symbols int32 [B N]; pure, for jit.

    Image i depends on labels[i], keys[i] and known[i] alone, so neither the batch nor the devices
    that it is split over change it. `known` [B N], MASKED where a symbol is to be drawn, is kept as
    it is (inpainting).

    Raises:
      UserError: a setting that does not fit the model, such as guidance without a null class.
    """
