"""A plain dict to a quantizer, so that a config can say which; `spec.py` is the way back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vqjax.quantizers import (
  assignments,
  binary,
  composite,
  estimators,
  initializers,
  lattice,
  learners,
  regularizers,
  replacement,
  sinkhorn,
  transforms,
  vector,
)
from vqjax.quantizers.optimizers import OPTIMIZERS, NamedOptimizer
from vqjax.quantizers.quantizer import Quantizer

# What a spec's own `name` may be.
QUANTIZERS: dict[str, type[Quantizer]] = {
  'vector': vector.VectorQuantizer,
  'grouped': composite.Grouped,
  'residual': composite.Residual,
  'fsq': lattice.FSQ,
  'lfq': binary.LFQ,
  'bsq': binary.BSQ,
}

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


def build(spec: Mapping[str, Any]) -> Quantizer:
  """Builds a quantizer from a dict of its fields; `name` says which, `vector` where there is none.

  `build({'num_codes': 8192, 'estimator': 'rotation', 'learner': {'name': 'ema', 'decay': 0.8}})`
  `build({'name': 'residual', 'depth': 4, 'base': {'num_codes': 1024}})`
  `build({'name': 'fsq', 'levels': (8, 5, 5, 5)})`

  Equal dicts give equal quantizers, which hash equal.

  Raises:
    ValueError: an unknown field, name or setting; the message lists the legal ones.
  """
  spec = dict(spec)
  name = spec.pop('name', 'vector')
  if name not in QUANTIZERS:
    raise ValueError(f'name is {name!r}; legal: {", ".join(QUANTIZERS)}.')
  kind = QUANTIZERS[name]
  declared = dataclasses.fields(kind)
  legal = [field.name for field in declared if field.name not in ('parent', 'name')]
  fields = {}
  for field, value in spec.items():
    if field not in legal:
      raise ValueError(f'{field!r} is no quantizer field of {name!r}; legal: {", ".join(legal)}.')
    fields[field] = _value(field, value)
  missing = dataclasses.MISSING
  required = [f.name for f in declared if f.default is missing and f.default_factory is missing]
  if absent := [field for field in required if field in legal and field not in fields]:
    raise ValueError(f'{name!r} needs {absent[0]!r}; set it.')
  return kind(**fields)


def choice(field: str, value: Any) -> Any:
  """What a name, or a dict of a name and settings, stands for in a field of CHOICES.

  Raises:
    ValueError: an unknown name or setting; the message lists the legal ones.
  """
  if value is None and None in CHOICES[field].values():
    return None
  settings = dict(value) if isinstance(value, Mapping) else {'name': value}
  name = settings.pop('name', None)
  choices = CHOICES[field]
  if name not in choices:
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


def _value(field: str, value: Any) -> Any:
  if field == 'base':
    if not isinstance(value, Mapping):
      raise ValueError(f'base is {value!r}; legal: a dict of the fields of a quantizer.')
    return build(value)
  if field == 'regularizers':
    if not isinstance(value, list | tuple):
      raise ValueError(f'regularizers is {value!r}; legal: a list of names or of dicts.')
    return tuple(choice(field, entry) for entry in value)
  if field in CHOICES:
    return choice(field, value)
  return tuple(value) if isinstance(value, list) else value  # lists come from JSON; fields hash


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
