"""Writes files as PyTorch does, opcode by opcode, honest ones and others."""

import pickle
import struct
import zipfile

import numpy as np

PROTOCOL = b'\x80\x02'
STOP = b'.'
STORAGES = {'float32': b'FloatStorage', 'int64': b'LongStorage', 'float16': b'HalfStorage'}
MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def text(value):
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def integer(value):
  return b'J' + struct.pack('<i', value)


def numbers(values):
  return b'(' + b''.join(map(integer, values)) + b't'


def named(module, name):
  return b'c' + module.encode() + b'\n' + name.encode() + b'\n'


def call(module, name, arguments):
  """What calls `module.name(*arguments)` in a full unpickler."""
  return named(module, name) + b'(' + arguments + b'tR'


def storage(key, dtype, count, legacy=False):
  view = b'N' if legacy else b''
  parts = text('storage') + b'ctorch\n' + STORAGES[str(dtype)] + b'\n' + text(key)
  return b'(' + parts + text('cuda:0') + integer(count) + view + b'tQ'


def tensor(key, array, *, shape=None, stride=None, offset=0, legacy=False):
  """A call of torch._utils._rebuild_tensor_v2 on the storage `key`."""
  stride = [s // array.itemsize for s in array.strides] if stride is None else stride
  arguments = storage(key, array.dtype, array.size, legacy) + integer(offset)
  arguments += numbers(array.shape if shape is None else shape) + numbers(stride)
  arguments += b'\x89' + named('collections', 'OrderedDict') + b')R'
  return call('torch._utils', '_rebuild_tensor_v2', arguments)


def mapping(entries):
  """A dict from keys to opcodes."""
  return b'}(' + b''.join(text(key) + value for key, value in entries.items()) + b'u'


def state_dict(arrays, legacy=False):
  return mapping({key: tensor(key, array, legacy=legacy) for key, array in arrays.items()})


def module(name, entries):
  """An object of a module's class with attributes, as TorchScript's archives have them."""
  return named(f'__torch__.{name}', 'Module') + b')\x81' + mapping(entries) + b'b'


def write_zip(path, body, arrays):
  """A file of PyTorch since 1.6: `body` are the opcodes of data.pkl."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', PROTOCOL + body + STOP)
    archive.writestr('archive/byteorder', 'little')
    for key, array in arrays.items():
      archive.writestr(f'archive/data/{key}', np.ascontiguousarray(array).tobytes())
  return path


def write_legacy(path, body, arrays, *, header=None, listed=None):
  """A file of PyTorch before 1.6.

  `header` are opcodes in the place of its magic number, `listed` names in the place of the arrays'.
  """
  pickles = [
    pickle.dumps(MAGIC, 2) if header is None else PROTOCOL + header + STOP,
    pickle.dumps(LEGACY_PROTOCOL, 2),
    pickle.dumps({'little_endian': True, 'protocol_version': LEGACY_PROTOCOL}, 2),
    PROTOCOL + body + STOP,
    pickle.dumps(list(arrays) if listed is None else listed, 2),
  ]
  storages = [struct.pack('<q', array.size) + array.tobytes() for array in arrays.values()]
  path.write_bytes(b''.join(pickles + storages))
  return path
