"""Reading pickles without running anything that they name.

A pickle is a program: it names classes and functions, and a full unpickler imports and calls them.
Here a name is looked up in a short table of our own and never imported; whatever is not in the
table becomes an inert `Record`, so that a file full of optimizers, schedulers and argument
namespaces still gives its tensors, and a hostile one gives nothing but records of what it tried.
Every opcode draws from the file's budget, so that none can ask for much in few bytes.
"""

import pickle
import reprlib
import types
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from vqjax.tensor_files.budget import Budget
from vqjax.tensor_files.names import KNOWN, NUMPY_ARRAY, OPCODE, Record, is_length, key, numpy_array

# What is drawn from the budget, in bytes.
_CLASS = 2048  # a class of records, one for every name
_LINE = 4096  # the longest name or number that is written as text


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
      self._budget.draw(OPCODE)
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
    if (known := KNOWN.get((module, name))) is not None:
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
      or not (isinstance(pid[1], np.dtype) and isinstance(pid[2], str) and is_length(pid[4]))
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
      self._budget.draw(OPCODE * (2 + len(args) + len(kwargs)))
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
      target.update(map(key, items))
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
      target[key(name)] = value

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
    if isinstance(described, Record) and described.of in NUMPY_ARRAY:
      self.stack[-1] = array = numpy_array(self._budget, state)
      for place in reversed(self.memo):  # it was remembered a moment ago, if at all
        self._budget.draw(OPCODE)
        if self.memo[place] is described:
          self.memo[place] = array
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
  pickle.FROZENSET[0]: lambda self: self.append(frozenset(map(key, self.pop_mark()))),
  pickle.SETITEM[0]: Unpickler._set_one,
  pickle.SETITEMS[0]: lambda self: self._set(self.pop_mark()),
  pickle.DICT[0]: Unpickler._dict,
  pickle.BUILD[0]: Unpickler._build,
}
