"""The folder of weights on this machine: what was fetched, where from, and whether it is whole."""

import hashlib
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from vqjax.cache_folder import cache_folder
from vqjax.errors import UserError
from vqjax.weights import sources
from vqjax.whole_files import replacing

# Counted up when the converters make something else of the same files, which are then fetched anew.
_LAYOUT = 1


def load(name: str) -> dict[str, Any]:
  """Weights such as 'lpips_vgg' as the network's `params`: float32 NumPy arrays.

  Raises:
    UserError: they are not in the cache, or damaged there.
  """
  return traverse_util.unflatten_dict(_read(name)[0], sep='/')


def provenance(name: str) -> str:
  """Where weights that `load` can load come from: a file and its sha256."""
  return _read(name)[1]


def available(name: str) -> bool:
  """Whether the cache has a file with the weights."""
  return path_of(name).is_file()


def path_of(name: str) -> pathlib.Path:
  """Where the weights are, or will be."""
  return cache_folder() / f'{name}.safetensors'


def write(name: str, arrays: dict[str, np.ndarray], origin: str) -> None:
  """Puts arrays, by path, in the place of what is there.

  Raises:
    UserError: the folder cannot be written.
  """
  path = path_of(name)
  metadata = {'provenance': origin, 'sha256': _digest(name, arrays, origin)}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
      partial.write_bytes(safetensors.numpy.save(arrays, metadata))
  except OSError as error:
    raise UserError(
      f'cannot write {path}: {error.strerror}; set VQJAX_CACHE to another folder.'
    ) from error


def _read(name):
  """(arrays, provenance) of a file."""
  path, how = path_of(name), sources.how(sources.group_of(name))
  if not path.is_file():
    raise UserError(f'the weights {name} are not in {path.parent}; {how}.')
  try:
    with safetensors.safe_open(path, 'numpy') as content:
      keys = content.keys()
      arrays = {key: content.get_tensor(key) for key in keys}
      metadata = content.metadata() or {}
    origin = metadata.get('provenance', 'unknown')
    whole = _digest(name, arrays, origin) == metadata.get('sha256')
  except (safetensors.SafetensorError, OSError):
    whole = False
  if not whole:
    raise UserError(f'{path} is damaged or of another version of vqjax; {how}.')
  return arrays, origin


def _digest(name, arrays, origin):
  """The sha256 of everything: names, types, shapes and values, and what they are and come from."""
  total = hashlib.sha256(f'{name} {_LAYOUT} {origin}\n'.encode())
  for key, array in sorted(arrays.items()):
    total.update(f'{key} {array.dtype} {array.shape}\n'.encode())
    total.update(np.ascontiguousarray(array).data)
  return total.hexdigest()
