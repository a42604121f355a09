"""A plain dict to a quantizer, so that a config can say which; `spec.py` is the way back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vqjax.quantizers import binary, composite, lattice, vector
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


def _value(field: str, value: Any) -> Any:
  if field == 'base':
    if not isinstance(value, Mapping):
      raise ValueError(f'base is {value!r}; legal: a dict of the fields of a quantizer.')
    return build(value)
  return tuple(value) if isinstance(value, list) else value  # lists come from JSON; fields hash
