"""Digests of a folder's files, written with it, so that damage is seen before a file is used."""

import hashlib
import json
from pathlib import Path

NAME = 'digests.json'
# Orbax writes the time into it once all else is there; nobody reads it back.
_LATER = '_CHECKPOINT_METADATA'


def write(folder: Path) -> None:
  """Writes the SHA-256 of every file below `folder` into a file there."""
  digests = {str(path.relative_to(folder)): _digest(path) for path in _files(folder)}
  (folder / NAME).write_text(json.dumps(digests, indent=1))


def check(folder: Path) -> None:
  """Reads every file that `write` has seen.

  Raises:
    OSError: one is gone, or cannot be read.
    ValueError: one is not what it was; or the digests themselves are damaged.
  """
  digests = json.loads((folder / NAME).read_text())
  if not isinstance(digests, dict):
    raise ValueError(f'{folder / NAME} holds no digests')
  for name, digest in digests.items():
    if _digest(folder / name) != digest:
      raise ValueError(f'{folder / name} is not as it was written')


def _files(folder):
  return sorted(path for path in folder.rglob('*') if path.is_file() and path.name != _LATER)


def _digest(path):
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
