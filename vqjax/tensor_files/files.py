"""The content of a published checkpoint's file, whatever its container; nothing in it is executed.

Understood are PyTorch's zip files (TorchScript's too, whose modules are records with tensors in
their `state`) and the row of pickles that it wrote before 1.6, safetensors, a Hugging Face folder
(config.json beside model.safetensors), flax's msgpack, and a pickled dict of NumPy arrays. Tensors
come as NumPy arrays in the file's own layout; those of a zip file are views of the mapped file, so
that nothing is read before it is used.
"""

import io
import json
import mmap
import pathlib
import pickle
import reprlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import safetensors

from vqjax.errors import UserError, printable
from vqjax.tensor_files import flax_msgpack
from vqjax.tensor_files.archives import Archive
from vqjax.tensor_files.budget import Budget
from vqjax.tensor_files.pickles import Unpickler

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_SAFETENSORS = {
  'F64': np.float64,
  'F32': np.float32,
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'I64': np.int64,
  'I32': np.int32,
  'I16': np.int16,
  'I8': np.int8,
  'U8': np.uint8,
  'BOOL': np.bool_,
}

_ENTRY = 32  # times its bytes in the header of a safetensors file is what an entry becomes
_LONGEST_CONFIG = 2**20  # bytes

# What the readers below raise for a file that is cut off, damaged or made to deceive; a
# NotImplementedError and a RecursionError are a RuntimeError.
DAMAGE = (
  *(pickle.UnpicklingError, EOFError, zipfile.BadZipFile, zlib.error, safetensors.SafetensorError),
  *(
    msgpack.exceptions.UnpackException,
    struct.error,
    UnicodeDecodeError,
    RuntimeError,
    SyntaxError,
  ),
  *(KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, MemoryError),
)


def read(path: str | pathlib.Path) -> Any:
  """Reads a checkpoint file or a Hugging Face folder.

  Returns:
    What the file holds: dicts, lists, numbers, strings, NumPy arrays, and a `Record` for every
    object of another class. A safetensors file gives {'tensors': ..., 'metadata': text by name}, a
    Hugging Face folder these and {'config': ...}.

  Raises:
    UserError: there is no such file, or it is no checkpoint, or damaged.
  """
  path = pathlib.Path(path).expanduser()
  if path.is_dir():
    return _read_folder(path)
  try:
    if path.exists() and not path.is_file():  # which may have no end, or never begin
      raise UserError(f'{path} is no regular file; name a checkpoint file.')
    with path.open('rb') as file:
      size = path.stat().st_size
      head, budget = file.read(16), Budget(size)
      if head[:4] == b'PK\x03\x04':
        return _read_zip(file, budget)
      if head[8:9] == b'{' and path.suffix != '.msgpack':
        return _read_safetensors(path, budget)
      if head[:1] == b'\x80' and path.suffix != '.msgpack':
        return _read_legacy(file, size, budget)
      return _read_msgpack(file, budget)
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {error.strerror or error}; name a checkpoint file.'
    ) from error
  except DAMAGE as error:
    # Escaped: what a file calls its parts must not pass for another line.
    reason = printable(f'{type(error).__name__}: {str(error)[:300] or "it ends early"}')
    raise UserError(
      f'{path} is no whole checkpoint ({reason}); legal: a file of PyTorch, safetensors or flax. '
      'Fetch it again.'
    ) from error


def _read_folder(path):
  config, weights = path / 'config.json', path / 'model.safetensors'
  for needed in (config, weights):
    if not needed.is_file():
      raise UserError(
        f'{path} has no {needed.name}; legal: a checkpoint file, or a Hugging Face '
        'folder with config.json and model.safetensors.'
      )
  try:
    if config.stat().st_size > _LONGEST_CONFIG:
      raise ValueError(f'it is longer than {_LONGEST_CONFIG} bytes')
    described = json.loads(config.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{config} cannot be read: {error}; fetch it again.') from error
  return {'config': described, **read(weights)}


def _read_zip(file, budget):
  with Archive(file, budget) as archive:
    pickled = [name for name in archive.names if f'/{name}'.endswith('/data.pkl')]
    if len(pickled) != 1:
      raise ValueError(f'{len(pickled)} entries data.pkl in the archive')
    root = pickled[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    if order in archive.names and archive.read(order) != b'little':
      raise ValueError('written on a big-endian machine')
    storages = {}

    def storage(dtype, key, size):
      if key not in storages:
        storages[key] = archive.view(f'{root}data/{key}')
      return np.frombuffer(storages[key], dtype, size)

    return Unpickler(io.BytesIO(archive.read(pickled[0])), budget, storage).load()


def _read_legacy(file, size, budget):
  """Five pickles in a row, each through the restricted reader, then the storages' bytes.

  Or one, of a dict.
  """
  file.seek(0)
  storages, left = {}, size

  def storage(dtype, key, count):
    nonlocal left
    if key not in storages:
      left -= count * dtype.itemsize
      if left < 0:
        raise ValueError(f'storage {reprlib.repr(key)} is longer than the file')
      storages[key] = np.empty(count, dtype)  # filled below; tensors are views of it
    if (storages[key].dtype, storages[key].size) != (dtype, count):
      raise ValueError(f'storage {reprlib.repr(key)} is described twice, differently')
    return storages[key]

  first = Unpickler(file, budget).load()
  if isinstance(first, dict):  # a pickle of its own
    return first
  if not (isinstance(first, int) and first == _LEGACY_MAGIC):
    raise ValueError('a pickle, but none of PyTorch')
  if Unpickler(file, budget).load() != _LEGACY_PROTOCOL:
    raise ValueError('an unknown protocol of PyTorch')
  if not Unpickler(file, budget).load()['little_endian']:
    raise ValueError('written on a big-endian machine')
  content = Unpickler(file, budget, storage).load()
  keys = Unpickler(file, budget).load()
  # One that is left out would be whatever was in memory.
  if not isinstance(keys, list) or len(keys) != len(storages) or set(keys) != set(storages):
    raise ValueError('the storages that follow are not those of the tensors, each once')
  for key in keys:
    (count,) = struct.unpack('<q', file.read(8))
    target = storages[key]
    if count != target.size or file.readinto(target.view(np.uint8)) != target.nbytes:
      raise EOFError
  return content


def _read_safetensors(path, budget):
  content = path.read_bytes()
  budget.draw(_ENTRY * int.from_bytes(content[:8], 'little'))
  tensors = {}
  for name, entry in safetensors.deserialize(content):
    if entry['dtype'] not in _SAFETENSORS:
      raise ValueError(f'{name:.100} is of type {entry["dtype"]}')
    dtype = np.dtype(_SAFETENSORS[entry['dtype']])
    budget.array(entry['shape'], dtype.itemsize)
    tensors[name] = np.frombuffer(entry['data'], dtype).reshape(entry['shape'])
  del content
  with safetensors.safe_open(path, 'np') as file:
    return {'tensors': tensors, 'metadata': file.metadata() or {}}


def _read_msgpack(file, budget):
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
    tree = flax_msgpack.unpack(content, budget)
  if not isinstance(tree, dict):
    raise ValueError('no tree of arrays')
  return tree
