"""Reading pickles without running anything that they name.

A pickle is a program: it names classes and functions, and a full unpickler imports and calls them.
Here a name is looked up in a short table of our own and never imported; whatever is not in the
table becomes an inert `Record`, so that a file full of optimizers, schedulers and argument
namespaces still gives its tensors, and a hostile one gives nothing but records of what it tried.
"""

import collections
import pickle

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


class Record:
  """Stands for an object of a class that is not read: what the file says of it, and no more.

  Attributes:
    of: 'module.name' of the class or function.
    args: what it was called with.
    state: what its attributes were set to, if anything.
    items: what was appended to it or set by key.
  """

  of = ''

  def __init__(self, *args, **kwargs):
    self.args, self.kwargs, self.state, self.items = args, kwargs, None, []

  def __call__(self, *args, **kwargs):  # what a `getattr` in the file would have given
    return Record(self, *args)

  def __setstate__(self, state):
    self.state = state

  def __setitem__(self, key, value):
    self.items.append((key, value))

  def append(self, item):
    self.items.append(item)

  def extend(self, items):
    self.items.extend(items)

  def __repr__(self):
    return f'<record of {self.of}>'


class _Function:
  """A function of ours that a file may call, but not change."""

  __slots__ = ('_function',)

  def __init__(self, function):
    object.__setattr__(self, '_function', function)

  def __call__(self, *args):
    return self._function(*args)

  def __setattr__(self, name, value):
    raise pickle.UnpicklingError(f'attribute {name!r} of a function is set')

  def __setstate__(self, state):
    raise pickle.UnpicklingError('a function has state')


class Tensor(np.ndarray):
  """An array that may be the key of a dict: optimizers keep their state by parameter."""

  __hash__ = object.__hash__


def tensor(storage, offset, shape, stride, *_):
  """What torch._utils._rebuild_tensor_v2 makes: a view of a storage, bounds checked."""
  if not isinstance(storage, np.ndarray) or storage.ndim != 1:
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


class Unpickler(pickle.Unpickler):
  """Reads tensors and plain data; everything else becomes a `Record`.

  Args:
    file: opened for reading, in binary.
    storage: function (dtype, key, number of elements) -> [n], for the tensors of PyTorch's files.
  """

  def __init__(self, file, storage=None):
    super().__init__(file)
    self._storage = storage
    self._known = {
      ('collections', 'OrderedDict'): collections.OrderedDict,
      ('collections', 'defaultdict'): _Function(lambda *_: {}),
      ('torch', 'Size'): _Function(tuple),
      ('torch._utils', '_rebuild_tensor'): _Function(tensor),
      ('torch._utils', '_rebuild_tensor_v2'): _Function(tensor),
      ('torch._utils', '_rebuild_parameter'): _Function(lambda data, *_: data),
      ('torch._utils', '_rebuild_parameter_with_state'): _Function(lambda data, *_: data),
      **{('torch', name): np.dtype(dtype) for name, dtype in _STORAGES.items()},
    }

  def find_class(self, module, name):
    """Never imports: a name is in the table, or a record."""
    known = self._known.get((module, name))
    return type('Record', (Record,), {'of': f'{module}.{name}'}) if known is None else known

  def persistent_load(self, pid):
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
