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
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import safetensors
from flax import serialization

from vqjax.errors import UserError
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

# What the readers below raise for a file that is cut off, damaged or made to deceive.
_DAMAGE = (
  *(pickle.UnpicklingError, EOFError, zipfile.BadZipFile, zlib.error, safetensors.SafetensorError),
  *(msgpack.exceptions.UnpackException, struct.error, UnicodeDecodeError, RuntimeError),
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
    with path.open('rb') as file:
      head = file.read(16)
      if head[:4] == b'PK\x03\x04':
        return _read_zip(file)
      if head[8:9] == b'{' and path.suffix != '.msgpack':
        return _read_safetensors(path)
      if head[:1] == b'\x80' and path.suffix != '.msgpack':
        return _read_legacy(file, path.stat().st_size)
      return _read_msgpack(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {error.strerror or error}; name a checkpoint file.'
    ) from error
  except _DAMAGE as error:
    raise UserError(
      f'{path} is no whole checkpoint ({type(error).__name__}: {str(error) or "it ends early"}); '
      'legal: a file of PyTorch, safetensors or flax. Fetch it again.'
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
    described = json.loads(config.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'{config} cannot be read: {error}; fetch it again.') from error
  return {'config': described, **read(weights)}


def _read_zip(file):
  with zipfile.ZipFile(file) as archive:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickled = [name for name in entries if name == 'data.pkl' or name.endswith('/data.pkl')]
    if len(pickled) != 1:
      raise ValueError(f'{len(pickled)} entries data.pkl in the archive')
    root = pickled[0].removesuffix('data.pkl')
    order = f'{root}byteorder'
    if order in entries and archive.read(order) != b'little':
      raise ValueError('written on a big-endian machine')
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    storages = {}

    def storage(dtype, key, size):
      if key not in storages:
        entry = entries[f'{root}data/{key}']
        if entry.compress_type != zipfile.ZIP_STORED:
          raise ValueError(f'storage {key} is compressed, which PyTorch does not do')
        # The local header repeats the name and has an extra field of its own length.
        head = mapped[entry.header_offset : entry.header_offset + 30]
        name, extra = struct.unpack('<HH', head[26:30])
        start = entry.header_offset + 30 + name + extra
        storages[key] = memoryview(mapped)[start : start + entry.file_size]
      return np.frombuffer(storages[key], dtype, size)

    return Unpickler(io.BytesIO(archive.read(pickled[0])), storage).load()


def _read_legacy(file, size):
  """Five pickles in a row, each through the restricted reader, then the storages' bytes.

  Or one, of a dict.
  """
  file.seek(0)
  storages = {}

  def storage(dtype, key, count):
    if count * dtype.itemsize > size:
      raise ValueError(f'storage {key} is longer than the file')
    if key not in storages:
      storages[key] = np.empty(count, dtype)  # filled below; tensors are views of it
    if (storages[key].dtype, storages[key].size) != (dtype, count):
      raise ValueError(f'storage {key} is described twice, differently')
    return storages[key]

  first = Unpickler(file).load()
  if isinstance(first, dict):  # a pickle of its own
    return first
  if first != _LEGACY_MAGIC:
    raise ValueError('a pickle, but none of PyTorch')
  if Unpickler(file).load() != _LEGACY_PROTOCOL:
    raise ValueError('an unknown protocol of PyTorch')
  if not Unpickler(file).load()['little_endian']:
    raise ValueError('written on a big-endian machine')
  content = Unpickler(file, storage).load()
  keys = Unpickler(file).load()
  if sorted(keys) != sorted(storages):  # one that is left out would be whatever was in memory
    raise ValueError('the storages that follow are not those of the tensors, each once')
  for key in keys:
    (count,) = struct.unpack('<q', file.read(8))
    target = storages[key]
    data = file.read(target.nbytes)
    if count != target.size or len(data) != target.nbytes:
      raise EOFError
    target[:] = np.frombuffer(data, target.dtype)
  return content


def _read_safetensors(path):
  tensors = {}
  for name, entry in safetensors.deserialize(path.read_bytes()):
    if entry['dtype'] not in _SAFETENSORS:
      raise ValueError(f'{name} is of type {entry["dtype"]}')
    flat = np.frombuffer(entry['data'], _SAFETENSORS[entry['dtype']])
    tensors[name] = flat.reshape(entry['shape'])
  with safetensors.safe_open(path, 'np') as file:
    return {'tensors': tensors, 'metadata': file.metadata() or {}}


def _read_msgpack(path):
  content = serialization.msgpack_restore(path.read_bytes())
  if not isinstance(content, dict):
    raise ValueError('no tree of arrays')
  return content
