"""A plain dict to a quantizer, so that a config can say which."""

import dataclasses
from collections.abc import Mapping

import jax

from vqjax.quantizers import assignments, estimators, learners, vector

# Named values and classes that a config may name, by field. A name stands for itself, or for
# {'name': NAME, **settings} where it has settings.
CHOICES = {
  'estimator': {
    'straight_through': estimators.straight_through,
    'rotation': estimators.rotation,
    'tangent_rotation': estimators.tangent_rotation,
    'reflection': estimators.reflection,
  },
  'assign': {'nearest': assignments.Nearest()},
  'eval_assign': {'nearest': assignments.Nearest()},
  'learner': {'gradient': None, 'ema': learners.Ema()},
  'codebook_init': {
    'uniform': vector.uniform_codebook,
    'normal': vector.NormalCodebook(),
    # PyTorch's kaiming_uniform on a (1, K, D) tensor, whose fan-in is K * D.
    'kaiming': jax.nn.initializers.variance_scaling(
      2.0, 'fan_in', 'uniform', in_axis=(0, 1), out_axis=()
    ),
  },
}


def build(spec: Mapping) -> vector.VectorQuantizer:
  """Builds a quantizer from a dict of its fields.

  `build({'num_codes': 8192, 'estimator': 'rotation', 'learner': {'name': 'ema', 'decay': 0.8}})`

  Raises:
    ValueError: an unknown field, name or setting; the message lists the legal ones.
  """
  legal = [f.name for f in dataclasses.fields(vector.VectorQuantizer)]
  legal = [name for name in legal if name not in ('parent', 'name')]
  fields = {}
  for field, value in spec.items():
    if field not in legal:
      raise ValueError(f'{field!r} is no quantizer field; legal: {", ".join(legal)}.')
    fields[field] = _choose(field, value) if field in CHOICES else value
  return vector.VectorQuantizer(**fields)


def _choose(field, value):
  settings = dict(value) if isinstance(value, Mapping) else {'name': value}
  name = settings.pop('name', None)
  choices = CHOICES[field]
  if name not in choices:
    raise ValueError(f'{field} is {name!r}; legal: {", ".join(choices)}.')
  choice = choices[name]
  if not settings:
    return choice
  known = [f.name for f in dataclasses.fields(choice)] if dataclasses.is_dataclass(choice) else []
  if unknown := [key for key in settings if key not in known]:
    raise ValueError(
      f'{field} {name!r} has no setting {unknown[0]!r}; it has {", ".join(known) or "none"}.'
    )
  return dataclasses.replace(choice, **settings)
