"""What the names in a pickle stand for: tensors, arrays and plain values, or a `Record`.

Nothing is imported: a name is in the table below or becomes a record.
"""

import math
import pickle
import reprlib
import types
from collections.abc import Iterable
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from vqjax.tensor_files.budget import Budget

_STORAGES = {
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}

# The types of numbers that a NumPy array may have here, by their names in its pickles.
_NUMBERS = frozenset(
  ('b1', *(f'{kind}{n}' for kind in 'iu' for n in (1, 2, 4, 8)), 'f2', 'f4', 'f8')
)
NUMPY_ARRAY = ('numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct')

# Bytes that are drawn from the budget: no value that an opcode makes, beside what it reads, is
# larger; an empty set is the largest.
OPCODE = 256


class Record:
  """Stands for an object of a class that is not read: what the file says of it, and no more.

  Attributes:
    of: 'module.name' of the class or function.
    args: what it was called with.
    state: what its attributes were set to, if anything.
    items: what was appended to it or set by key.
  """

  of: ClassVar[str] = ''
  args: tuple[Any, ...]
  kwargs: dict[str, Any]
  state: Any
  items: list[Any]

  # And no __init__: some objects are made without calling it.
  def __new__(cls, *args: Any, **kwargs: Any) -> 'Record':
    self = super().__new__(cls)
    self.args, self.kwargs, self.state, self.items = args, kwargs, None, []
    return self

  # What a `getattr` in the file would have given.
  def __call__(self, *args: Any, **kwargs: Any) -> 'Record':
    return Record(self, *args)

  def __setitem__(self, key, value):
    self.items.append((key, value))

  def append(self, item: Any) -> None:
    self.items.append(item)

  def extend(self, items: Iterable[Any]) -> None:
    self.items.extend(items)

  def __repr__(self):
    return f'<record of {self.of}>'


class Tensor(np.ndarray):
  """An array that may be the key of a dict: optimizers keep their state by parameter."""

  __hash__ = object.__hash__  # type: ignore[assignment]  # the base class has none


def tensor(
  budget: Budget,
  storage: Any,
  offset: Any,
  shape: tuple[Any, ...],
  stride: tuple[Any, ...],
  *_: Any,
) -> Tensor:
  """What torch._utils._rebuild_tensor_v2 makes: a view of a storage, bounds checked.

  It is paid for as a copy, which whoever uses it makes; and it has no more elements than the
  storage, as it would with a stride of zero.
  """
  # A tensor is no storage: it need not have as much memory behind it as it has elements.
  if type(storage) is not np.ndarray or storage.ndim != 1:
    raise pickle.UnpicklingError('a tensor without a storage')
  if len(shape) != len(stride) or not all(map(is_length, (offset, *shape, *stride))):
    raise pickle.UnpicklingError(
      f'a tensor of shape {reprlib.repr(shape)} and stride {reprlib.repr(stride)}'
    )
  budget.array(shape, storage.itemsize)
  if 0 in shape:
    return np.zeros(shape, storage.dtype).view(Tensor)
  last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
  if last >= storage.size:
    raise pickle.UnpicklingError(f'a tensor reaches beyond its storage of {storage.size} elements')
  if math.prod(shape) > storage.size:
    raise pickle.UnpicklingError(
      f'a tensor of shape {list(shape)} repeats its storage of {storage.size} elements'
    )
  strides = [s * storage.itemsize for s in stride]
  view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
  return view.view(Tensor)


def is_length(n: Any) -> bool:
  """Whether this may be a length, an offset or a stride."""
  return isinstance(n, int) and 0 <= n < 2**63


def numpy_array(budget: Budget, state: Any) -> np.ndarray:
  """The array that the state of NumPy's `_reconstruct` describes: plain numbers only.

  Neither the array nor its dtype is given anything of the file's before that is checked.
  """
  _, shape, dtype, fortran, data = state
  of = dtype.args[0] if isinstance(dtype, Record) and dtype.of == 'numpy.dtype' else None
  if not (isinstance(of, str) and of in _NUMBERS):
    args = dtype.args if isinstance(dtype, Record) else dtype
    raise pickle.UnpicklingError(f'an array of type {reprlib.repr(args)}, which is no plain number')
  order = dtype.state[1]
  if not (isinstance(order, str) and order in ('<', '|')):
    raise pickle.UnpicklingError(f'an array whose bytes have the order {reprlib.repr(order)}')
  dtype = np.dtype(of).newbyteorder('<')
  if not all(map(is_length, shape)) or not isinstance(data, bytes):
    raise pickle.UnpicklingError(
      f'an array of shape {reprlib.repr(shape)} from {type(data).__name__}'
    )
  budget.array(shape, dtype.itemsize)
  if math.prod(shape) * dtype.itemsize != len(data):
    raise pickle.UnpicklingError(f'an array {dtype}{list(shape)} of {len(data)} bytes')
  return np.frombuffer(data, dtype).reshape(shape, order='F' if fortran else 'C')


def _ordered(budget, pairs=(), *_):
  budget.draw(OPCODE * len(pairs))
  return {key(name): value for name, value in pairs}


def _size(budget, lengths=()):
  budget.draw(8 * len(lengths))
  return tuple(lengths)


# What is not a record. The functions take the budget first.
KNOWN: dict[tuple[str, str], Any] = {
  # Without its attributes, such as the `_metadata` that PyTorch gives a state dict.
  ('collections', 'OrderedDict'): _ordered,
  ('collections', 'defaultdict'): lambda *_: {},
  ('torch', 'Size'): _size,
  ('torch._utils', '_rebuild_tensor'): tensor,
  ('torch._utils', '_rebuild_tensor_v2'): tensor,
  ('torch._utils', '_rebuild_parameter'): lambda budget, data, *_: data,
  ('torch._utils', '_rebuild_parameter_with_state'): lambda budget, data, *_: data,
  **{('torch', name): np.dtype(dtype) for name, dtype in _STORAGES.items()},
}

_SCALARS = (str, bytes, bool, int, float, types.NoneType)


def key(value: Any) -> Any:
  """A value as the key of a dict, or in a set.

  Tuples are flat: Python would look into what is in them at every turn, and shared tuples of shared
  tuples have more in them than there is time.
  """
  flat = value if type(value) is tuple else (value,)
  if not all(isinstance(v, (*_SCALARS, Record, Tensor, np.dtype, type)) for v in flat):
    raise pickle.UnpicklingError(f'a key that is a {type(value).__name__}')
  return value
