"""Reading pickles without running anything that they name.

A pickle is a program: it names classes and functions, and a full unpickler imports and calls them.
Here a name is looked up in a short table of our own and never imported; whatever is not in the
table becomes an inert `Record`, so that a file full of optimizers, schedulers and argument
namespaces still gives its tensors, and a hostile one gives nothing but records of what it tried.
"""

import math
import pickle
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar

import ml_dtypes
import numpy as np

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
_NUMPY_ARRAY = ('numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct')


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
  storage: Any, offset: Any, shape: tuple[Any, ...], stride: tuple[Any, ...], *_: Any
) -> Tensor:
  """What torch._utils._rebuild_tensor_v2 makes: a view of a storage, bounds checked."""
  # A tensor is no storage: with a stride of zero it has more elements than there is memory behind.
  if type(storage) is not np.ndarray or storage.ndim != 1:
    raise pickle.UnpicklingError('a tensor without a storage')
  numbers = (offset, *shape, *stride)
  if len(shape) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
    raise pickle.UnpicklingError(f'a tensor of shape {shape} and stride {stride}')
  if 0 in shape:
    return np.zeros(shape, storage.dtype).view(Tensor)
  last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
  if last >= storage.size:
    raise pickle.UnpicklingError(f'a tensor reaches beyond its storage of {storage.size} elements')
  strides = [s * storage.itemsize for s in stride]
  view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)
  return view.view(Tensor)


def _numpy_array(record, state):
  """The array that a record of NumPy's _reconstruct and its state describe: plain numbers only.

  Neither the array nor its dtype is given anything of the file's before that is checked.
  """
  _, shape, dtype, fortran, data = state
  if not (isinstance(dtype, Record) and dtype.of == 'numpy.dtype' and dtype.args[0] in _NUMBERS):
    args = dtype.args if isinstance(dtype, Record) else dtype
    raise pickle.UnpicklingError(f'an array of type {args!r:.100}, which is no plain number')
  if dtype.state[1] not in ('<', '|'):
    raise pickle.UnpicklingError(f'an array whose bytes have the order {dtype.state[1]!r:.100}')
  dtype = np.dtype(dtype.args[0]).newbyteorder('<')
  if not all(isinstance(n, int) and n >= 0 for n in shape) or not isinstance(data, bytes):
    raise pickle.UnpicklingError(f'an array of shape {shape!r:.100} from {type(data).__name__}')
  if math.prod(shape) * dtype.itemsize != len(data):
    raise pickle.UnpicklingError(f'an array {dtype}{list(shape)} of {len(data)} bytes')
  return np.frombuffer(data, dtype).reshape(shape, order='F' if fortran else 'C')


class Unpickler(pickle._Unpickler):
  """Reads tensors, arrays of NumPy and plain data; everything else becomes a `Record`.

  This is the unpickler written in Python, because there one opcode can be replaced: BUILD, which
  would call the `__setstate__` of whatever stands on the stack.

  Args:
    file: opened for reading, in binary.
    storage: function (dtype, key, number of elements) -> [n], for the tensors of PyTorch's files.
  """

  stack: list[Any]
  memo: dict[int, Any]
  _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
    # Without its attributes, such as the `_metadata` that PyTorch gives a state dict.
    ('collections', 'OrderedDict'): dict,
    ('collections', 'defaultdict'): lambda *_: {},
    ('torch', 'Size'): tuple,
    ('torch._utils', '_rebuild_tensor'): tensor,
    ('torch._utils', '_rebuild_tensor_v2'): tensor,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    ('torch._utils', '_rebuild_parameter_with_state'): lambda data, *_: data,
    **{('torch', name): np.dtype(dtype) for name, dtype in _STORAGES.items()},
  }

  def __init__(
    self,
    file: IO[bytes],
    storage: Callable[[np.dtype, str, int], np.ndarray] | None = None,
  ) -> None:
    super().__init__(file)
    self._storage = storage

  def find_class(self, module: str, name: str) -> Any:
    """Never imports: a name is in the table, or a record."""
    known = self._KNOWN.get((module, name))
    return type('Record', (Record,), {'of': f'{module}.{name}'}) if known is None else known

  def persistent_load(self, pid: Any) -> np.ndarray:
    """A storage of PyTorch's: ('storage', class, key, location, number of elements, ...)."""
    if (
      self._storage is None
      or not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage')
      or not (isinstance(pid[1], np.dtype) and isinstance(pid[2], str))
      or not (isinstance(pid[4], int) and pid[4] >= 0)
    ):
      raise pickle.UnpicklingError(f'an unknown kind of storage: {pid!r:.100}')
    if len(pid) > 5 and pid[5] is not None:
      raise pickle.UnpicklingError('a storage that is a view of another')
    return self._storage(pid[1], pid[2], pid[4])

  def _build(self):
    """Only records have state; an array of NumPy takes the place of the record that it was."""
    state, described = self.stack.pop(), self.stack[-1]
    if isinstance(described, Record) and described.of in _NUMPY_ARRAY:
      self.stack[-1] = array = _numpy_array(described, state)
      for key in reversed(self.memo):  # it was remembered a moment ago, if at all
        if self.memo[key] is described:
          self.memo[key] = array
          break
    elif isinstance(described, Record):
      described.state = state
    elif type(described) is not dict:
      raise pickle.UnpicklingError(f'the state of a {type(described).__name__} is set')

  dispatch: ClassVar[dict[int, Callable[..., Any]]] = {
    **pickle._Unpickler.dispatch,
    pickle.BUILD[0]: _build,
  }
