"""Packing folders and ImageNet tars into shards, and reading them back."""

import contextlib
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from pictures import data_config, encoded, picture, png, write
from PIL import Image

from vqjax import commands
from vqjax.data import eval_batches, make_source
from vqjax.data.prepare import COMMAND, prepare
from vqjax.errors import UserError


def examples(kind, path, split):
  source = make_source(data_config(source=kind, path=str(path)), split)
  return {source[i]['name']: source[i] for i in range(len(source))}


def add(tar, name, content):
  info = tarfile.TarInfo(name)
  info.size = len(content)
  tar.addfile(info, io.BytesIO(content))


def tar_of(files):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as tar:
    for name, content in files.items():
      add(tar, name, content)
  return file.getvalue()


@pytest.fixture
def imagenet(tmp_path):
  """Two classes of three and two pictures, and three for validation, out of order."""
  classes = {
    # Not sorted, on purpose: class order is by name.
    'n02.tar': tar_of({f'n02_{i}.JPEG': encoded(picture(i), 'JPEG') for i in range(3)}),
    'n01.tar': tar_of({f'n01_{i}.JPEG': encoded(picture(10 + i), 'JPEG') for i in range(2)}),
  }
  val = {f'ILSVRC2012_val_0000000{i}.JPEG': encoded(picture(20 + i), 'JPEG') for i in (3, 1, 2)}
  write(tmp_path / 'tars/ILSVRC2012_img_train.tar', tar_of(classes))
  write(tmp_path / 'tars/ILSVRC2012_img_val.tar', tar_of(val))
  return tmp_path / 'tars'


@pytest.mark.parametrize('layout', ['train and val', 'hold-out'])
def test_a_folder_comes_back_whole(tmp_path, layout):
  for i in range(12):
    part = ('val/' if i < 4 else 'train/') if layout == 'train and val' else ''
    write(tmp_path / f'images/{part}{i % 2}/{i}.png', png(picture(i)))
  counts = prepare(tmp_path / 'images', tmp_path / 'shards', 3)
  assert sorted(path.name for path in (tmp_path / 'shards').iterdir()) == [
    'lock',
    *(f'{split}-0000{i}-of-00003.array_record' for split in ('train', 'val') for i in range(3)),
  ]
  for split, name in (('train', 'train'), ('eval', 'val')):
    want = examples('folder', tmp_path / 'images', split)
    assert examples('array_record', tmp_path / 'shards', split) == want
    assert counts[name] == len(want) > 0


def test_larger_images_are_made_smaller(tmp_path):
  large, small = (np.asarray(Image.radial_gradient('L').resize(n)) for n in ((90, 60), (70, 40)))
  for part in ('train', 'val'):
    write(tmp_path / f'images/{part}/large.png', png(large))
    write(tmp_path / f'images/{part}/small.png', png(small))
    write(tmp_path / f'images/{part}/broken.png', png(large)[:200])
  counts = prepare(tmp_path / 'images', tmp_path / 'shards', 1, 0.5, shorter_side=40)
  assert counts == {'train': 2, 'val': 2}
  found = examples('array_record', tmp_path / 'shards', 'train')
  assert found['small.png']['image'] == png(small)
  with Image.open(io.BytesIO(found['large.png']['image'])) as image:
    assert (image.format, image.size) == ('JPEG', (60, 40))
    want = Image.fromarray(large).resize((60, 40), Image.Resampling.LANCZOS).convert('RGB')
    assert np.abs(np.asarray(image.convert('RGB')).astype(int) - np.asarray(want)).mean() < 3


def test_a_negative_side_is_refused(tmp_path):
  with pytest.raises(UserError, match=r'--shorter_side is -1; give a number of pixels, or 0'):
    prepare(tmp_path, tmp_path / 'out', shorter_side=-1)


def test_shards_make_the_same_pixels_as_the_folder(tmp_path):
  for i in range(6):
    write(tmp_path / f'images/{"val" if i else "train"}/{i}.png', png(picture(i)))
  prepare(tmp_path / 'images', tmp_path / 'shards', 1)
  seen = []
  for kind, path in (('folder', 'images'), ('array_record', 'shards')):
    data = data_config(source=kind, path=str(tmp_path / path), image_size=8)
    with contextlib.closing(eval_batches(make_source(data, 'eval'), data, batch_size=5)) as batches:
      seen.append(next(batches))
  for key in ('image', 'label', 'mask'):
    np.testing.assert_array_equal(seen[0][key], seen[1][key])


def test_imagenet_tars(tmp_path, imagenet, capsys):
  write(imagenet / 'imagenet_2012_validation_synset_labels.txt', b'n02\nn01\nn02\n')
  assert prepare(imagenet, tmp_path / 'out', 2) == {'val': 3, 'train': 5}
  train = examples('array_record', tmp_path / 'out', 'train')
  assert {name: example['label'] for name, example in train.items()} == {
    'n01/n01_0.JPEG': 0,
    'n01/n01_1.JPEG': 0,
    'n02/n02_0.JPEG': 1,
    'n02/n02_1.JPEG': 1,
    'n02/n02_2.JPEG': 1,
  }
  assert train['n02/n02_1.JPEG']['image'] == encoded(picture(1), 'JPEG')
  val = examples('array_record', tmp_path / 'out', 'eval')
  labels = [val[f'ILSVRC2012_val_0000000{i}.JPEG']['label'] for i in (1, 2, 3)]
  assert labels == [1, 0, 1]
  assert val['ILSVRC2012_val_00000003.JPEG']['image'] == encoded(picture(23), 'JPEG')
  assert 'train: 5 images in 2 shards' in capsys.readouterr().out


def test_imagenet_without_val_labels(tmp_path, imagenet, capsys):
  prepare(imagenet, tmp_path / 'out', 1)
  val = examples('array_record', tmp_path / 'out', 'eval')
  assert [example['label'] for example in val.values()] == [-1, -1, -1]
  assert 'so every val label is -1' in capsys.readouterr().out


def test_one_imagenet_tar_is_enough(tmp_path, imagenet):
  (imagenet / 'ILSVRC2012_img_train.tar').unlink()
  assert prepare(imagenet, tmp_path / 'out', 1) == {'val': 3}


def test_wrong_number_of_val_labels(tmp_path, imagenet):
  write(imagenet / 'imagenet_2012_validation_synset_labels.txt', b'n02\n')
  with pytest.raises(UserError, match=r'names 1 classes for 3 images in ILSVRC2012_img_val.tar'):
    prepare(imagenet, tmp_path / 'out', 1)


def test_damaged_tar_leaves_no_shard_under_its_final_name(tmp_path, imagenet):
  path = imagenet / 'ILSVRC2012_img_train.tar'
  path.write_bytes(path.read_bytes()[:15_000])
  with pytest.raises(UserError, match=r'the train tar breaks off or is damaged .* download it'):
    prepare(imagenet, tmp_path / 'out', 1)
  assert [path.name for path in (tmp_path / 'out').iterdir()] == ['lock']
  path.write_bytes(tar_of({}))
  with pytest.raises(UserError, match=r'the train tar holds no images'):
    prepare(imagenet, tmp_path / 'out', 1)


def test_existing_shards_are_not_mixed_with_new_ones(tmp_path, imagenet):
  prepare(imagenet, tmp_path / 'out', 1)
  with pytest.raises(UserError, match=r'out already holds val-00000-of-00001.array_record; remove'):
    prepare(imagenet, tmp_path / 'out', 2)


def folder(path, count=12, unreadable=()):
  """A picture to hold out, and `count` to train on."""
  write(path / 'val/0.png', png(picture(100)))
  for i in range(count):
    write(path / f'train/{i:02d}.png', b'x' if i in unreadable else png(picture(i)))
  return path


def test_what_cannot_be_read_or_decoded_is_left_out(tmp_path, caplog, capsys):
  images = folder(tmp_path / 'images', 20, [3])
  # A name without a file behind it.
  (images / 'train/99.png').symlink_to(tmp_path / 'gone.png')
  assert prepare(images, tmp_path / 'out', 1) == {'val': 1, 'train': 19}
  names = [f'{i:02d}.png' for i in range(20) if i != 3]
  assert list(examples('array_record', tmp_path / 'out', 'train')) == names
  assert 'train: left out unreadable image 03.png (none of JPEG, ' in caplog.text
  assert 'left out unreadable image 99.png (No such file or directory); 2 so far' in caplog.text
  assert 'train: 2 unreadable images left out' in capsys.readouterr().out


def test_a_name_that_is_no_unicode_comes_back(tmp_path):
  images = folder(tmp_path / 'images', 2)
  name = os.fsdecode(b'train/\xff.png')
  write(images / name, png(picture(7)))
  prepare(images, tmp_path / 'out', 1)
  assert list(examples('array_record', tmp_path / 'out', 'train'))[-1] == name.split('/')[1]


def test_an_image_in_a_tar_that_cannot_be_decoded_is_left_out(tmp_path, imagenet, caplog):
  path = imagenet / 'ILSVRC2012_img_val.tar'
  good = {f'{i}.JPEG': encoded(picture(i), 'JPEG') for i in range(10)}
  path.write_bytes(tar_of({**good, '5.JPEG': good['5.JPEG'][:50]}))
  assert prepare(imagenet, tmp_path / 'out', 1) == {'val': 9, 'train': 5}
  assert 'val: left out unreadable image 5.JPEG' in caplog.text


def test_too_many_unreadable_images(tmp_path):
  images = folder(tmp_path / 'images', 20, [3, 4, 5])
  with pytest.raises(UserError, match=r'^3 of 20 images of train .* --max_unreadable=0.1; the log'):
    prepare(images, tmp_path / 'out', 1)
  assert prepare(images, tmp_path / 'out', 1, 0.15)['train'] == 17
  images = folder(tmp_path / 'wrong', 20, range(20))
  with pytest.raises(UserError, match=r'^the first 16 images of train cannot be read'):
    prepare(images, tmp_path / 'wrong_out', 1, 1.0)


def test_wrong_arguments(tmp_path):
  with pytest.raises(UserError, match=r'--shards is 0; give 1 or more'):
    prepare(tmp_path, tmp_path / 'out', 0)
  with pytest.raises(SystemExit, match=r'error: data.path=/no/such does not exist'):
    commands.run(COMMAND, ['/no/such', str(tmp_path / 'out')])
  for i in range(3):
    write(tmp_path / f'images/{i}.png', png(picture(i)))
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match=r'cannot write .*/file: .*; choose another OUT'):
    prepare(tmp_path / 'images', tmp_path / 'file')


def test_command_line(tmp_path):
  for i in range(3):
    write(tmp_path / f'images/{i}.png', png(picture(i)))
  command = [sys.executable, '-m', 'vqjax.data.prepare', 'images', 'out', '--shards', '2']
  run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
  assert (run.returncode, run.stderr) == (0, '')
  assert '--config.data.source=array_record --config.data.path=out' in run.stdout
  assert len(list((tmp_path / 'out').glob('train-*-of-00002.array_record'))) == 2
