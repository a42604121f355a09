"""A folder of tokens: what comes back, and every way in which it is not what it should be."""

import json
import pickle

import grain
import numpy as np
import pytest

from vqjax.data import Tokens, tokens
from vqjax.errors import UserError


def folder(path, counts=(3, 2), shape=(2, 3), num_codes=256, **fields):
  """A finished folder: shards of so many records, tokens below `num_codes`; returns them."""
  path.mkdir()
  kind = tokens.record_type(shape, num_codes)
  rows = np.zeros(sum(counts), kind)
  rows['tokens'] = np.random.default_rng(0).integers(0, num_codes, rows['tokens'].shape)
  rows['tokens'].flat[:2] = 0, num_codes - 1
  rows['label'] = -1 + np.arange(len(rows))
  rows['index'] = 10 * np.arange(len(rows))
  shards = [
    {'name': name, 'records': count}
    for name, count in zip(tokens.shard_names(len(counts), 1), counts, strict=True)
  ]
  start = 0
  for shard in shards:
    stop = start + shard['records']
    assert tokens.write_shard(
      path / shard['name'], (row.tobytes() for row in rows[start:stop])
    ) == (stop - start)
    start = stop
  index = {'format': 1, 'token_shape': shape, 'num_codes': num_codes, 'shards': shards, **fields}
  tokens.write_index(path, {name: x for name, x in index.items() if x is not None})
  return rows


@pytest.mark.parametrize('num_codes', [256, 65_536, 65_537, 2**31 - 1])
@pytest.mark.parametrize('shape', [(2, 3), (2, 3, 4)], ids=str)
def test_what_was_written_comes_back(tmp_path, num_codes, shape):
  rows = folder(tmp_path / 'a', shape=shape, num_codes=num_codes)
  found = Tokens(tmp_path / 'a')
  assert len(found) == 5
  for i, row in enumerate(rows):
    assert found[i].keys() == {'tokens', 'label', 'index'}
    for name, value in found[i].items():
      assert value.dtype == np.int32
      np.testing.assert_array_equal(value, row[name])
  # Two bytes a token as long as they hold all codes.
  assert rows['tokens'].itemsize == (2 if num_codes <= 2**16 else 4)
  assert rows.itemsize == 8 + rows['tokens'].itemsize * np.prod(shape)
  assert found.description == f'tokens of 5 images in 2 shards, in {tmp_path / "a"}'


def test_bytes_are_little_endian_in_the_order_that_the_index_says(tmp_path):
  folder(tmp_path / 'a')
  kind = tokens.record_type((1, 2), 256)
  row = np.zeros((), kind)
  row['label'], row['index'], row['tokens'] = -2, 258, [[3, 255]]
  assert row.tobytes() == bytes([254, 255, 255, 255, 2, 1, 0, 0, 3, 0, 255, 0])


def test_grain_shuffles_and_batches_and_processes_read(tmp_path):
  rows = folder(tmp_path / 'a')
  found = Tokens(tmp_path / 'a')
  batch = grain.MapDataset.source(found).shuffle(seed=0).batch(5)[0]
  order = batch['index'] // 10
  assert sorted(order) == [0, 1, 2, 3, 4]
  np.testing.assert_array_equal(batch['tokens'], rows['tokens'][order])
  again = pickle.loads(pickle.dumps(found))  # as a process that reads ahead gets it
  np.testing.assert_array_equal(again[4]['tokens'], rows['tokens'][4])


def test_an_empty_shard_among_full_ones(tmp_path):
  rows = folder(tmp_path / 'a', counts=(2, 0, 1))
  found = Tokens(tmp_path / 'a')
  assert [int(record['index']) for record in found] == rows['index'].tolist()
  assert found[-1]['index'] == rows['index'][-1]
  with pytest.raises(IndexError):
    found[3]


def test_a_shard_has_its_name_only_when_it_is_whole(tmp_path):
  def records():
    yield b'one'
    assert [path.name for path in tmp_path.iterdir()] == ['partial-x']
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    tokens.write_shard(tmp_path / 'x', records())
  assert not (tmp_path / 'x').exists()
  with pytest.raises(UserError, match=r'cannot write .*/no/x \(.*\); make room or mend'):
    tokens.write_shard(tmp_path / 'no' / 'x', [b'one'])


def test_folders_that_are_none(tmp_path):
  with pytest.raises(UserError, match=r'/a/index.json does not exist; python -m vqjax.tokenize'):
    Tokens(tmp_path / 'a')
  folder(tmp_path / 'a', format=2, vqjax='9.0')
  with pytest.raises(UserError, match=r'is of format 2, written by vqjax 9.0; legal here: 1; use'):
    Tokens(tmp_path / 'a')
  folder(tmp_path / 'b', shards=None)
  with pytest.raises(UserError, match=r'/b is not finished; run the command that began it again'):
    Tokens(tmp_path / 'b')
  for text in ('{', '[]', '{}'):
    (tmp_path / 'b' / 'index.json').write_text(text)
    with pytest.raises(UserError, match=r'index.json is no index of tokens .*; write the folder'):
      Tokens(tmp_path / 'b')


def test_damage_is_named_with_its_file(tmp_path):
  folder(tmp_path / 'a', counts=(100, 2))
  first, second = sorted((tmp_path / 'a').glob('*.array_record'))
  whole = first.read_bytes()
  first.write_bytes(whole[:-70_000])
  with pytest.raises(UserError, match=r'00000-of-00002.array_record is damaged .*; remove tokens'):
    Tokens(tmp_path / 'a')
  place = whole.index(np.int32(500).tobytes(), 1000)  # of the record whose position is 500
  first.write_bytes(whole[:place] + b'xxxx' + whole[place + 4 :])
  found = Tokens(tmp_path / 'a')
  assert int(found[49]['index']) == 490
  with pytest.raises(UserError, match=r'/a is damaged at record 50 \(.*hash mismatch'):
    found[50]
  first.write_bytes(second.read_bytes())
  with pytest.raises(UserError, match=r'00000-of-.* holds 2 records, index.json says 100; remove'):
    Tokens(tmp_path / 'a')
  first.unlink()
  with pytest.raises(UserError, match=r'00000-of-00002.array_record is missing .*; remove'):
    Tokens(tmp_path / 'a')


def test_an_image_without_all_its_views(tmp_path):
  folder(tmp_path / 'a', counts=(4, 2), views=2)
  assert len(Tokens(tmp_path / 'a')) == 6
  folder(tmp_path / 'b', counts=(3, 3), views=2)
  with pytest.raises(
    UserError, match=r'00000-of-\S+ holds 3 records, not 2 views of every image; write the folder'
  ):
    Tokens(tmp_path / 'b')


def test_records_of_another_size(tmp_path):
  folder(tmp_path / 'a')
  index = json.loads((tmp_path / 'a' / 'index.json').read_text())
  tokens.write_index(tmp_path / 'a', {**index, 'token_shape': [3, 3]})
  with pytest.raises(UserError, match=r'damaged at record 1: 20 bytes, index.json says 26; write'):
    Tokens(tmp_path / 'a')[1]
