"""A quantizer to a plain dict: the inverse of `build`."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from vqjax.quantizers import learners
from vqjax.quantizers.build import QUANTIZERS
from vqjax.quantizers.choices import CHOICES
from vqjax.quantizers.optimizers import NamedOptimizer
from vqjax.quantizers.quantizer import Quantizer

NAMES = {kind: name for name, kind in QUANTIZERS.items()}


def spec(
  quantizer: Quantizer, *, shown: Mapping[str, Collection[str]] | None = None
) -> dict[str, Any]:
  """The dict of which `build` makes this quantizer: `build(spec(q)) == q`.

  It holds names, numbers and tuples, so that JSON can keep it, and of fields and settings those
  that differ from the default: `{'num_codes': 512, 'learner': {'name': 'ema', 'decay': 0.9}}`.

  Args:
    quantizer: of any structure that `build` makes.
    shown: {name of a quantizer or of a choice: its fields that are written whatever their value},
      such as `{'vector': ['estimator'], 'ema': ['decay']}`.

  Raises:
    ValueError: something of it has no name, such as a function of your own.
  """
  return _quantizer(quantizer, shown or {})


def _quantizer(quantizer: Quantizer, shown: Mapping[str, Collection[str]]) -> dict[str, Any]:
  name = NAMES.get(type(quantizer))
  if name is None:
    raise ValueError(f'{type(quantizer).__name__} has no name; legal: {", ".join(QUANTIZERS)}.')
  written = {} if name == 'vector' else {'name': name}
  for field in dataclasses.fields(quantizer):
    value, always = getattr(quantizer, field.name), field.name in shown.get(name, ())
    if field.name not in ('parent', 'name') and (always or value != field.default):
      written[field.name] = _value(field.name, value, shown)
  return written


def _value(field: str, value: Any, shown: Mapping[str, Collection[str]]) -> Any:
  if isinstance(value, Quantizer):
    return _quantizer(value, shown)
  if field == 'regularizers':
    return tuple(_choice(field, entry, shown) for entry in value)
  if field in CHOICES:
    return _choice(field, value, shown)
  return _plain(field, value)


def _choice(field: str, value: Any, shown: Mapping[str, Collection[str]]) -> Any:
  """The name of a value; where it has settings of its own, a dict of the name and those."""
  if isinstance(value, learners.Alternating):
    return _alternating(value)
  found: list[tuple[str, list[str]]] = []
  for name, named in CHOICES[field].items():
    if named is value:
      found.append((name, []))
    elif type(named) is type(value) and dataclasses.is_dataclass(value):
      names = [f.name for f in dataclasses.fields(value)]
      found.append((name, [n for n in names if getattr(value, n) != getattr(named, n)]))
  if not found:
    raise ValueError(f'{field} is {value}, which has no name; legal: {", ".join(CHOICES[field])}.')
  name, differing = min(found, key=lambda pair: len(pair[1]))  # `tangent_rotation` is a `rotation`
  settings = {n: _setting(n, getattr(value, n), shown) for n in (*shown.get(name, ()), *differing)}
  return {'name': name, **settings} if settings else name


def _setting(name: str, value: Any, shown: Mapping[str, Collection[str]]) -> Any:
  return _choice('estimator', value, shown) if name == 'base' else _plain(name, value)


def _alternating(value: learners.Alternating) -> dict[str, Any]:
  optimizer = value.optimizer
  if not isinstance(optimizer, NamedOptimizer):
    raise ValueError(
      f'the optimizer of Alternating is {optimizer}, which has no name; legal: '
      "NamedOptimizer.of('sgd', learning_rate=...), or another of its names."
    )
  settings = {name: _plain(name, setting) for name, setting in optimizer.settings}
  return {'name': 'alternating', 'optimizer': optimizer.name, **settings}


def _plain(name: str, value: Any) -> Any:
  """A value that JSON can keep."""
  if isinstance(value, tuple):
    return tuple(_plain(name, entry) for entry in value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ValueError(f'{name} is {value}; legal in a dict: numbers, names, and tuples of them.')
