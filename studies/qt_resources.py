"""The files in a Qt resource collection (.rcc)."""

import struct
from collections.abc import Iterator

_FOLDER = 2  # the flag of a node; 1 and 4 are zlib's and zstd's compression


def files(collection: bytes) -> Iterator[tuple[str, bytes]]:
  """Gives (path, content) of every file that is stored as it is, which pictures are.

  All numbers are big-endian. The header holds the version and the offsets of a tree, of data and of
  names. A node of the tree is the offset of its name, flags, and of a folder the number of its
  children and the first one's index, of a file its language and the offset of its data; since
  version 2 a time follows. A name is its length, a hash and UTF-16, data their length and bytes.

  Raises:
    ValueError: no such collection, or a broken one.
  """
  try:
    magic, version, tree, data, names = struct.unpack_from('>4sIIII', collection)
    if magic != b'qres':
      raise ValueError('not a Qt resource collection')
    size = 14 if version < 2 else 22
    waiting = [(0, '')]
    while waiting:
      index, parent = waiting.pop()
      name, flags, first, second = struct.unpack_from('>IHII', collection, tree + size * index)
      path = f'{parent}/{_name(collection, names + name)}' if index else ''
      if flags & _FOLDER:
        waiting += [(child, path) for child in range(second, second + first)]
      elif not flags:
        (length,) = struct.unpack_from('>I', collection, data + second)
        yield path, collection[data + second + 4 : data + second + 4 + length]
  except (struct.error, UnicodeDecodeError) as error:
    raise ValueError(f'a broken Qt resource collection: {error}') from error


def _name(collection, offset):
  (length,) = struct.unpack_from('>H', collection, offset)
  return collection[offset + 6 : offset + 6 + 2 * length].decode('utf-16-be')
