"""Containers are read, whole or not at all, and nothing in them is ever executed."""

import json
import zipfile

import numpy as np
import pytest
import torch_files as write
from flax import serialization
from safetensors.numpy import save_file

from vqjax import tensor_files
from vqjax.errors import UserError
from vqjax.tensor_files import Record

ARRAYS = {
  'a.weight': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'b': np.asarray([7], np.int64),
  'c': np.asarray([0.5, -2], np.float16),
}
WRITERS = pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])


def written(path, body, arrays, legacy):
  return (write.write_legacy if legacy else write.write_zip)(path, body, arrays)


def equal(ours, theirs):
  assert ours.keys() == theirs.keys()
  for key, array in theirs.items():
    assert ours[key].dtype == array.dtype
    np.testing.assert_array_equal(ours[key], array)


@WRITERS
def test_tensors_come_back(tmp_path, legacy):
  body = write.mapping({'state_dict': write.state_dict(ARRAYS, legacy), 'step': write.integer(3)})
  content = tensor_files.read(written(tmp_path / 'x.pt', body, ARRAYS, legacy))
  assert content['step'] == 3
  equal(content['state_dict'], ARRAYS)


@WRITERS
def test_views_and_shared_storages(tmp_path, legacy):
  array = ARRAYS['a.weight']
  views = {
    'transposed': write.tensor('a', array, shape=(4, 3), stride=(1, 4), offset=12, legacy=legacy),
    'scalar': write.tensor('a', array, shape=(), stride=(), offset=5, legacy=legacy),
    'empty': write.tensor('a', array, shape=(0, 3), stride=(3, 1), legacy=legacy),
  }
  content = tensor_files.read(written(tmp_path / 'x', write.mapping(views), {'a': array}, legacy))
  np.testing.assert_array_equal(content['transposed'], array[1].T)
  assert (content['scalar'], content['empty'].shape) == (5, (0, 3))


def test_modules_of_torchscript(tmp_path):
  """They are records; the archive's code and constants are not looked at."""
  weight = write.tensor('w', ARRAYS['a.weight'])
  body = write.module('net', {'conv': write.module('conv', {'weight': weight, 'stride': b'K\x02'})})
  path = write.write_zip(tmp_path / 'x.pt', body, {'w': ARRAYS['a.weight']})
  with zipfile.ZipFile(path, 'a') as archive:
    archive.writestr('archive/constants.pkl', b'no pickle')
    archive.writestr('archive/code/__torch__/net.py', 'raise SystemExit')
  content = tensor_files.read(path)
  assert content.of == '__torch__.net.Module'
  conv = content.state['conv']
  assert (conv.of, conv.state['stride']) == ('__torch__.conv.Module', 2)
  np.testing.assert_array_equal(conv.state['weight'], ARRAYS['a.weight'])


def test_a_zip_file_is_mapped_and_not_read(tmp_path):
  path = write.write_zip(tmp_path / 'x.pt', write.state_dict(ARRAYS), ARRAYS)
  array = tensor_files.read(path)['a.weight']
  assert not array.flags.owndata
  assert not array.flags.writeable


def test_safetensors_and_hugging_face_folders(tmp_path):
  save_file(ARRAYS, tmp_path / 'model.safetensors')
  (tmp_path / 'config.json').write_text(json.dumps({'quantize': {'n_e': 4}}))
  equal(tensor_files.read(tmp_path / 'model.safetensors')['tensors'], ARRAYS)
  content = tensor_files.read(tmp_path)
  equal(content['tensors'], ARRAYS)
  assert content['config'] == {'quantize': {'n_e': 4}}


def test_bfloat16_in_safetensors(tmp_path):
  header = json.dumps({'x': {'dtype': 'BF16', 'shape': [2], 'data_offsets': [0, 4]}}).encode()
  path = tmp_path / 'x.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\x80\x3f\x00\xc0')
  np.testing.assert_array_equal(tensor_files.read(path)['tensors']['x'].astype(np.float32), [1, -2])


def test_msgpack_of_flax(tmp_path):
  tree = {'params': {'dense': {'kernel': np.ones((2, 3), np.float32)}}}
  (tmp_path / 'x.msgpack').write_bytes(serialization.to_bytes(tree))
  equal(tensor_files.read(tmp_path / 'x.msgpack')['params']['dense'], tree['params']['dense'])


# Each would create a file named PWNED in the working directory, were it run.
OPEN = write.text('PWNED') + write.text('w')
EVIL = {
  'call': write.call('builtins', 'open', OPEN),
  'python 2 name': write.call('__builtin__', 'open', OPEN),
  'system': write.call('os', 'system', write.text('touch PWNED')),
  'eval': write.call('builtins', 'eval', write.text("open('PWNED', 'w')")),
  'getattr': write.call('builtins', 'getattr', write.named('os', 'path') + write.text('os')),
  'call of what getattr gave': write.call('builtins', 'getattr', write.named('io', '') + OPEN)
  + b'('
  + OPEN
  + b'tR',
  'dotted name': write.call('torch', '_utils.os.system', write.text('touch PWNED')),
  'stack global': b'\x8c\x02io\x8c\x04open\x93(' + OPEN + b'tR',
  'inst': b'(' + OPEN + b'iio\nopen\n',
  'obj': b'(' + write.named('io', 'open') + OPEN + b'o',
  'newobj': write.named('io', 'FileIO') + b'(' + OPEN + b't\x81',
  'build': write.named('io', 'FileIO')
  + b')R'
  + write.mapping({'name': write.text('PWNED')})
  + b'b',
  'reduce of a reduce': write.call('functools', 'partial', write.named('io', 'open') + OPEN)
  + b')R',
  'storage class': b'('
  + write.text('storage')
  + write.call('io', 'open', OPEN)
  + write.text('0')
  + write.text('cpu')
  + write.integer(1)
  + b'tQ',
}


@pytest.mark.parametrize('where', ['zip', 'legacy', 'legacy header'])
@pytest.mark.parametrize('name', EVIL)
def test_nothing_is_executed(tmp_path, monkeypatch, name, where):
  monkeypatch.chdir(tmp_path)
  entries = {'evil': EVIL[name], 'x': write.tensor('x', np.ones(2, np.float32))}
  if where == 'zip':
    path = write.write_zip(tmp_path / 'x', write.mapping(entries), {'x': np.ones(2, np.float32)})
  elif where == 'legacy':
    path = write.write_legacy(tmp_path / 'x', write.mapping({'evil': EVIL[name]}), {})
  else:
    path = write.write_legacy(tmp_path / 'x', write.mapping({}), {}, header=EVIL[name])
  try:
    result = tensor_files.read(path).get('evil')
  except UserError as error:
    result = str(error)
  # Either it is refused by the name of its file, or what it calls is a record.
  assert str(path) in result if isinstance(result, str) else isinstance(result, Record)
  assert isinstance(result, str) or where != 'legacy header'
  assert [p.name for p in tmp_path.iterdir()] == ['x']


ARRAY = np.ones(4, np.float32)
DAMAGED = {
  'reach beyond the storage': (write.tensor('a', ARRAY, shape=(5,)), 'beyond its storage'),
  'negative stride': (write.tensor('a', ARRAY, stride=(-1,)), 'stride'),
  'no such storage': (write.tensor('b', ARRAY), 'archive/data/b'),
  'storage too short': (write.tensor('a', np.ones(8, np.float32)), 'smaller than requested'),
  'unknown storage': (b'(' + write.text('module') + b'tQ', 'unknown kind of storage'),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_a_tensor_stays_within_its_file(tmp_path, name):
  body, message = DAMAGED[name]
  path = write.write_zip(tmp_path / 'x.pt', write.mapping({'x': body}), {'a': ARRAY})
  with pytest.raises(UserError, match=message) as caught:
    tensor_files.read(path)
  assert str(path) in str(caught.value)


@WRITERS
@pytest.mark.parametrize('fraction', [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path, legacy, fraction):
  path = written(tmp_path / 'x.pt', write.state_dict(ARRAYS, legacy), ARRAYS, legacy)
  whole = path.read_bytes()
  path.write_bytes(whole[: int(len(whole) * fraction)])
  with pytest.raises(UserError, match='no whole checkpoint'):
    tensor_files.read(path)


@pytest.mark.parametrize(
  'content', [b'', b'hello world, this is text', b'\x80\x04K\x01.', b'PK\3\4']
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
  (tmp_path / 'x').write_bytes(content)
  with pytest.raises(UserError, match=r'x is no whole checkpoint .*; legal: a file of PyTorch'):
    tensor_files.read(tmp_path / 'x')


def test_paths_that_lead_nowhere(tmp_path):
  with pytest.raises(UserError, match=r'cannot be read: No such file'):
    tensor_files.read(tmp_path / 'none.ckpt')
  with pytest.raises(UserError, match=r'has no config\.json; legal: a checkpoint file'):
    tensor_files.read(tmp_path)


@pytest.mark.parametrize('names', [[], ['b'], ['a', 'b'], ['a', 'a']], ids=str)
def test_every_storage_of_a_legacy_file_is_filled_once(tmp_path, names):
  body = write.mapping({'x': write.tensor('a', ARRAY, legacy=True)})
  path = write.write_legacy(tmp_path / 'x.pt', body, {'a': ARRAY}, listed=names)
  with pytest.raises(UserError, match='storages that follow are not those of the tensors, each on'):
    tensor_files.read(path)


def test_an_archive_whose_compressed_pickle_is_damaged_is_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', bytes(1000))
    start = archive.start_dir - archive.infolist()[0].compress_size
  content = bytearray((tmp_path / 'x').read_bytes())
  content[start] ^= 0xFF
  (tmp_path / 'x').write_bytes(content)
  with pytest.raises(UserError, match='no whole checkpoint'):
    tensor_files.read(tmp_path / 'x')


def test_compressed_storages_are_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x', 'w', zipfile.ZIP_DEFLATED) as archive:
    body = write.mapping({'x': write.tensor('a', ARRAY)})
    archive.writestr('archive/data.pkl', write.PROTOCOL + body + write.STOP)
    archive.writestr('archive/data/a', ARRAY.tobytes())
  with pytest.raises(UserError, match='data/a is compressed'):
    tensor_files.read(tmp_path / 'x')
