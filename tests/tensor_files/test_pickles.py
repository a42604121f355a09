"""What a pickle may say of arrays, and that nothing but records is given any state."""

import pickle

import numpy as np
import pytest
import torch_files as write

from vqjax import tensor_files
from vqjax.errors import UserError
from vqjax.tensor_files import Record

ARRAYS = {
  'float': np.arange(6, dtype=np.float32).reshape(2, 3),
  'fortran': np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
  'scalar': np.asarray(2.5),
  'empty': np.zeros((0, 3), np.uint8),
  'bool': np.asarray([True, False]),
}


def saved(path, content):
  """Protocol 3 has bytes as they are and names in plain text; NumPy 2 renamed a module."""
  path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 3))
  return path


@pytest.mark.parametrize('module', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_arrays_of_numpy_come_back(tmp_path, module):
  content = pickle.dumps({**ARRAYS, 'again': [ARRAYS['float']]}, 3)
  assert b'numpy._core.multiarray' in content
  found = tensor_files.read(
    saved(tmp_path / 'x', content.replace(b'numpy._core.multiarray', module))
  )
  assert found['again'][0] is found['float']  # remembered as the array and not as its record
  for name, array in ARRAYS.items():
    assert type(found[name]) is np.ndarray
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)


def test_a_type_of_numbers_alone_stays_a_record(tmp_path):
  found = tensor_files.read(saved(tmp_path / 'x', {'dtype': np.dtype(np.float32)}))['dtype']
  assert isinstance(found, Record)
  assert (found.of, found.args[0]) == ('numpy.dtype', 'f4')


def array(shape=(2,), kind='f4', order='<', data=bytes(8)):
  """Opcodes of an array whose parts do not fit together."""
  dtype = write.call('numpy', 'dtype', write.text(kind) + b'\x89\x88')
  dtype += b'(' + write.integer(3) + write.text(order) + b'NNN' + write.numbers([-1, -1, 0]) + b'tb'
  made = write.call(
    'numpy.core.multiarray', '_reconstruct', write.named('numpy', 'ndarray') + b')C\0'
  )
  data = b'B' + len(data).to_bytes(4, 'little') + data if isinstance(data, bytes) else data(dtype)
  state = b'(' + write.integer(1) + write.numbers(shape) + dtype + b'\x89' + data + b't'
  return made + state + b'b'


HOSTILE = {
  'too few bytes': (array(data=bytes(7)), r'an array float32\[2\] of 7 bytes'),
  'too many bytes': (array(data=bytes(9)), r'an array float32\[2\] of 9 bytes'),
  'a negative side': (array(shape=(-1, -2)), r'an array of shape \(-1, -2\) from bytes'),
  'objects': (array(kind='O8'), r"of type \('O8', False, True\), which is no plain number"),
  'a structure': (array(kind='V8'), r"of type \('V8', False, True\), which is no plain number"),
  'the other order': (array(order='>'), "bytes have the order '>'"),
  'a list of objects': (array(data=lambda _: b'](K\x01K\x02e'), r'shape \(2,\) from list'),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_an_array_of_other_than_its_own_numbers_is_refused(tmp_path, name):
  body, message = HOSTILE[name]
  content = write.PROTOCOL + write.mapping({'x': body}) + write.STOP
  with pytest.raises(UserError, match=message):
    tensor_files.read(saved(tmp_path / 'x', content))


def test_objects_that_numpy_itself_pickled_are_refused(tmp_path):
  with pytest.raises(UserError, match='no plain number'):
    tensor_files.read(saved(tmp_path / 'x', {'x': np.asarray([{}, None])}))


ONES = np.ones(4, np.float32)
# The state of an array elsewhere in memory: applied to a storage it moves what tensors look at.
STATE = b'(' + write.integer(1) + write.numbers([1 << 20]) + write.call('numpy', 'dtype', b'')
STATE += b'\x89' + write.text('x') + b't'
REAL = {
  'a tensor': (write.tensor('a', ONES), 'state of a Tensor is set'),
  'a storage': (write.storage('a', ONES.dtype, 4), 'state of a ndarray is set'),
  'a type of storage': (write.named('torch', 'FloatStorage'), r'state of a \w+ is set'),
  'a function': (write.named('torch._utils', '_rebuild_tensor_v2'), 'state of a function is set'),
  'a function in place of a class': (
    write.named('collections', 'OrderedDict'),
    'state of a function is set',
  ),
  'a class of records': (write.named('io', 'FileIO'), 'state of a type is set'),
}


@pytest.mark.parametrize('name', REAL)
def test_nothing_real_is_given_state(tmp_path, name):
  target, message = REAL[name]
  for state in (STATE, write.mapping({'__class__': write.integer(1)})):
    path = write.write_zip(tmp_path / 'x', write.mapping({'x': target + state + b'b'}), {'a': ONES})
    with pytest.raises(UserError, match=message):
      tensor_files.read(path)


def test_a_tensor_is_not_the_storage_of_another(tmp_path):
  beyond = (
    write.tensor('a', ONES) + write.integer(0) + write.numbers([1 << 20]) + write.numbers([1])
  )
  body = write.mapping({'x': write.call('torch._utils', '_rebuild_tensor', beyond)})
  with pytest.raises(UserError, match='a tensor without a storage'):
    tensor_files.read(write.write_zip(tmp_path / 'x', body, {'a': ONES}))


def test_records_have_state_and_items_however_they_were_made(tmp_path):
  of, args, state = write.named('io', 'Thing'), b'(K\x07t', write.mapping({'a': write.integer(1)})
  body = write.mapping(
    {'new': of + args + b'\x81' + state + b'b(K\x02e', 'called': of + args + b'R'}
  )
  found = tensor_files.read(write.write_zip(tmp_path / 'x', body, {}))
  assert (found['new'].of, found['new'].args, found['new'].state) == ('io.Thing', (7,), {'a': 1})
  assert (found['new'].items, found['called'].args, found['called'].state) == ([2], (7,), None)


def test_the_metadata_of_a_state_dict_is_left_out(tmp_path):
  state = write.mapping({'_metadata': write.mapping({'version': write.integer(1)})})
  body = write.named('collections', 'OrderedDict') + b')R' + b'X\x01\0\0\0aK\x01s' + state + b'b'
  assert tensor_files.read(write.write_zip(tmp_path / 'x', body, {})) == {'a': 1}
