"""Reading pickles without running anything that they name.

A pickle is a program: it names classes and functions, and a full unpickler imports and calls them.
Here a name is looked up in a short table of our own and never imported; whatever is not in the
table becomes an inert `Record`, so that a file full of optimizers, schedulers and argument
namespaces still gives its tensors, and a hostile one gives nothing but records of what it tried.
Every opcode draws from the file's budget, so that none can ask for much in few bytes.
"""

import math
import pickle
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, ClassVar

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
_NUMPY_ARRAY = ('numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct')

# What is drawn from the budget, in bytes.
_OPCODE = 256  # no value that an opcode makes, beside the bytes it reads, is larger: an empty set
_CLASS = 2048  # a class of records, one for every name
_LINE = 4096  # the longest name or number that is written as text


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
  if len(shape) != len(stride) or not all(map(_is_length, (offset, *shape, *stride))):
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


def _is_length(n):
  return isinstance(n, int) and 0 <= n < 2**63


def _numpy_array(budget, record, state):
  """The array that a record of NumPy's _reconstruct and its state describe: plain numbers only.

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
  if not all(map(_is_length, shape)) or not isinstance(data, bytes):
    raise pickle.UnpicklingError(
      f'an array of shape {reprlib.repr(shape)} from {type(data).__name__}'
    )
  budget.array(shape, dtype.itemsize)
  if math.prod(shape) * dtype.itemsize != len(data):
    raise pickle.UnpicklingError(f'an array {dtype}{list(shape)} of {len(data)} bytes')
  return np.frombuffer(data, dtype).reshape(shape, order='F' if fortran else 'C')


def _ordered(budget, pairs=(), *_):
  budget.draw(_OPCODE * len(pairs))
  return {_key(name): value for name, value in pairs}


def _size(budget, lengths=()):
  budget.draw(8 * len(lengths))
  return tuple(lengths)


# What is not a record. The functions take the budget first.
_KNOWN: dict[tuple[str, str], Any] = {
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


def _key(value):
  """A value as the key of a dict, or in a set.

  Tuples are flat: Python would look into what is in them at every turn, and shared tuples of shared
  tuples have more in them than there is time.
  """
  flat = value if type(value) is tuple else (value,)
  if not all(isinstance(v, (*_SCALARS, Record, Tensor, np.dtype, type)) for v in flat):
    raise pickle.UnpicklingError(f'a key that is a {type(value).__name__}')
  return value


class Unpickler:
  """Reads tensors, arrays of NumPy and plain data; everything else becomes a `Record`.

  What the opcodes of pickle's own unpickler, the one written in Python, do with plain values is
  left to them; those that call something, set items or set state are here. What nobody writes is
  unknown.

  Args:
    file: opened for reading, in binary.
    budget: of the file.
    storage: function (dtype, key, number of elements) -> [n], for the tensors of PyTorch's files.
  """

  def __init__(
    self,
    file: IO[bytes],
    budget: Budget,
    storage: Callable[[np.dtype, str, int], np.ndarray] | None = None,
  ) -> None:
    self._file, self._budget, self._storage = file, budget, storage
    self._records: dict[tuple[str, str], type[Record]] = {}
    self.memo: dict[int, Any] = {}
    self.metastack: list[list[Any]] = []
    self.stack: list[Any] = []
    self.append = self.stack.append
    self.proto = 0

  def load(self) -> Any:
    """What the pickle holds."""
    while (opcode := self.read(1)) != pickle.STOP:
      self._budget.draw(_OPCODE)
      if opcode[0] not in _OPCODES:
        raise pickle.UnpicklingError(f'the opcode {opcode!r}, which is not read here')
      _OPCODES[opcode[0]](self)
    return self.stack.pop()

  def read(self, count: int) -> bytes:
    """So many bytes of the file."""
    self._budget.draw(count)  # first: it is what the file claims
    data = self._file.read(count)
    if len(data) < count:
      raise EOFError
    return data

  def readline(self) -> bytes:
    """Up to the end of the line."""
    line = self._file.readline(_LINE)
    if not line.endswith(b'\n'):
      raise EOFError
    return line

  def pop_mark(self) -> list[Any]:
    """What was put on the stack since the last mark."""
    items, self.stack = self.stack, self.metastack.pop()
    self.append = self.stack.append
    return items

  def find_class(self, module: str, name: str) -> Any:
    """Never imports: a name is in the table, or a record."""
    if (known := _KNOWN.get((module, name))) is not None:
      return known
    if (module, name) not in self._records:
      self._budget.draw(_CLASS)
      self._records[module, name] = type('Record', (Record,), {'of': f'{module}.{name}'})
    return self._records[module, name]

  def _decode_string(self, value):
    return value.decode('ascii')  # Python 2's

  def _frame(self):
    self.read(8)  # how many bytes to read ahead, which nobody needs

  def _storage_of(self):
    """A storage of PyTorch's: ('storage', class, key, location, number of elements, ...)."""
    pid = self.stack.pop()
    if (
      self._storage is None
      or not (isinstance(pid, tuple) and len(pid) >= 5)
      or not (isinstance(pid[0], str) and pid[0] == 'storage')
      or not (isinstance(pid[1], np.dtype) and isinstance(pid[2], str) and _is_length(pid[4]))
    ):
      raise pickle.UnpicklingError(f'an unknown kind of storage: {reprlib.repr(pid)}')
    if len(pid) > 5 and pid[5] is not None:
      raise pickle.UnpicklingError('a storage that is a view of another')
    self.append(self._storage(pid[1], pid[2], pid[4]))

  def _called(
    self, function: Any, args: Any, kwargs: Mapping[str, Any] = types.MappingProxyType({})
  ) -> Any:
    """The one place where anything is called: a function of the table, or a record."""
    if type(args) is not tuple:
      raise pickle.UnpicklingError(f'a call with a {type(args).__name__}')
    if isinstance(function, types.FunctionType):
      return function(self._budget, *args)
    if isinstance(function, Record) or (
      isinstance(function, type) and issubclass(function, Record)
    ):
      self._budget.draw(_OPCODE * (2 + len(args) + len(kwargs)))
      return function(*args, **kwargs)
    raise pickle.UnpicklingError(f'a call of a {type(function).__name__}')

  def _reduce(self):  # newer ways to make an object are no different here
    args, function = self.stack.pop(), self.stack.pop()
    self.append(self._called(function, args))

  def _newobj_ex(self):
    kwargs, args, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
    self.append(self._called(function, args, kwargs))

  def _obj(self):
    function, *args = self.pop_mark()
    self.append(self._called(function, tuple(args)))

  def _inst(self):
    module, name = (self.readline()[:-1].decode('ascii') for _ in range(2))
    self.append(self._called(self.find_class(module, name), tuple(self.pop_mark())))

  def _add(self, items):
    """Appends to what is a list, or a record of something like one."""
    target = self.stack[-1]
    if isinstance(target, set):
      target.update(map(_key, items))
    elif isinstance(target, list | Record):
      target.extend(items)
    else:
      raise pickle.UnpicklingError(f'something is appended to a {type(target).__name__}')

  def _set(self, items):
    """Sets the items [key, value, key, value, ...]."""
    target = self.stack[-1]
    if not isinstance(target, dict | Record):
      raise pickle.UnpicklingError(f'an item of a {type(target).__name__} is set')
    for name, value in zip(items[::2], items[1::2], strict=True):
      target[_key(name)] = value

  def _set_one(self):
    value, name = self.stack.pop(), self.stack.pop()
    self._set([name, value])

  def _dict(self):
    items = self.pop_mark()
    self.append({})
    self._set(items)

  def _build(self):
    """Only records have state; an array of NumPy takes the place of the record that it was."""
    state, described = self.stack.pop(), self.stack[-1]
    if isinstance(described, Record) and described.of in _NUMPY_ARRAY:
      self.stack[-1] = array = _numpy_array(self._budget, described, state)
      for key in reversed(self.memo):  # it was remembered a moment ago, if at all
        self._budget.draw(_OPCODE)
        if self.memo[key] is described:
          self.memo[key] = array
          break
    elif isinstance(described, Record):
      described.state = state
    elif type(described) is not dict:
      raise pickle.UnpicklingError(f'the state of a {type(described).__name__} is set')


_PLAIN = (
  *('PROTO', 'NONE', 'NEWTRUE', 'NEWFALSE', 'INT', 'BININT', 'BININT1', 'BININT2'),
  *('LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'BINSTRING', 'SHORT_BINSTRING', 'BINBYTES'),
  *('SHORT_BINBYTES', 'BINBYTES8', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8'),
  *('EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'EMPTY_LIST', 'LIST', 'EMPTY_DICT'),
  *('EMPTY_SET', 'GLOBAL', 'STACK_GLOBAL', 'MARK', 'POP', 'POP_MARK', 'DUP'),
  *('GET', 'BINGET', 'LONG_BINGET', 'PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'),
)
_OPCODES: dict[int, Callable[[Any], None]] = {
  **{
    getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
    for name in _PLAIN
  },
  pickle.FRAME[0]: Unpickler._frame,
  pickle.BINPERSID[0]: Unpickler._storage_of,
  pickle.REDUCE[0]: Unpickler._reduce,
  pickle.NEWOBJ[0]: Unpickler._reduce,
  pickle.NEWOBJ_EX[0]: Unpickler._newobj_ex,
  pickle.OBJ[0]: Unpickler._obj,
  pickle.INST[0]: Unpickler._inst,
  pickle.APPEND[0]: lambda self: self._add([self.stack.pop()]),
  pickle.APPENDS[0]: lambda self: self._add(self.pop_mark()),
  pickle.ADDITEMS[0]: lambda self: self._add(self.pop_mark()),
  pickle.FROZENSET[0]: lambda self: self.append(frozenset(map(_key, self.pop_mark()))),
  pickle.SETITEM[0]: Unpickler._set_one,
  pickle.SETITEMS[0]: lambda self: self._set(self.pop_mark()),
  pickle.DICT[0]: Unpickler._dict,
  pickle.BUILD[0]: Unpickler._build,
}
