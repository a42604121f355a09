"""The folder that a command fills and goes on with: one JSON file in it says what is there."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from vqjax.errors import UserError
from vqjax.runs.folder import difference, flatten


def refuse_foreign(out: pathlib.Path, name: str) -> None:
  """Leaves a folder of something else, which has files but not `name`, without even a lock in it.

  Raises:
    UserError: it is such a folder.
  """
  there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
  others = [other for other in there if not other.startswith('.')]
  if others and name not in others:
    raise UserError(
      f'{out} holds {others[0]} but no {name}; choose another --out, a new or empty folder.'
    )


def refuse_other(
  out: pathlib.Path,
  what: str,
  there: Mapping[str, Any],
  now: Mapping[str, Any],
  free: Collection[str],
) -> None:
  """Checks that a folder was begun with the same fields, but for those that are free.

  Raises:
    UserError: it was not; lists what differs.
  """
  kept = lambda fields: flatten({k: fields[k] for k in fields if k not in free})
  if changes := difference(kept(there), kept(now)):
    listed = '; '.join(f'{n}: {old!r} there, {new!r} now' for n, (old, new) in changes.items())
    raise UserError(f'{out} holds other {what} ({listed}); choose another --out, or remove it.')
