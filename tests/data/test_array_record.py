"""Shards: which belong to a split, and every way in which they are not what they should be."""

import msgpack
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from pictures import data_config

from vqjax.data import make_source
from vqjax.data.decode import UnreadableImage
from vqjax.errors import UserError


def shard(path, *records, options='group_size:1,uncompressed'):
  path.parent.mkdir(parents=True, exist_ok=True)
  writer = ArrayRecordWriter(str(path), options)
  for record in records:
    writer.write(record if isinstance(record, bytes) else msgpack.packb(record))
  writer.close()


def example(name, label=0):
  return {'image': b'pixels of ' + name.encode(), 'label': label, 'name': name}


def read(path, split='train', **fields):
  return make_source(data_config(source='array_record', path=str(path), **fields), split)


def names(source):
  return [source[i]['name'] for i in range(len(source))]


def test_a_folder_of_shards(tmp_path):
  shard(tmp_path / 'train-00000-of-00002.array_record', example('a', 3), example('b'))
  shard(tmp_path / 'train-00001-of-00002.array_record', example('c'))
  shard(tmp_path / 'val-00000-of-00001.array_record', example('d'))
  source = read(tmp_path)
  assert len(source) == 3
  assert names(source) == ['a', 'b', 'c']
  assert source[0] == {'image': b'pixels of a', 'label': 3, 'name': 'a'}
  assert source.description.startswith('3 images in 2 shards, train-00000-of-00002')
  assert names(read(tmp_path, 'eval')) == ['d']


@pytest.mark.parametrize(
  'name', ['val.array_record', 'validation.array_record', 'test.array_record']
)
def test_names_of_held_out_shards(tmp_path, name):
  shard(tmp_path / name, example('d'))
  assert names(read(tmp_path, 'eval')) == ['d']


def test_globs_and_eval_path(tmp_path):
  shard(tmp_path / 'mine-0.array_record', example('a'))
  shard(tmp_path / 'apart/val.array_record', example('b'))
  shard(tmp_path / 'yours.array_record', example('c'))
  assert names(read(tmp_path / 'mine*')) == ['a']
  assert names(read(tmp_path / 'mine*', 'eval', eval_path=str(tmp_path / 'apart'))) == ['b']
  assert names(read(tmp_path / 'mine*', 'eval', eval_path=str(tmp_path / 'y*'))) == ['c']
  with pytest.raises(UserError, match=r'is a glob of training shards.*data.eval_path'):
    read(tmp_path / 'mine*', 'eval')


def test_an_empty_shard_among_full_ones(tmp_path):
  shard(tmp_path / 'train-00000-of-00003.array_record', example('a'))
  shard(tmp_path / 'train-00001-of-00003.array_record')
  shard(tmp_path / 'train-00002-of-00003.array_record', example('b'))
  assert names(read(tmp_path)) == ['a', 'b']


def test_nothing_there(tmp_path):
  with pytest.raises(UserError, match=r"data.path is '' .*vqjax.data.prepare.*:demo"):
    read('')
  with pytest.raises(
    UserError, match=r'data.path=.* matches no shard .*train\*.array_record.*:demo'
  ):
    read(tmp_path)
  with pytest.raises(UserError, match=r'data.eval_path=/no matches no shard .*val\*.* or .*test\*'):
    read(tmp_path, 'eval', eval_path='/no')


def test_missing_and_mixed_shards(tmp_path):
  shard(tmp_path / 'train-00000-of-00003.array_record', example('a'))
  shard(tmp_path / 'train-00002-of-00003.array_record', example('a'))
  with pytest.raises(UserError, match=r'found 2 shards, .* of a set of 00003; copy the missing'):
    read(tmp_path)
  shard(tmp_path / 'train-00000-of-00001.array_record', example('a'))
  with pytest.raises(UserError, match=r'of a set of 00001 and 00003'):
    read(tmp_path)


def test_grouped_records_are_refused(tmp_path):
  shard(tmp_path / 'train.array_record', example('a'), options='group_size:8')
  with pytest.raises(UserError, match=r'train.array_record was written with group_size=8; only'):
    read(tmp_path)


def test_broken_empty_and_foreign_shards(tmp_path):
  path = tmp_path / 'train.array_record'
  shard(path, example('a'))
  path.write_bytes(path.read_bytes()[:70_000])
  with pytest.raises(
    UserError, match=r'train.array_record is no whole ArrayRecord file .*write all shards again'
  ):
    read(tmp_path)
  shard(path)
  with pytest.raises(UserError, match=r'1 shards .* hold no record'):
    read(tmp_path)
  for foreign in (b'\x0a\x05hello', {'image': b''}, [1, 2]):
    shard(path, foreign)
    with pytest.raises(UserError, match=r"no msgpack maps of image, label and name.*'tfds'"):
      read(tmp_path)


def flip(path, offset):
  damaged = bytearray(path.read_bytes())
  damaged[offset] ^= 1
  path.write_bytes(damaged)


def test_a_flipped_bit_is_one_unreadable_image(tmp_path):
  for i in range(2):
    records = [example(f'{i}{j}', j) for j in range(4)]
    shard(tmp_path / f'train-0000{i}-of-00002.array_record', *records)
  path = tmp_path / 'train-00001-of-00002.array_record'
  whole = path.read_bytes()
  for part in (b'pixels of 12', b'label\x02', b'12'):
    path.write_bytes(whole)
    flip(path, whole.index(part))
    source = read(tmp_path)
    for _ in range(2):
      with pytest.raises(UnreadableImage, match=rf'^{path}\[2\] \(.*hash mismatch'):
        source[6]
      assert [source[i]['name'] for i in range(8) if i != 6] == [
        *('00', '01', '02', '03', '10', '11', '13')
      ]


def test_a_first_record_that_is_damaged_is_as_any_other(tmp_path):
  path = tmp_path / 'train.array_record'
  shard(path, example('a'), example('b'))
  flip(path, path.read_bytes().index(b'pixels of a'))
  source = read(tmp_path)
  with pytest.raises(UnreadableImage, match=r'train.array_record\[0\]'):
    source[0]
  assert source[1]['name'] == 'b'


@pytest.mark.parametrize(
  ('record', 'reason'),
  [
    (b'\xff\xff\xff', 'no msgpack'),
    ([1], 'a list, not a map'),
    ({'image': b'', 'label': '1', 'name': ''}, 'no int as its label'),
    ({'image': 'x', 'label': 1, 'name': ''}, 'no bytes as its image'),
    ({'image': b'', 'label': 1}, 'no str as its name'),
  ],
)
def test_a_record_of_another_make_among_ours_is_unreadable(record, reason, tmp_path):
  shard(tmp_path / 'train.array_record', record, example('b'))
  source = read(tmp_path)
  assert source[1]['name'] == 'b'
  with pytest.raises(UnreadableImage, match=rf'train.array_record\[0\] \({reason}'):
    source[0]


def test_a_shard_with_a_damaged_end_is_named(tmp_path):
  shard(tmp_path / 'train-00000-of-00002.array_record', example('a'))
  path = tmp_path / 'train-00001-of-00002.array_record'
  shard(path, example('b'))
  flip(path, 65_620)  # in the postscript, which says where the index is
  with pytest.raises(UserError, match=rf'^{path} is no whole ArrayRecord file .*copy it again'):
    read(tmp_path)
