"""Packs a folder of images, or the ImageNet tars, into ArrayRecord shards.

python -m vqjax.data.prepare IMAGES OUT [--shards=16]

IMAGES is a folder of images, either with train/ and val/ in it or without, in which case a fixed
share is held out. Or it is the folder to which ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar
were downloaded; they are read as they are, without unpacking them. OUT is the folder to write.
Images are copied byte for byte. The shards of a split get their final names together, when all of
them are complete.
"""

import logging
import pathlib
import tarfile
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, Any

import msgpack
from array_record.python import array_record_module

from vqjax import commands
from vqjax.data.decode import UnreadableImage
from vqjax.data.defaults import default_data
from vqjax.data.folder import Folder, open_folder
from vqjax.errors import UserError

_TRAIN_TAR = 'ILSVRC2012_img_train.tar'  # a tar of tars, one for each class
_VAL_TAR = 'ILSVRC2012_img_val.tar'  # flat, without labels
_VAL_SYNSETS = (
  'imagenet_2012_validation_synset_labels.txt'  # one class name a line, by image number
)
_log = logging.getLogger('vqjax')


def prepare(source: pathlib.Path, out: pathlib.Path, shards: int = 16) -> dict[str, int]:
  """Writes train and val shards to `out`; returns how many images each split has.

  Raises `UserError` if `source` holds no images, a tar is broken, or `out` holds shards already.
  """
  if shards < 1:
    raise UserError(f'--shards is {shards}; give 1 or more.')
  if (source / _TRAIN_TAR).is_file() or (source / _VAL_TAR).is_file():
    splits = _imagenet(source)
  else:
    data = SimpleNamespace(**{**default_data(), 'path': str(source)})
    folders = {'val': open_folder(data, 'eval'), 'train': open_folder(data, 'train')}
    splits = {split: _records(folder) for split, folder in folders.items()}
  try:
    out.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'cannot make {out}: {error.strerror}; choose another place.') from error
  for split in splits:
    if old := sorted(out.glob(f'{split}*.array_record*')):
      raise UserError(f'{out} already holds {old[0].name}; remove it, or choose another folder.')
  return {split: _pack(records, out, split, shards) for split, records in splits.items()}


def _pack(records: Iterator[dict[str, Any]], out: pathlib.Path, split: str, shards: int) -> int:
  finals = [out / f'{split}-{i:05d}-of-{shards:05d}.array_record' for i in range(shards)]
  partials = [final.with_name('partial-' + final.name) for final in finals]
  writers = [
    # One record a group, so that any one can be read alone; JPEGs do not get smaller.
    array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
    for path in partials
  ]
  count, begun = 0, time.monotonic()
  try:
    for record in records:
      # Round robin: classes come one after another, and no shard should hold only some of them.
      writers[count % shards].write(msgpack.packb(record))
      count += 1
      if count % 10_000 == 0:
        print(f'{split}: {count} images, {count / (time.monotonic() - begun):.0f} a second')
  except tarfile.ReadError as error:
    raise UserError(
      f'the {split} tar breaks off or is damaged after {count} images ({error}); download it again.'
    ) from error
  finally:
    for writer in writers:
      writer.close()
  if not count:
    raise UserError(f'the {split} tar holds no images; download it again.')
  for partial, final in zip(partials, finals, strict=True):
    partial.rename(final)
  print(f'{split}: {count} images in {shards} shards')
  return count


def _records(folder: Folder) -> Iterator[dict[str, Any]]:
  for index in range(len(folder)):
    try:
      yield folder[index]
    except UnreadableImage as error:
      _log.warning('left out unreadable file %s', error)


def _imagenet(source: pathlib.Path) -> dict[str, Iterator[dict[str, Any]]]:
  splits = {}  # the small one first, so that what is wrong with it shows in minutes
  if (source / _VAL_TAR).is_file():
    splits['val'] = _imagenet_val(source / _VAL_TAR, source / _VAL_SYNSETS)
  if (source / _TRAIN_TAR).is_file():
    splits['train'] = _imagenet_train(source / _TRAIN_TAR)
  return splits


def _imagenet_train(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  with tarfile.open(path, 'r:') as outer:
    # Synset names, sorted, are the class order that every published ImageNet model uses.
    for label, member in enumerate(_files(outer)):
      with tarfile.open(fileobj=_opened(outer, member), mode='r:') as inner:
        for image in _files(inner):
          name = f'{pathlib.PurePosixPath(member.name).stem}/{image.name}'
          yield {'image': _opened(inner, image).read(), 'label': label, 'name': name}


def _imagenet_val(path: pathlib.Path, synsets: pathlib.Path) -> Iterator[dict[str, Any]]:
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
      yield {'image': _opened(tar, image).read(), 'label': label, 'name': image.name}


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
  file = tar.extractfile(member)
  assert file is not None  # it is one of `_files`
  return file


def _files(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
  return sorted((member for member in tar if member.isfile()), key=lambda member: member.name)


def _arguments(parser):
  parser.add_argument(
    'images', metavar='IMAGES', type=commands.path, help='folder of images, or of ImageNet tars'
  )
  parser.add_argument('out', metavar='OUT', type=commands.path, help='folder for the shards')
  parser.add_argument('--shards', type=int, default=16, help='files per split (%(default)s)')


def _main(args):
  prepare(args.images, args.out, args.shards)
  print(
    'next: python train.py --config=configs/NAME.py --config.data.source=array_record'
    f' --config.data.path={args.out}'
  )


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.data.prepare photos shards',
  interrupted='run the same command again with another folder for the shards',
  uses_jax=False,
)

if __name__ == '__main__':
  commands.run(COMMAND)
