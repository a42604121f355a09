"""Handwritten digits that a generator drew: whether they are read, and whether they are its own.

python benchmarks/digits.py RUN [--num_images=1000] [--guidance=2.0] [--out=sheet.png]

RUN is the folder of a class-conditional run on scikit-learn's digits, such as
runs/halton_maskgit_base_256_demo. With guidance and without, it draws equally many of each class,
and the table shows

  read        share of them that a support vector machine reads as their class. It was trained on
              the training digits, as they are and moved by a pixel each way; what it reads of
              the held-out ones, which are in other hands, and of their reconstructions, stands
              beside.
  nearest     distance to the nearest training digit, pixels in [0, 1]: quartiles and the lowest
              hundredth. Held-out digits are that far from training digits too; samples that are
              copies would be nearer.
  repeated    share whose tokens, all of them, are those of a training digit.

Ends with 1 where less than 90% are read with guidance or 85% without.
"""

import argparse
import sys

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.svm import SVC

import vqjax
from vqjax.data.digits import Digits
from vqjax.report import pictures

LEAST = {'guided': 0.90, 'unguided': 0.85}
MOVES = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
QUANTILES = (0.01, 0.25, 0.5, 0.75)


def digits(split):
  """(images uint8 [N 8 8 3], labels int [N])."""
  source = Digits(split)
  examples = [source[i] for i in range(len(source))]
  return np.stack([e['image'] for e in examples]), np.array([e['label'] for e in examples])


def features(images):
  """Grey levels in [0, 1], float64 [N 64], of images [N H W 3] of whole multiples of 8 pixels."""
  size = images.shape[1] // 8
  grey = images[..., 0].reshape(len(images), 8, size, 8, size).mean((2, 4))
  return grey.reshape(len(images), 64) / 255


def reader(images, labels):
  """A machine that reads digits."""
  x = features(images)
  moved = [
    ndimage.shift(x.reshape(-1, 8, 8), (0, *move), order=1).reshape(-1, 64) for move in MOVES
  ]
  return SVC(C=10, gamma='scale').fit(np.concatenate(moved), np.tile(labels, len(MOVES)))


def nearest(x, others):
  """The distance of each row to the nearest of the others, [N]."""
  squares = (x**2).sum(1)[:, None] - 2 * x @ others.T + (others**2).sum(1)[None]
  return np.sqrt(np.maximum(squares.min(1), 0))


def draw(generator, labels, guidance, batch=100):
  """(images uint8 [N H W 3], tokens int [N T]) of these labels, by number."""
  images, tokens = [], []
  for first in range(0, len(labels), batch):
    found = generator.tokens(labels[first : first + batch], key=0, first=first, guidance=guidance)
    images.append(np.asarray(generator.decode(found)))
    tokens.append(np.asarray(found).reshape(len(found), -1))
  return np.concatenate(images), np.concatenate(tokens)


def main():
  """Reads the arguments, draws and judges."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('run')
  parser.add_argument('--num_images', type=int, default=1000)
  parser.add_argument('--guidance', type=float, help="the run's by default")
  parser.add_argument('--out', help='a picture of the first hundred, guided')
  args = parser.parse_args()

  generator = vqjax.load_generator(args.run)
  guidance = generator.config.sampler.guidance if args.guidance is None else args.guidance
  (images, labels), (others, classes) = digits('train'), digits('eval')
  machine, known = reader(images, labels), features(images)
  tokenizer = generator.tokenizer
  scale = generator.model.layout.grid[0] * tokenizer.model.downsample // 8
  larger = lambda images: images.repeat(scale, 1).repeat(scale, 2)
  used = {
    tuple(row) for row in np.asarray(tokenizer.encode(larger(images))).reshape(len(images), -1)
  }
  remade = np.asarray(tokenizer.reconstruct(larger(others)))
  wanted = np.arange(args.num_images) % 10
  rows = {'held out': (others, classes, None), 'reconstructed': (remade, classes, None)}
  for name, strength in (('guided', guidance), ('unguided', 1.0)):
    made, tokens = draw(generator, wanted, strength)
    rows[name] = made, wanted, np.mean([tuple(row) in used for row in tokens])
    if args.out and name == 'guided':
      Image.fromarray(pictures.grid(made[:100], 10)).save(args.out)

  print(f'guidance {guidance}, {args.num_images} images')
  print('| | read | ' + ' | '.join(f'nearest, {q:.0%}' for q in QUANTILES) + ' | repeated |')
  print('|---' * (3 + len(QUANTILES)) + '|')
  read = {}
  for name, (pixels, right, repeated) in rows.items():
    x = features(pixels)
    read[name] = np.mean(machine.predict(x) == right)
    distances = ' | '.join(f'{d:.3f}' for d in np.quantile(nearest(x, known), QUANTILES))
    own = '' if repeated is None else f'{repeated:.1%}'
    print(f'| {name} | {read[name]:.1%} | {distances} | {own} |')
  return int(any(read[name] < least for name, least in LEAST.items()))


if __name__ == '__main__':
  sys.exit(main())
