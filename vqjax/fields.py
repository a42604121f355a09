"""Whether fields of a config, which anyone may have edited, are of the types that they must be."""

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from vqjax.errors import UserError

_LARGEST = 2**31 - 1  # of whole numbers: what JAX counts by


def check(fields: Mapping[str, Any], like: Mapping[str, Any], where: str) -> None:
  """Checks that there are all fields of `like`, of the types of its values, and in their structure.

  Raises:
    UserError: names the first field that is missing or of another type.
  """
  for name, default in like.items():
    if name not in fields:
      raise UserError(f'{where}.{name} is missing; legal: {_words(type(default))}; put it back.')
    value, kind = fields[name], type(default)
    if isinstance(default, Mapping):
      if not isinstance(value, Mapping):
        raise wrong(f'{where}.{name}', value, dict)
      check(value, default, f'{where}.{name}')
    elif isinstance(default, tuple):
      check_type(value, types.GenericAlias(tuple, (type(default[0]), ...)), f'{where}.{name}')
    else:
      check_type(value, kind, f'{where}.{name}')


def check_type(value: Any, kind: Any, where: str) -> None:
  """Checks one value against an annotation; UserError if it does not fit."""
  if not _fits(value, kind):
    raise wrong(where, value, kind)


def wrong(where: str, value: Any, kind: Any) -> UserError:
  """The error of a value that is not of its type."""
  return UserError(f'{where} is {repr(value)[:100]}; legal: {_words(kind)}; mend it there.')


def _fits(value, kind):
  origin = typing.get_origin(kind)
  if origin in (types.UnionType, typing.Union):
    return any(_fits(value, each) for each in typing.get_args(kind))
  if origin is tuple:
    of = typing.get_args(kind)[0]
    return isinstance(value, list | tuple) and all(_fits(entry, of) for entry in value)
  if kind is float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < _LARGEST**2 and math.isfinite(value)
  if kind is int:
    return type(value) is int and abs(value) <= _LARGEST
  return not isinstance(kind, type) or isinstance(value, kind)


def _words(kind):
  origin = typing.get_origin(kind)
  if origin in (types.UnionType, typing.Union):
    return ' or '.join(map(_words, typing.get_args(kind)))
  if origin is tuple:
    return f'a list, each {_words(typing.get_args(kind)[0])}'
  names = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'text'}
  return names.get(kind) or {type(None): 'null', dict: 'a dict of fields'}.get(kind, str(kind))
