"""Packs a folder of images, or the ImageNet tars, into ArrayRecord shards.

python -m vqjax.data.prepare IMAGES OUT [--shards=16] [--max_unreadable=0.1] [--shorter_side=320]

IMAGES is a folder of images, either with train/ and val/ in it or without, in which case a fixed
share is held out. Or it is the folder to which ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar
were downloaded; they are read as they are, without unpacking them. OUT is the folder to write.
Images are copied byte for byte; one that cannot be decoded is left out and named. With
--shorter_side, larger ones are resized to it (Lanczos) and stored as JPEG of quality 95: they are
read in less time, and no recipe that makes images smaller than that needs more. Shards get their
places in OUT together, when all of them are complete: an interrupted command can be repeated.
"""

import contextlib
import functools
import io
import itertools
import json
import logging
import os
import pathlib
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import msgpack
from array_record.python import array_record_module
from PIL import Image

from vqjax import commands
from vqjax.data import imagenet
from vqjax.data.array_record import disk_errors
from vqjax.data.decode import UnreadableImage, decode
from vqjax.data.defaults import default_data
from vqjax.data.folder import Folder, open_folder
from vqjax.data.imagenet import Example
from vqjax.data.reader import PATIENCE, allowance
from vqjax.errors import UserError
from vqjax.runs.lock import locked
from vqjax.whole_files import replacing

_PARTIAL = 'shards-being-written'  # the folder below OUT, all of it ours
_WHOLE = 'whole.json'  # is there once all that is in it is whole
_QUALITY = 95  # of JPEGs that are made
_TOGETHER = 256  # images that are decoded in threads at a time
_log = logging.getLogger('vqjax')


def prepare(
  source: pathlib.Path,
  out: pathlib.Path,
  shards: int = 16,
  max_unreadable: float = default_data()['max_unreadable'],
  shorter_side: int = 0,
) -> dict[str, int]:
  """Writes train and val shards to `out`; returns how many images each split has.

  Everything is written to a folder in `out` first, and moves to its place when all of it is
  whole. A process that is stopped before begins anew the next time, and one that is stopped while
  it moves goes on. What cannot be decoded is left out and named, up to the fraction
  `max_unreadable` of each split. Images whose shorter side is more than `shorter_side` pixels are
  resized to it and stored as JPEG; with 0 all are copied as they are.

  Raises `UserError` if `source` holds no images, or too many that cannot be read, a tar is broken,
  or `out` holds other shards already, is in use, or cannot be written.
  """
  if shards < 1:
    raise UserError(f'--shards is {shards}; give 1 or more.')
  if shorter_side < 0:
    raise UserError(
      f'--shorter_side is {shorter_side}; give a number of pixels, or 0 to copy the files.'
    )
  if not (splits := imagenet.open_tars(source)):
    data = SimpleNamespace(**{**default_data(), 'path': str(source)})
    splits = {
      'val': _examples(open_folder(data, 'eval')),
      'train': _examples(open_folder(data, 'train')),
    }
  with locked(out, 'OUT'):
    command = {'images': str(source.resolve()), 'shards': shards, 'shorter_side': shorter_side}
    partial = out / _PARTIAL
    if (whole := _whole(partial)) is None:
      with disk_errors(out):
        if partial.exists():
          shutil.rmtree(partial)
      _check_free(out, splits)
      if shorter_side:
        smaller = functools.partial(functools.partial, _smaller, shorter_side)
        splits = {split: map(smaller, examples) for split, examples in splits.items()}
      whole = {'command': command, 'counts': _write(splits, partial, shards, max_unreadable)}
      with disk_errors(out), replacing(partial / _WHOLE) as file:
        file.write_text(json.dumps(whole))
    elif (there := {'shorter_side': 0} | whole['command']) != command:  # 0.1 had no such choice
      raise UserError(
        f'{partial} holds what an interrupted command had finished, with'
        f' {", ".join(f"{name}={value}" for name, value in there.items())}; run that again, remove'
        ' the folder, or choose another OUT.'
      )
    with disk_errors(out):
      for shard in sorted(partial.glob('*.array_record')):
        shard.rename(out / shard.name)
      shutil.rmtree(partial)
  for split, count in whole['counts'].items():
    print(f'{split}: {count} images in {shards} shards')
  return whole['counts']


def _check_free(out: pathlib.Path, splits: Iterable[str]) -> None:
  for split in splits:
    if old := sorted(out.glob(f'{split}*.array_record*')):
      raise UserError(f'{out} already holds {old[0].name}; remove it, or choose another folder.')


def _whole(partial: pathlib.Path) -> dict[str, Any] | None:
  """What is said of the shards in `partial` if they are whole, else None."""
  try:
    return json.loads((partial / _WHOLE).read_text())
  except (FileNotFoundError, ValueError):
    return None


def _write(
  splits: Mapping[str, Iterator[Example]], partial: pathlib.Path, shards: int, share: float
) -> dict[str, int]:
  """Writes all splits below `partial`, of which nothing is left after an error."""
  with disk_errors(partial):
    partial.mkdir()
  try:
    return {
      split: _pack(examples, partial, split, shards, share) for split, examples in splits.items()
    }
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def _pack(
  examples: Iterator[Example], folder: pathlib.Path, split: str, shards: int, share: float
) -> int:
  count = left_out = 0
  begun = time.monotonic()
  with _shards(folder, split, shards) as write:
    try:
      for record in _decodable(examples):
        if not isinstance(record, UnreadableImage):
          write(record)
          count += 1
          if count % 10_000 == 0:
            print(f'{split}: {count} images, {count / (time.monotonic() - begun):.0f} a second')
          continue
        left_out += 1
        _log.warning('%s: left out unreadable image %s; %d so far', split, record, left_out)
        if left_out == PATIENCE and not count:
          raise UserError(
            f'the first {left_out} images of {split} cannot be read; the log names them and says'
            ' why: repair or remove them, or name another folder.'
          )
    except tarfile.ReadError as error:
      raise UserError(
        f'the {split} tar breaks off or is damaged after {count} images ({error}); download it'
        ' again.'
      ) from error
  if not count and not left_out:
    raise UserError(f'the {split} tar holds no images; download it again.')
  if not count or left_out > allowance(share, count + left_out):
    raise UserError(
      f'{left_out} of {count + left_out} images of {split} cannot be read, more than the fraction'
      f' --max_unreadable={share}; the log names them and says why: repair or remove them, or'
      ' allow more.'
    )
  if left_out:
    print(f'{split}: {left_out} unreadable images left out')
  return count


@contextlib.contextmanager
def _shards(
  folder: pathlib.Path, split: str, shards: int
) -> Iterator[Callable[[dict[str, Any]], None]]:
  """Gives a function that writes one record; the shards are whole when the block is left."""
  paths = [folder / f'{split}-{i:05d}-of-{shards:05d}.array_record' for i in range(shards)]
  with disk_errors(folder):
    writers = [
      # One record a group, so that any one can be read alone; JPEGs do not get smaller.
      array_record_module.ArrayRecordWriter(str(path), 'group_size:1,uncompressed')
      for path in paths
    ]
  # Round robin: classes come one after another, and no shard should hold only some of them.
  turns = itertools.cycle(writers)

  def write(record):
    with disk_errors(folder):
      next(turns).write(msgpack.packb(record, unicode_errors='surrogateescape'))

  try:
    yield write
  finally:
    with disk_errors(folder):
      for writer in writers:
        writer.close()


def _decodable(examples: Iterator[Example]) -> Iterator[dict[str, Any] | UnreadableImage]:
  """The records, in order, with an error in the place of each that cannot be read or decoded."""
  pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
  try:
    while some := list(itertools.islice(examples, _TOGETHER)):
      yield from pool.map(_decoded, some)
  finally:  # not waited for: one may read from a dead file system
    pool.shutdown(wait=False, cancel_futures=True)


def _decoded(example: Example) -> dict[str, Any] | UnreadableImage:
  try:
    record = example()
    decode(record['image'], record['name'])
    return record
  except UnreadableImage as error:
    return error


def _smaller(side: int, example: Example) -> dict[str, Any]:
  record = example()
  image = Image.fromarray(decode(record['image'], record['name']))
  if min(image.size) <= side:
    return record
  width, height = (round(n * side / min(image.size)) for n in image.size)
  file = io.BytesIO()
  image.resize((width, height), Image.Resampling.LANCZOS).save(file, 'JPEG', quality=_QUALITY)
  return {**record, 'image': file.getvalue()}


def _examples(folder: Folder) -> Iterator[Example]:
  return (functools.partial(folder.__getitem__, index) for index in range(len(folder)))


def _arguments(parser):
  parser.add_argument(
    'images', metavar='IMAGES', type=commands.path, help='folder of images, or of ImageNet tars'
  )
  parser.add_argument('out', metavar='OUT', type=commands.path, help='folder for the shards')
  parser.add_argument('--shards', type=int, default=16, help='files per split (%(default)s)')
  parser.add_argument(
    '--max_unreadable',
    type=float,
    default=default_data()['max_unreadable'],
    help='fraction of a split that may be unreadable and left out (%(default)s)',
  )
  parser.add_argument(
    '--shorter_side',
    type=int,
    default=0,
    help='in pixels, to which larger images are resized; 0: none are (%(default)s)',
  )


def _main(args):
  prepare(args.images, args.out, args.shards, args.max_unreadable, args.shorter_side)
  print(
    'next: python train.py --config=configs/NAME.py --config.data.source=array_record'
    f' --config.data.path={args.out}'
  )


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.data.prepare photos shards',
  interrupted='no shard is left by halves: run the same command again',
  uses_jax=False,
)

if __name__ == '__main__':
  commands.run(COMMAND)
