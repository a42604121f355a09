"""What a file holds, part by part."""

from collections.abc import Iterator
from typing import Any

from vqjax.errors import UserError
from vqjax.tensor_files.names import Record

_PARTS, _DEEPEST = 2**20, 64


def walk(content: Any, source: object) -> Iterator[tuple[tuple[Any, ...], Any]]:
  """Every part of what `read` gave: (path of keys and indices, part), containers before their own.

  Looks into dicts, lists, tuples and the state of records. A pickle can hold the same part in many
  places, and within itself, so that there is no end to it.
  `source` is the file, for messages.

  Raises:
    UserError: it has more parts, or deeper ones, than any checkpoint.
  """
  waiting: list[tuple[tuple[Any, ...], Any]] = [((), content)]
  count = 0
  while waiting:
    path, part = waiting.pop()
    yield path, part
    within = part.state if isinstance(part, Record) else part
    count += len(within) if isinstance(within, dict | list | tuple) else 0
    if len(path) > _DEEPEST or count > _PARTS:
      raise UserError(
        f'{source} has parts within one another without end, or more than {_PARTS}; fetch it again.'
      )
    if isinstance(within, dict):
      waiting += [((*path, name), child) for name, child in reversed(within.items())]
    elif isinstance(within, list | tuple):
      waiting += [((*path, i), child) for i, child in enumerate(within)][::-1]
