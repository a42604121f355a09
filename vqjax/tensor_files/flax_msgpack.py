"""Flax's msgpack: trees of arrays, as `flax.serialization.to_bytes` writes them.

Flax's own reader makes whatever a file says, of any type and in any number.
"""

from typing import Any

import ml_dtypes
import msgpack
import numpy as np

from vqjax.tensor_files.budget import Budget

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # flax's codes of what msgpack has no type for
_CHUNKED = '__msgpack_chunked_array__'  # an array of more than 1 GB, in pieces
_ENTRIES = 4096  # of one dict, and of one list: msgpack makes room for what a file claims
_VALUE = 256  # bytes that no entry of either needs


def unpack(content: Any, budget: Budget) -> Any:
  """The tree in the bytes of a file."""

  def listed(values):
    budget.draw(_VALUE * (1 + len(values)))
    return values

  def extension(code, data):
    budget.draw(_VALUE + len(data))
    if code == _COMPLEX:
      return complex(*msgpack.unpackb(data))
    if code not in (_ARRAY, _SCALAR):
      raise ValueError(f'a value of the unknown kind {code}')
    array = _array(data, budget)
    return array if code == _ARRAY else array[()]

  limits = {'max_map_len': _ENTRIES, 'max_array_len': _ENTRIES}
  return msgpack.unpackb(
    content,
    ext_hook=extension,
    list_hook=listed,
    object_hook=lambda tree: _whole(listed(tree), budget),
    strict_map_key=False,
    **limits,
  )


def _array(data, budget):
  shape, name, content = msgpack.unpackb(data, raw=True, max_array_len=64, max_map_len=0)
  name = name.decode()
  dtype = np.dtype(ml_dtypes.bfloat16 if name == 'bfloat16' else name)
  if name != 'bfloat16' and dtype.kind not in 'biufc':
    raise ValueError(f'an array of {dtype}')
  if not all(type(n) is int and n >= 0 for n in shape):
    raise ValueError(f'an array of shape {shape}')
  budget.array(shape, dtype.itemsize)
  return np.frombuffer(content, dtype).reshape(shape)


def _whole(tree, budget):
  """The array of which a dict holds the pieces, or the dict itself."""
  if _CHUNKED not in tree:
    return tree
  shape, chunks = (
    [tree[part][str(i)] for i in range(len(tree[part]))] for part in ('shape', 'chunks')
  )
  array = np.concatenate(chunks)
  budget.array(shape, array.itemsize)
  return array.reshape(shape)
