"""Optimizers of a codebook by name: values that can be written down, compared and hashed."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import optax

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
  'sgd': optax.sgd,
  'adam': optax.adam,
}


class Optimizer(Protocol):
  """What an optax transformation is."""

  def init(self, params: Any, /) -> Any:
    """The state at the start."""

  def update(self, updates: Any, state: Any, params: Any = None, /) -> tuple[Any, Any]:
    """(updates, state) of a gradient."""


@dataclasses.dataclass(frozen=True)
class NamedOptimizer:
  """An optimizer of optax by name and settings: `NamedOptimizer.of('sgd', learning_rate=0.1)`.

  It does what `optax.sgd(learning_rate=0.1)` does. That is made of functions, which equal nothing
  but themselves: a quantizer with it, built twice, would compile twice. This equals its like.

  Attributes:
    name: of `OPTIMIZERS`.
    settings: its keyword arguments, as sorted pairs.
  """

  name: str
  settings: tuple[tuple[str, Any], ...]

  def __post_init__(self) -> None:
    if self.name not in OPTIMIZERS:
      raise ValueError(f'optimizer is {self.name!r}; legal: {", ".join(OPTIMIZERS)}.')
    try:
      self._made()
    except TypeError as error:
      raise ValueError(f'optimizer {self.name!r}: {error}.') from error

  @classmethod
  def of(cls, name: str, **settings: Any) -> 'NamedOptimizer':
    """The optimizer of that name with these keyword arguments."""
    return cls(name, tuple(sorted(settings.items())))

  def init(self, params: Any) -> Any:
    return self._made().init(params)

  def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    moved: tuple[Any, Any] = self._made().update(updates, state, params)
    return moved

  def _made(self) -> optax.GradientTransformation:
    return OPTIMIZERS[self.name](**dict(self.settings))
