"""The ImageNet tars as they were downloaded, read without unpacking them."""

import pathlib
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from vqjax.errors import UserError

_TRAIN_TAR = 'ILSVRC2012_img_train.tar'  # a tar of tars, one for each class
_VAL_TAR = 'ILSVRC2012_img_val.tar'  # flat, without labels
_VAL_SYNSETS = (
  'imagenet_2012_validation_synset_labels.txt'  # one class name a line, by image number
)
Example = Callable[[], dict[str, Any]]  # reads an image, or raises UnreadableImage


def open_tars(source: pathlib.Path) -> dict[str, Iterator[Example]]:
  """The images of train and val, in the order of their classes, of the tars in `source`, if any.

  While iterated they raise `UserError` for labels that are not one an image, and
  `tarfile.ReadError` for a tar that is damaged or not whole.
  """
  splits = {}  # the small one first, so that what is wrong with it shows in minutes
  if (source / _VAL_TAR).is_file():
    splits['val'] = _val(source / _VAL_TAR, source / _VAL_SYNSETS)
  if (source / _TRAIN_TAR).is_file():
    splits['train'] = _train(source / _TRAIN_TAR)
  return splits


def _train(path: pathlib.Path) -> Iterator[Example]:
  with tarfile.open(path, 'r:') as outer:
    # Synset names, sorted, are the class order that every published ImageNet model uses.
    for label, member in enumerate(_files(outer)):
      with tarfile.open(fileobj=_opened(outer, member), mode='r:') as inner:
        for image in _files(inner):
          name = f'{pathlib.PurePosixPath(member.name).stem}/{image.name}'
          yield _example(inner, image, label, name)


def _val(path: pathlib.Path, synsets: pathlib.Path) -> Iterator[Example]:
  with tarfile.open(path, 'r:') as tar:
    images = _files(tar)
    if synsets.is_file():
      names = synsets.read_text().split()
      if len(names) != len(images):
        raise UserError(
          f'{synsets} names {len(names)} classes for {len(images)} images in {path.name}; one line'
          ' an image is needed: replace it, or remove it to do without labels.'
        )
      classes = {name: label for label, name in enumerate(sorted(set(names)))}
      labels = [classes[name] for name in names]
    else:
      print(f'val: no {synsets}, so every val label is -1; tokenizers need none')
      labels = [-1] * len(images)
    for image, label in zip(images, labels, strict=True):
      yield _example(tar, image, label, image.name)


def _example(tar: tarfile.TarFile, image: tarfile.TarInfo, label: int, name: str) -> Example:
  record = {'image': _opened(tar, image).read(), 'label': label, 'name': name}
  return lambda: record


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
  file = tar.extractfile(member)
  assert file is not None  # it is one of `_files`
  return file


def _files(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
  return sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
