"""What the fields of a quantizer may be: by name, by value, and of which type."""

import ast
import dataclasses
import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

from vqjax.quantizers import (
  assignments,
  estimators,
  initializers,
  learners,
  regularizers,
  replacement,
  sinkhorn,
  transforms,
)
from vqjax.quantizers.optimizers import OPTIMIZERS, NamedOptimizer

ESTIMATORS: dict[str, estimators.EstimatorLike] = {
  'straight_through': estimators.straight_through,
  'rotation': estimators.rotation,
  'tangent_rotation': estimators.tangent_rotation,
  'reflection': estimators.reflection,
  'directional': estimators.Directional(),
  'sync': estimators.Sync(),
}

# Named values that a config may name, by field. A name stands for itself, or for
# {'name': NAME, **settings} where it has settings.
CHOICES: dict[str, dict[str, Any]] = {
  'estimator': dict(ESTIMATORS),
  'assign': {
    'nearest': assignments.Nearest(),
    'nearest_kernel': assignments.Nearest(kernel=True),
    'sinkhorn': sinkhorn.Sinkhorn(),
    'stochastic': assignments.Stochastic(),
    'gumbel': assignments.Gumbel(),
  },
  'eval_assign': {
    'nearest': assignments.Nearest(),
    'nearest_kernel': assignments.Nearest(kernel=True),
    'sinkhorn': sinkhorn.Sinkhorn(),
  },
  'transform': {
    'none': None,
    'linear': transforms.Linear(),
    'affine': transforms.Affine(),
    'running_affine': transforms.RunningAffine(),
  },
  'learner': {
    'gradient': None,
    'ema': learners.Ema(),
    'alternating': learners.Alternating,  # {'optimizer': 'sgd', 'learning_rate': ..., ...}
    'frozen': learners.Frozen(),
  },
  'replacement': {
    'none': None,
    'least_recent': replacement.LeastRecent(),
    'rarely_used': replacement.RarelyUsed(),
  },
  'regularizers': {
    'entropy': regularizers.Entropy(),
    'orthogonality': regularizers.Orthogonality(),
    'kl_to_uniform': regularizers.KLToUniform(),
  },
  'codebook_init': {
    'uniform': initializers.uniform_codebook,
    'normal': initializers.NormalCodebook(),
    'lecun_uniform': initializers.lecun_uniform,
    'kaiming': initializers.kaiming,
    'unit_normal': initializers.unit_normal,
  },
}

# What a value of such a field has, beside being no class; None where `None` is a name's.
_HAS: dict[str, tuple[str, ...]] = {
  'transform': ('init', 'codes'),
  'learner': ('init', 'update'),
  'replacement': ('init', 'observe', 'dead'),
  'regularizers': ('name', 'weight', '__call__'),
}
_CALLED = ('__call__',)


def settle(fields: Mapping[str, Any], where: str, declared: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a quantizer with names in place of choices replaced by what they stand for.

  Args:
    fields: by name, as they were given.
    where: name of the quantizer, for messages.
    declared: the annotation of each field.

  Returns:
    Those that change.

  Raises:
    ValueError: an unknown name, a class in the place of an instance, or a value of another type;
      a weight below 0.
  """
  changed = {}
  for field, value in fields.items():
    if field == 'regularizers':
      if not isinstance(value, list | tuple):
        raise ValueError(
          f'{where}.regularizers is {value!r}; legal: a tuple, such as (Entropy(0.1),), or one of '
          f'names: {", ".join(CHOICES[field])}.'
        )
      found: Any = tuple(_settled(field, entry, where) for entry in value)
    elif field in CHOICES:
      found = _settled(field, value, where)
    else:
      _check_type(value, declared.get(field), f'{where}.{field}')
      continue
    if found is not value:
      changed[field] = found
  return changed


def _settled(field: str, value: Any, where: str) -> Any:
  if isinstance(value, str | Mapping):
    return choice(field, value)
  names = f'or a name: {", ".join(CHOICES[field])}'
  if isinstance(value, type):
    raise ValueError(
      f'{where}.{field} is the class {value.__name__}; legal: an instance, such as '
      f'{value.__name__}(), {names}.'
    )
  needed = _HAS.get(field, _CALLED)
  optional = value is None and None in CHOICES[field].values()
  if not optional and not all(hasattr(value, name) for name in needed):
    what = 'a function' if needed == _CALLED else f'an object with {", ".join(needed)}'
    raise ValueError(f'{where}.{field} is {value!r}; legal: {what}, {names}.')
  return value


def _check_type(value: Any, kind: Any, where: str) -> None:
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if kind is bool and not isinstance(value, bool):
    raise ValueError(f'{where} is {value!r}; legal: True or False.')
  if kind is int and not (isinstance(value, numbers.Integral) and real):
    raise ValueError(f'{where} is {value!r}; legal: a whole number.')
  if kind is float and not (real and math.isfinite(value)):
    raise ValueError(f'{where} is {value!r}; legal: a finite number.')
  if kind is float and where.endswith('weight') and value < 0:
    raise ValueError(f'{where} is {value!r}; legal: 0 or more.')


def choice(field: str, value: Any) -> Any:
  """What a name, or a dict of a name and settings, stands for in a field of CHOICES.

  A text may be such a dict in JSON, or a call, as a choice prints itself: `ema(decay=0.9)`,
  `Sync(base=rotation, nu=0.2)`.

  Raises:
    ValueError: an unknown name or setting; the message lists the legal ones.
  """
  if value is None and None in CHOICES[field].values():
    return None
  if isinstance(value, str) and not value.isidentifier():
    value = _parsed(field, value)
  settings = dict(value) if isinstance(value, Mapping) else {'name': value}
  name = settings.pop('name', None)
  choices = CHOICES[field]
  if not isinstance(name, str) or name not in choices:
    raise ValueError(f'{field} is {name!r}; legal: {", ".join(choices)}.')
  found = choices[name]
  if found is learners.Alternating:
    return _alternating(settings)
  if not settings:
    return found
  known = [f.name for f in dataclasses.fields(found)] if dataclasses.is_dataclass(found) else []
  if unknown := [key for key in settings if key not in known]:
    raise ValueError(
      f'{field} {name!r} has no setting {unknown[0]!r}; it has {", ".join(known) or "none"}.'
    )
  if field == 'estimator' and 'base' in settings:
    settings['base'] = choice('estimator', settings['base'])
  return dataclasses.replace(found, **settings)


def _parsed(field: str, text: str) -> Any:
  """A text that is JSON or a call, as a dict of a name and settings."""
  try:
    if text.lstrip().startswith('{'):
      return json.loads(text)
    return _plain(field, ast.parse(text.strip(), mode='eval').body)
  except (ValueError, SyntaxError) as error:
    raise ValueError(
      f'{field} is {text!r}; legal: a name ({", ".join(CHOICES[field])}), a call of it with '
      'settings, NAME(SETTING=VALUE, ...), or {"name": NAME, "SETTING": VALUE}.'
    ) from error


def _plain(field: str, node: ast.expr) -> Any:
  """`ema(decay=0.9)` -> {'name': 'ema', 'decay': 0.9}; `Ema`, its class, is a name too."""
  if isinstance(node, ast.Name):
    classes = {type(value).__name__: name for name, value in reversed(CHOICES[field].items())}
    return classes.get(node.id, node.id)
  if isinstance(node, ast.Call) and not node.args and all(word.arg for word in node.keywords):
    settings = {
      str(word.arg): _plain('estimator', word.value)
      if word.arg == 'base'
      else ast.literal_eval(word.value)
      for word in node.keywords
    }
    return {'name': _plain(field, node.func), **settings}
  return ast.literal_eval(node)


def _alternating(settings: dict[str, Any]) -> learners.Alternating:
  name = settings.pop('optimizer', 'sgd')
  if name not in OPTIMIZERS:
    raise ValueError(
      f"learner 'alternating' has optimizer={name!r}; legal: {', '.join(OPTIMIZERS)}."
    )
  if 'learning_rate' not in settings:
    raise ValueError("learner 'alternating' needs a learning_rate; set it.")
  try:
    return learners.Alternating(NamedOptimizer.of(name, **settings))
  except ValueError as error:
    raise ValueError(f"learner 'alternating', {error}") from error
