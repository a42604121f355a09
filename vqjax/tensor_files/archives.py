"""Members of zip archives: checkpoints of PyTorch, and NumPy's .npz."""

import ast
import contextlib
import functools
import io
import math
import mmap
import pathlib
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple, Self

import numpy as np

from vqjax.tensor_files.budget import Budget

_ENTRY = 16  # times its bytes in the directory is what an entry becomes
_PIECE = 2**20
_HEADER = 10_000  # bytes, of an array's header, as NumPy limits it


class Archive:
  """A zip archive whose members are whole and no larger than the file's budget allows.

  Args:
    file: opened for reading, in binary.
    budget: of the file.
  """

  def __init__(self, file: IO[bytes], budget: Budget) -> None:
    self._budget = budget
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # how long the directory is
    if end is None:
      raise zipfile.BadZipFile('no directory at its end')
    budget.draw(_ENTRY * end[zipfile._ECD_SIZE])  # type: ignore[attr-defined]
    self._archive = zipfile.ZipFile(file)
    self.names = self._archive.NameToInfo
    self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self._archive.close()  # the map stays for as long as there are views of it

  def read(self, name: str) -> bytes:
    """All bytes of a member, stored or deflated; their checksum is the directory's."""
    entry = self.names[name]
    self._budget.draw(entry.file_size)  # no more is unpacked, whatever there is
    with self._archive.open(entry) as member:
      data = member.read()
    if len(data) != entry.file_size:
      raise EOFError
    return data

  def open(self, name: str) -> IO[bytes]:
    """A member to be read bit by bit; its checksum is looked at when it ends."""
    return self._archive.open(self.names[name])

  def view(self, name: str) -> memoryview:
    """A stored member as part of the mapped file, checked likewise."""
    entry = self.names[name]
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
      raise ValueError(f'{name:.100} is compressed, which PyTorch does not do')
    # The local header repeats the name and has an extra field of its own length.
    head = self._mapped[entry.header_offset : entry.header_offset + 30]
    signature, name_length, extra = struct.unpack('<4s22xHH', head)
    if signature != b'PK\3\4':
      raise zipfile.BadZipFile(f'{name:.100} is not where the directory says')
    start = entry.header_offset + 30 + name_length + extra
    content = memoryview(self._mapped)[start : start + entry.file_size]
    checksum = 0
    for piece in range(0, len(content), _PIECE):
      checksum = zlib.crc32(content[piece : piece + _PIECE], checksum)
    # PyTorch can be told to write none, and then writes zero.
    if len(content) != entry.file_size or entry.CRC not in (checksum, 0):
      raise zipfile.BadZipFile(f'{name:.100} is not what was written: its checksum differs')
    return content


@contextlib.contextmanager
def open_npz(path: pathlib.Path) -> Iterator[dict[str, Callable[[], np.ndarray]]]:
  """The arrays of an .npz by name, as functions that read them.

  NumPy's own reader makes room for what an array's header says, and unpacks without end.
  """
  with path.open('rb') as file:
    budget = Budget(path.stat().st_size)
    with Archive(file, budget) as archive:
      yield {
        name.removesuffix('.npy'): functools.partial(_npy, archive, name, budget)
        for name in archive.names
      }


@contextlib.contextmanager
def open_npz_rows(path: pathlib.Path, name: str) -> Iterator['Rows']:
  """An array [N ...] of an .npz to be read some rows at a time, so that it need not fit in memory.

  Raises:
    KeyError: there is no such array.
  """
  with path.open('rb') as file:
    budget = Budget(path.stat().st_size)
    with Archive(file, budget) as archive, archive.open(f'{name}.npy') as member:
      shape, dtype, fortran = _header(member)
      if not shape or (fortran and len(shape) > 1):
        raise ValueError(f'an array {dtype}{list(shape)} without rows one after another')
      content = archive.names[f'{name}.npy'].file_size - member.tell()
      if math.prod(shape) * dtype.itemsize != content:
        raise ValueError(f'an array {dtype}{list(shape)} of {content} bytes')
      budget.array(shape[1:], dtype.itemsize)
      yield Rows(member, shape, dtype)


class Rows(NamedTuple):
  """Rows of an array that a file holds."""

  file: IO[bytes]
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self, count: int) -> np.ndarray:
    """The next rows, [up to count ...]; none behind the last."""
    shape, size = self.shape[1:], math.prod(self.shape[1:]) * self.dtype.itemsize
    data = self.file.read(count * size)
    if size and len(data) % size:
      raise EOFError
    return np.frombuffer(data, self.dtype).reshape(-1, *shape)


def _npy(archive, name, budget):
  data = archive.read(name)
  file = io.BytesIO(data)
  shape, dtype, fortran = _header(file)
  budget.array(shape, dtype.itemsize)
  content = memoryview(data)[file.tell() :]
  if math.prod(shape) * dtype.itemsize != len(content):
    raise ValueError(f'an array {dtype}{list(shape)} of {len(content)} bytes')
  return np.frombuffer(content, dtype).reshape(shape, order='F' if fortran else 'C')


def _header(file):
  """(shape, dtype, whether the first axis runs first) of an array; the file then stands behind."""
  version, _ = np.lib.format.read_magic(file)
  length = int.from_bytes(file.read(2 if version == 1 else 4), 'little')
  # NumPy's own function would go on to look for numbers as Python 2 wrote them.
  header = ast.literal_eval(file.read(min(length, _HEADER)).decode('latin1'))
  shape, fortran = header['shape'], header['fortran_order']
  dtype = np.lib.format.descr_to_dtype(header['descr'])
  if dtype.hasobject or not dtype.itemsize:
    raise ValueError(f'an array of {dtype}')
  if not all(type(n) is int and n >= 0 for n in shape):
    raise ValueError(f'an array of shape {reprlib.repr(shape)}')
  return shape, dtype, fortran
