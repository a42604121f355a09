"""Folders of images: what is found, in which order, and which are held out."""

import contextlib
import os

import pytest
from pictures import data_config, picture, png, write

from vqjax.data import make_source
from vqjax.data.decode import UnreadableImage
from vqjax.errors import UserError


def fill(root, *names):
  for seed, name in enumerate(names):
    write(root / name, png(picture(seed)))


def read(root, split='train', **fields):
  return make_source(data_config(source='folder', path=str(root), **fields), split)


def names(source):
  return [source[i]['name'] for i in range(len(source))]


def labels(source):
  return {source[i]['name']: source[i]['label'] for i in range(len(source))}


def test_train_and_val_folders(tmp_path):
  fill(tmp_path, 'train/b/2.png', 'train/a/1.png', 'val/a/3.png', 'other/4.png')
  source = read(tmp_path)
  assert names(source) == ['a/1.png', 'b/2.png']
  assert labels(source) == {'a/1.png': 0, 'b/2.png': 1}
  assert source[0]['image'] == (tmp_path / 'train/a/1.png').read_bytes()
  assert source.description == f'2 images in {tmp_path}/train, 2 classes'
  assert names(read(tmp_path, 'eval')) == ['a/3.png']
  assert source.class_names == ('a', 'b')
  assert read(tmp_path / 'other', holdout=0.5, eval_path=str(tmp_path / 'val')).class_names == ()


@pytest.mark.parametrize('held_out', ['val', 'validation', 'test'])
def test_names_of_the_held_out_folder(tmp_path, held_out):
  fill(tmp_path, 'train/1.png', f'{held_out}/2.png')
  assert names(read(tmp_path, 'eval')) == ['2.png']


def test_eval_path_wins(tmp_path):
  fill(tmp_path, 'a/train/1.png', 'a/val/2.png', 'b/3.png')
  assert names(read(tmp_path / 'a', 'eval', eval_path=str(tmp_path / 'b'))) == ['3.png']
  fill(tmp_path, 'c/1.png', 'c/2.png')
  assert len(read(tmp_path / 'c', eval_path=str(tmp_path / 'b'))) == 2


def test_only_images_that_are_not_hidden(tmp_path):
  fill(tmp_path / 'val', '1.png')
  fill(tmp_path / 'train', 'x/1.JPG', 'x/y/2.Jpeg', '3.webp', '4.gif', '5.PPM', '6.tif', '7.tiff')
  fill(
    tmp_path / 'train', '8.bmp', '.hidden.png', '.cache/9.png', 'x/notes.txt', 'x/png', 'x/a.png~'
  )
  got = ['3.webp', '4.gif', '5.PPM', '6.tif', '7.tiff', '8.bmp', 'x/1.JPG', 'x/y/2.Jpeg']
  assert names(read(tmp_path)) == got


def test_links_are_followed(tmp_path):
  fill(tmp_path, 'elsewhere/1.png', 'data/val/2.png')
  (tmp_path / 'data/train').mkdir()
  os.symlink(tmp_path / 'elsewhere', tmp_path / 'data/train/a')
  assert names(read(tmp_path / 'data')) == ['a/1.png']


def test_a_folder_is_listed_once_whatever_leads_to_it(tmp_path):
  fill(tmp_path, 'data/train/a/1.png', 'data/train/b/2.png', 'data/val/3.png')
  for link, target in {'a/up': '..', 'c': 'a', 'd': '../train', 'e': 'missing'}.items():
    os.symlink(target, tmp_path / 'data/train' / link)
  assert names(read(tmp_path / 'data')) == ['a/1.png', 'b/2.png']


def test_a_link_to_an_image_is_on_its_side_of_the_hold_out(tmp_path):
  fill(tmp_path, *(f'{i}.png' for i in range(40)))
  for i in range(40):
    os.symlink(f'{i}.png', tmp_path / f'again{i}.png')
  held_out = names(read(tmp_path, 'eval', holdout=0.3))
  assert len(held_out) > 4
  assert {name.removeprefix('again') for name in held_out} == set(held_out[: len(held_out) // 2])


def test_what_is_no_regular_file_is_no_image(tmp_path):
  """Neither a pipe, which nobody writes to, nor a device without end."""
  fill(tmp_path, 'train/1.png', 'val/2.png')
  os.mkfifo(tmp_path / 'train/pipe.png')
  os.symlink('/dev/zero', tmp_path / 'train/zero.png')
  assert names(read(tmp_path)) == ['1.png']
  (tmp_path / 'train/1.png').unlink()
  with pytest.raises(UserError, match=r'found 2 \.png that is no regular file'):
    read(tmp_path)


def test_order_does_not_depend_on_the_disk(tmp_path, monkeypatch):
  fill(tmp_path, 'train/b/1.png', 'train/a/2.png', 'train/a.png', 'train/B/3.png', 'val/1.png')
  want = ['B/3.png', 'a.png', 'a/2.png', 'b/1.png']
  assert names(read(tmp_path)) == want
  scandir = os.scandir

  @contextlib.contextmanager
  def reverse(path):
    with scandir(path) as entries:
      yield reversed(list(entries))

  monkeypatch.setattr(os, 'scandir', reverse)
  assert names(read(tmp_path)) == want
  assert labels(read(tmp_path)) == {'B/3.png': 0, 'a.png': 0, 'a/2.png': 1, 'b/1.png': 2}


def test_hold_out_is_disjoint_whole_and_about_the_fraction(tmp_path):
  everything = [f'{i % 3}/{i}.png' for i in range(200)]
  fill(tmp_path, *everything)
  train, held_out = (read(tmp_path, split, holdout=0.2) for split in ('train', 'eval'))
  assert not set(names(train)) & set(names(held_out))
  assert sorted(names(train) + names(held_out)) == sorted(everything)
  assert 25 <= len(held_out) <= 55
  assert names(held_out) == sorted(names(held_out))


def test_hold_out_keeps_an_image_on_its_side_when_others_come(tmp_path):
  fill(tmp_path, *(f'{i}.png' for i in range(50)))
  before = set(names(read(tmp_path, 'eval', holdout=0.2)))
  fill(tmp_path, *(f'new{i}.png' for i in range(50)))
  after = set(names(read(tmp_path, 'eval', holdout=0.2)))
  assert {name for name in after if not name.startswith('new')} == before
  assert len(after) > len(before)


@pytest.mark.parametrize('holdout', [1e-6, 1 - 1e-6])
def test_hold_out_leaves_neither_side_empty(tmp_path, holdout):
  fill(tmp_path, '1.png', '2.png')
  sizes = [len(read(tmp_path, split, holdout=holdout)) for split in ('train', 'eval')]
  assert sizes == [1, 1]


def test_labels_agree_across_the_hold_out(tmp_path):
  fill(tmp_path, 'a/1.png', 'b/1.png', 'c/1.png')
  both = labels(read(tmp_path)) | labels(read(tmp_path, 'eval'))
  assert both == {'a/1.png': 0, 'b/1.png': 1, 'c/1.png': 2}


def test_vanished_file_is_unreadable(tmp_path):
  fill(tmp_path, 'train/1.png', 'val/1.png')
  source = read(tmp_path)
  (tmp_path / 'train/1.png').unlink()
  with pytest.raises(UnreadableImage, match=r'1.png \(No such file or directory\)'):
    source[0]


def test_wrong_places(tmp_path):
  with pytest.raises(UserError, match=r"data.path is ''.*--config.data.path=FOLDER; .*:demo"):
    make_source(data_config(source='folder'), 'train')
  with pytest.raises(UserError, match=r'data.path=/no/such does not exist \(looked in /.*:demo'):
    read('/no/such')
  fill(tmp_path, '1.png')
  with pytest.raises(UserError, match=r'data.path=.*1.png is a file, not a folder.*:demo'):
    read(tmp_path / '1.png')
  with pytest.raises(UserError, match=r'data.eval_path=/no/such does not exist'):
    read(tmp_path, 'eval', eval_path='/no/such')


def test_no_images(tmp_path):
  with pytest.raises(UserError, match=r'holds no image: found no files, looked for .bmp .gif'):
    read(tmp_path)
  for name in ('a.txt', 'b.txt', 'c.npy', 'README'):
    write(tmp_path / name, b'')
  with pytest.raises(UserError, match=r'found 2 .txt, 1 .npy, 1 no suffix, looked for.*:demo'):
    read(tmp_path)


def test_folder_that_may_not_be_listed(tmp_path, monkeypatch):
  fill(tmp_path, 'a/1.png')
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('/a'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(UserError, match=r'cannot list .*/a: Permission denied; give yourself'):
    read(tmp_path)


def test_a_single_image_cannot_be_split(tmp_path):
  fill(tmp_path, '1.png')
  for split in ('train', 'eval'):
    with pytest.raises(UserError, match=r'holds a single image, 1.png; two are the least.*:demo'):
      read(tmp_path, split)


def test_val_without_train(tmp_path):
  fill(tmp_path, 'val/1.png')
  with pytest.raises(UserError, match=r'holds val/ but no train/.*data.eval_path'):
    read(tmp_path)
  assert names(read(tmp_path, 'eval')) == ['1.png']


@pytest.mark.parametrize('holdout', [0, 1, -0.1])
def test_wrong_holdout(tmp_path, holdout):
  fill(tmp_path, '1.png', '2.png')
  with pytest.raises(UserError, match=rf'data.holdout is {holdout}; give a fraction between 0 and'):
    read(tmp_path, holdout=holdout)


def test_unknown_source_and_early_check_of_both_transforms(tmp_path):
  with pytest.raises(UserError, match=r"data.source is 'zip'; it can be one of 'photos', 'digits'"):
    make_source(data_config(source='zip'), 'train')
  data = data_config(source='folder', path='/no/such', eval={'crop': 'middle'})
  with pytest.raises(UserError, match=r"data.eval.crop is 'middle'"):
    make_source(data, 'train')
