"""Batches of a folder of tokens: every image once an epoch, whoever reads, wherever it was cut."""

import itertools
import json

import ml_collections
import numpy as np
import pytest
from data.test_tokens import folder

from vqjax import data as datasets
from vqjax.errors import UserError

DATA = ml_collections.ConfigDict(datasets.default_data())


def parts(tmp_path, count=20, **fields):
  folder(tmp_path / 'a', counts=(count,), **fields)
  return datasets.open_token_folder(tmp_path / 'a', holdout=0.2)


def take(part, number, **options):
  batches = datasets.train_token_batches(part, DATA, seed=0, **options)
  found = list(itertools.islice(batches, number))
  batches.close()
  return found


def test_a_part_of_the_folder_is_held_out(tmp_path):
  found = parts(tmp_path)
  index = {
    split: [int(part[i]['index']) // 10 for i in range(len(part))] for split, part in found.items()
  }
  assert index['eval'] == [4, 9, 14, 19]  # evenly over the folder, which may be sorted by class
  assert sorted(index['train'] + index['eval']) == list(range(20))
  assert found['train'].description.startswith('16 training images of tokens of 20 images')
  assert found['train'].name_of(4) == 'record 5'


def test_an_epoch_has_every_image_and_goes_on_where_it_was_cut(tmp_path):
  part = parts(tmp_path)['train']
  whole = take(part, 8, batch_size=4)
  assert whole[0]['tokens'].shape == (4, 2, 3)
  assert whole[0]['tokens'].dtype == np.int32
  labels = [sorted(np.concatenate([b['label'] for b in whole[i : i + 4]])) for i in (0, 4)]
  assert labels[0] == labels[1]
  assert len(set(labels[0])) == 16
  assert [b['label'].tolist() for b in whole[:4]] != [b['label'].tolist() for b in whole[4:]]
  for mine, theirs in zip(take(part, 5, batch_size=4, start=12), whole[3:], strict=True):
    np.testing.assert_array_equal(mine['tokens'], theirs['tokens'])
  share = take(part, 1, batch_size=4, process_index=1, process_count=2)[0]
  np.testing.assert_array_equal(share['label'], whole[0]['label'][1::2])


def test_evaluation_sees_each_image_once_and_fills_up(tmp_path):
  part = parts(tmp_path)['eval']
  for limit, count in ((None, 4), (2, 2)):
    batches = list(datasets.eval_token_batches(part, DATA, batch_size=3, limit=limit))
    masks = np.concatenate([batch['mask'] for batch in batches])
    labels = np.concatenate([batch['label'] for batch in batches])
    assert masks.sum() == count
    assert labels[masks].tolist() == [3, 8, 13, 18][:count]


def test_a_visit_draws_one_of_the_views_and_evaluation_takes_the_first(tmp_path):
  folder(tmp_path / 'a', counts=(20,), views=2)
  found = datasets.open_token_folder(tmp_path / 'a', holdout=0.2)
  assert [len(found[split]) for split in ('train', 'eval')] == [8, 2]
  batch = next(datasets.eval_token_batches(found['eval'], DATA, batch_size=2))
  np.testing.assert_array_equal(batch['label'], [7, 17])  # records 8 and 18; labels count from -1
  seen = {
    int(label) for batch in take(found['train'], 20, batch_size=8) for label in batch['label']
  }
  assert seen == {record - 1 for record in range(20) if record not in (8, 9, 18, 19)}
  assert found['train'].view(0, 1)['label'] == 0


def test_held_out_tokens_of_their_own(tmp_path):
  folder(tmp_path / 'a', counts=(6,), weights_sha256='x')
  folder(tmp_path / 'b', counts=(3,), weights_sha256='x')
  found = datasets.open_token_folder(tmp_path / 'a', tmp_path / 'b')
  assert [len(found[split]) for split in ('train', 'eval')] == [6, 3]
  index = json.loads((tmp_path / 'b/index.json').read_text())
  (tmp_path / 'b/index.json').write_text(json.dumps({**index, 'weights_sha256': 'y'}))
  with pytest.raises(
    UserError, match=r'eval_path=\S+ has weights_sha256 y, tokens.path=\S+ x; wri'
  ):
    datasets.open_token_folder(tmp_path / 'a', tmp_path / 'b')


@pytest.mark.parametrize(
  ('count', 'holdout', 'message'),
  [
    (20, 0.0, r'tokens.holdout is 0.0; give a fraction above 0, 0.5 at most'),
    (20, 0.7, r'tokens.holdout is 0.7'),
    (1, 0.05, r'holds tokens of a single image; two are the least'),
  ],
)
def test_what_leaves_nothing_is_refused(tmp_path, count, holdout, message):
  folder(tmp_path / 'a', counts=(count,))
  with pytest.raises(UserError, match=message):
    datasets.open_token_folder(tmp_path / 'a', holdout=holdout)
