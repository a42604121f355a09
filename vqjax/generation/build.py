"""Parts of a config to networks, samplers and objectives: the names that a config may say."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from vqjax.errors import UserError
from vqjax.fields import check_type
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.contracts import Sampler
from vqjax.generation.halton_maskgit import MaskedTransformer
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT
from vqjax.generation.masked_samplers import ConfidenceSampler, HaltonSampler, MaskGITSampler
from vqjax.generation.maskgit import MaskGITTransformer
from vqjax.generation.objectives import OBJECTIVES, Objective
from vqjax.generation.rar import RAR


@dataclasses.dataclass(frozen=True)
class Family:
  """A network, and what goes with it.

  Attributes:
    network: linen module.
    samplers: names in `SAMPLERS`.
    objectives: names in `objectives.OBJECTIVES`.
    narrow_heads: whether heads need not divide the width: all together are narrower then.
  """

  network: Callable[..., Any]
  samplers: tuple[str, ...]
  objectives: tuple[str, ...]
  narrow_heads: bool = False


_SAMPLERS, _OBJECTIVES = ('halton', 'confidence', 'maskgit'), ('halton', 'maskgit')

NETWORKS: dict[str, Family] = {
  'llamagen': Family(GPT, ('causal',), ('causal',)),
  'rar': Family(RAR, ('causal',), ('permuted', 'causal')),
  'halton_maskgit': Family(MaskedTransformer, _SAMPLERS, _OBJECTIVES, narrow_heads=True),
  'maskgit': Family(MaskGITTransformer, _SAMPLERS, _OBJECTIVES),
}

SAMPLERS: dict[str, Callable[..., Sampler]] = {
  'causal': CausalSampler,
  'halton': HaltonSampler,
  'confidence': ConfidenceSampler,
  'maskgit': MaskGITSampler,
}

# Fields of config.generator that every network has; the others are those of its module.
FIELDS = ('network', 'num_classes', 'digits', 'dtype')
DTYPES = ('float32', 'bfloat16')


def build(section: Mapping[str, Any], layout: Layout) -> Any:
  """The network that `config.generator` describes, for symbols of a layout.

  `{'network': 'llamagen', 'num_classes': 1000, 'digits': 1, 'dtype': 'bfloat16', 'depth': 12, ...}`

  Raises:
    UserError: an unknown field or a value outside the legal ones.
  """
  family, fields = _family(section), dict(section)
  classes, dtype = fields['num_classes'], fields['dtype']
  check_type(classes, int, 'config.generator.num_classes')
  if classes < 0:
    raise UserError(f'config.generator.num_classes is {classes}; legal: 0, for none, or more.')
  if dtype not in DTYPES:
    raise UserError(f'config.generator.dtype is {dtype!r}; legal: {", ".join(DTYPES)}.')
  own = {name: value for name, value in fields.items() if name not in FIELDS}
  network = _made(
    *(family.network, own, 'config.generator'),
    given={'layout': layout, 'num_classes': classes, 'dtype': jnp.dtype(dtype)},
  )
  _check_sizes(network, family.narrow_heads)
  return network


def layout(section: Mapping[str, Any], token_shape: Sequence[int], num_codes: int) -> Layout:
  """How `config.generator` wants tokens of this shape, [h w] or [h w G], to be one sequence."""
  _family(section)
  check_type(section['digits'], int, 'config.generator.digits')
  return Layout.of(token_shape, num_codes, section['digits'])


def build_sampler(section: Mapping[str, Any], network: str | None = None) -> Sampler:
  """The sampler that `config.sampler` describes, for a network of this name where one is given.

  Raises:
    UserError: an unknown field, or a value outside the legal ones, or of another network.
  """
  legal = NETWORKS[network].samplers if network else tuple(SAMPLERS)
  return _named(section, SAMPLERS, legal, 'config.sampler', network)


def build_objective(section: Mapping[str, Any], network: str) -> Objective:
  """The objective that `config.objective` describes, for a network of this name.

  Raises:
    UserError: as `build_sampler`.
  """
  legal = NETWORKS[network].objectives
  found: Objective = _named(section, OBJECTIVES, legal, 'config.objective', network)
  if not 0 <= found.label_drop < 1:
    raise UserError(
      f'config.objective.label_drop is {found.label_drop}; legal: 0 (none) to below 1.'
    )
  return found


def _family(section):
  if missing := [name for name in FIELDS if name not in section]:
    raise UserError(
      f'config.generator has no {missing[0]!r}; every network needs {", ".join(FIELDS)}: set it.'
    )
  if section['network'] not in NETWORKS:
    raise UserError(
      f'config.generator.network is {section["network"]!r}; legal: {", ".join(NETWORKS)}.'
    )
  return NETWORKS[section['network']]


def _check_sizes(network, narrow_heads):
  """Refuses sizes and rates of which no network can be made."""
  for name in ('width', 'depth', 'heads', 'mlp_width'):
    if getattr(network, name, 1) < 1:
      raise UserError(f'config.generator.{name} is {getattr(network, name)}; legal: 1 or more.')
  for name in ('dropout', 'token_dropout', 'drop_path'):
    if not 0 <= getattr(network, name, 0) < 1:
      raise UserError(
        f'config.generator.{name} is {getattr(network, name)}; legal: 0 (none) to below 1.'
      )
  if network.heads > network.width or (network.width % network.heads and not narrow_heads):
    raise UserError(
      f'config.generator.heads is {network.heads} and width {network.width}; legal: heads that '
      'divide the width.'
    )


def _named(section, kinds, legal, where, network):
  fields = dict(section)
  name = fields.pop('name', None)
  if name not in legal:
    of = f' with config.generator.network={network!r}' if network else ''
    raise UserError(f'{where}.name is {name!r}; legal{of}: {", ".join(legal)}.')
  return _made(kinds[name], fields, where)


def _made(kind, fields, where, given=None):
  """An object of its fields, whose names and types are checked."""
  given = given or {}
  parameters = {
    name: parameter
    for name, parameter in inspect.signature(kind).parameters.items()
    if name not in ('parent', 'name', *given)
  }
  if unknown := [name for name in fields if name not in parameters]:
    raise UserError(
      f'{where}.{unknown[0]} is unknown to {kind.__name__}; legal: {", ".join(parameters)}.'
    )
  absent = [
    name for name, parameter in parameters.items()
    if parameter.default is parameter.empty and name not in fields
  ]  # fmt: skip
  if absent:
    raise UserError(f'{where}.{absent[0]} is missing; {kind.__name__} needs it: set it.')
  for name, value in fields.items():
    check_type(value, parameters[name].annotation, f'{where}.{name}')
  hashable = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
  try:
    return kind(**given, **hashable)
  except ValueError as error:
    raise UserError(f'{where}: {error}') from error
