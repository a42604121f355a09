"""Training images a second: JPEGs of 500 x 375, shorter side 256, random crop, flip.

    python -m benchmarks.input --peer=PYTHON

of a folder and of shards prepared at a shorter side, by two threads; and of a PyTorch DataLoader
with Pillow and two workers (`torch_input.py`), by an interpreter that has them, PYTHON. Every turn
is a process of its own, and contestants take turns. Ratios are to the peer, which reads the folder.
"""

import argparse
import contextlib
import pathlib
import statistics
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks import timing
from vqjax.data import default_data, make_source, train_batches
from vqjax.data.photos import Photos
from vqjax.data.prepare import prepare

ROOT = pathlib.Path(__file__).parents[1]
EPOCH = 1_281_167  # images, as ImageNet has: the order of a short one is slower to draw
WIDTH, HEIGHT, QUALITY = 500, 375, 93  # some 60 kB each
COUNT = 256  # JPEGs


class Contestant(NamedTuple):
  """Images of one kind, read with antialiasing or without."""

  name: str
  images: str
  antialias: bool


CONTESTANTS = (
  Contestant('folder', 'folder', False),
  Contestant('folder, antialiased', 'folder', True),
  Contestant('shards of 320', '320', False),
  Contestant('shards of 320, antialiased', '320', True),
  Contestant('shards of 256', '256', False),
)


class Epoch:
  """The images of a source over and over, as many as ImageNet has."""

  def __init__(self, source):
    self.description = source.description
    self._source = source

  def __len__(self):
    return EPOCH

  def __getitem__(self, index):
    return self._source[index % len(self._source)]


def write_images(folder):
  """JPEGs of parts of the photographs that come with packages."""
  random = np.random.default_rng(0)
  tiles = Photos('train')
  (folder / 'train').mkdir(parents=True)
  (folder / 'val').mkdir()
  for i in range(COUNT):
    tile = tiles[int(random.integers(len(tiles)))]['image']
    image = Image.fromarray(tile[: round(len(tile) * HEIGHT / WIDTH)])
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    image.save(folder / f'{"train" if i else "val"}/{i:03}.jpg', quality=QUALITY)


def rate(contestant, images, args):
  """Images a second of one turn, in this process."""
  fields = default_data()
  fields['train'] |= {'flip': True, 'antialias': contestant.antialias}
  sections = {split: SimpleNamespace(**fields.pop(split)) for split in ('train', 'eval')}
  fields |= {'path': str(images / contestant.images), 'threads': args.threads}
  fields['source'] = 'folder' if contestant.images == 'folder' else 'array_record'
  data = SimpleNamespace(**fields, **sections)
  source = Epoch(make_source(data, 'train'))
  with contextlib.closing(train_batches(source, data, batch_size=args.batch, seed=0)) as batches:
    return timing.images_per_second(batches, args.batch, args.batches)


def turn(command):
  """What a process prints that takes a turn."""
  done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
  return float(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--peer', help='an interpreter with PyTorch and Pillow')
  parser.add_argument('--threads', type=int, default=2, help='or workers')
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--batches', type=int, default=40, help='that are timed in a turn')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='file to append results to')
  parser.add_argument('--turn', nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.turn:
    contestant = next(c for c in CONTESTANTS if c.name == args.turn[0])
    print(rate(contestant, pathlib.Path(args.turn[1]), args))
    return
  with tempfile.TemporaryDirectory() as folder:
    images = pathlib.Path(folder)
    write_images(images / 'folder')
    for side in (320, 256):
      prepare(images / 'folder', images / str(side), 1, shorter_side=side)
    size = [f'--batch={args.batch}', f'--batches={args.batches}']
    ours = [sys.executable, '-m', 'benchmarks.input', *size, f'--threads={args.threads}']
    commands = {c.name: [*ours, '--turn', c.name, folder] for c in CONTESTANTS}
    if args.peer:
      theirs = ['-m', 'benchmarks.torch_input', *size, f'--workers={args.threads}']
      commands['peer'] = [args.peer, *theirs, str(images / 'folder')]
    rates = {name: [] for name in commands}
    for _ in range(args.rounds):
      for name, command in commands.items():
        rates[name].append(turn(command))
  for name, found in rates.items():
    record = {'part': 'input', 'name': name, 'images_per_s': statistics.median(found)}
    record |= {'least': min(found), 'most': max(found)}
    if args.peer:
      record['of_peer'] = record['images_per_s'] / statistics.median(rates['peer'])
    timing.keep(record, args.out)


if __name__ == '__main__':
  main()
