"""Data sets that tensorflow_datasets prepared, read without TensorFlow."""

import contextlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pictures import data_config, picture

from vqjax.data import eval_batches, make_source
from vqjax.data.decode import UnreadableImage, decode
from vqjax.errors import UserError


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  import tiny_tfds

  path = tmp_path_factory.mktemp('tfds')
  names = ('TinyPictures', 'TinyPlain', 'TinyGrey', 'TinyText')
  for builder in (getattr(tiny_tfds, name) for name in names):
    builder(data_dir=path, file_format='array_record').download_and_prepare()
  return path


def config(data_dir, name='tiny_pictures', **fields):
  return data_config(source='tfds', path=str(data_dir), tfds_name=name, image_size=8, **fields)


def test_examples(data_dir):
  source = make_source(config(data_dir), 'train')
  assert len(source) == 5
  assert source.class_names == ('0', '1', '2')
  examples = {example['name']: example for example in (source[i] for i in range(5))}
  assert sorted(examples) == [f'{seed}.png' for seed in range(5)]
  for seed in range(5):
    example = examples[f'{seed}.png']
    assert example['label'] == seed % 3
    np.testing.assert_array_equal(decode(example['image'], ''), picture(seed))
  assert source.description == f'5 images of tiny_pictures/train in {data_dir}/tiny_pictures/1.0.0'


def test_a_flipped_bit_is_one_unreadable_image(data_dir, tmp_path):
  shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
  (shard,) = (tmp_path / 'tiny_pictures/1.0.0').glob('*-train.array_record*')
  damaged = bytearray(shard.read_bytes())
  damaged[damaged.index(b'2.png')] ^= 1
  shard.write_bytes(damaged)
  whole, source = (make_source(config(path), 'train') for path in (data_dir, tmp_path))
  for i in range(5):
    if whole[i]['name'] == '2.png':
      with pytest.raises(UnreadableImage, match=rf'^tiny_pictures/train\[{i}\] .*hash mismatch'):
        source[i]
    else:
      assert source[i] == whole[i]


def test_batches_of_the_held_out_split(data_dir):
  data = config(data_dir, eval={'resize': 'none'})
  source = make_source(data, 'eval')
  with contextlib.closing(eval_batches(source, data, batch_size=4)) as batches:
    (batch,) = batches
  assert batch['mask'].tolist() == [True, True, True, False]
  want = {picture(seed)[2:10, 4:12].tobytes() for seed in (5, 6, 7)}
  assert {image.tobytes() for image in batch['image'][:3]} == want


def test_slices_and_data_without_labels_or_names(data_dir):
  data = config(data_dir, 'tiny_plain', train_split='train[:2]')
  source = make_source(data, 'train')
  assert len(source) == 2
  assert {key: source[1][key] for key in ('label', 'name')} == {
    'label': 0,
    'name': 'tiny_plain/train[:2][1]',
  }


def test_grey_images_of_a_test_split(data_dir):
  fields = {'resize': 'none', 'crop': 'center'}
  data = config(data_dir, 'tiny_grey', eval_split='test', eval=fields)
  data.image_size = 28
  source = make_source(data, 'eval')
  assert source[0]['label'] == 7
  with contextlib.closing(eval_batches(source, data, batch_size=1)) as batches:
    (batch,) = batches
  grey = picture(7, 28, 28)[..., :1]
  np.testing.assert_array_equal(batch['image'][0], grey.repeat(3, -1))


def test_unknown_and_unprepared(data_dir):
  with pytest.raises(
    UserError, match=r"data.tfds_name='no_such' is no data set .*data.path.*:demo"
  ):
    make_source(config(data_dir, 'no_such'), 'train')
  with pytest.raises(
    UserError, match=r'mnist is not prepared in .*/mnist/.*download_and_prepare\(\).*:demo'
  ):
    make_source(config(data_dir, 'mnist'), 'train')


def test_missing_split_and_feature(data_dir):
  with pytest.raises(
    UserError, match=r"no split 'test'; set data.train_split .* train, validation"
  ):
    make_source(config(data_dir, eval_split='test'), 'eval')
  with pytest.raises(UserError, match=r"tiny_text has no feature 'image' but file_name; choose"):
    make_source(config(data_dir, 'tiny_text'), 'train')


def test_tfrecord_format(data_dir, tmp_path):
  folder = tmp_path / 'tiny_pictures/1.0.0'
  folder.mkdir(parents=True)
  for file in (data_dir / 'tiny_pictures/1.0.0').iterdir():
    content = file.read_bytes().replace(b'"array_record"', b'"tfrecord"')
    (folder / file.name.replace('array_record', 'tfrecord')).write_bytes(content)
  with pytest.raises(UserError, match=r'1.0.0 is in tfrecord format.*prepare it again'):
    make_source(config(tmp_path), 'train')


def test_tensorflow_is_not_imported(data_dir):
  code = (
    'import sys, types\n'
    'from ml_collections import ConfigDict\n'
    'from vqjax.data import default_data, make_source, train_batches\n'
    'assert "tensorflow_datasets" not in sys.modules\n'
    'data = ConfigDict(default_data())\n'
    'data.update(source="tfds", path=sys.argv[1], tfds_name="tiny_pictures", image_size=8)\n'
    'batches = train_batches(make_source(data, "train"), data, batch_size=2, seed=0)\n'
    'next(batches)\n'
    'batches.close()\n'
    'assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code, str(data_dir)], check=True)
