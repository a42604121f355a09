"""Evaluations of no tokenizer, and batches of no data."""

import numpy as np

from vqjax.evaluation.results import Baseline, Cloud, Evaluation, Generated, Pictures

PROTOCOL = {
  'run': 'runs/one',
  'data': 'synthetic',
  'images': '6 x 8',
  'weights': 'as trained',
  'metrics': {
    'psnr': 'dB, RGB',
    'rec_loss': 'l2',
    'usage': 'fraction of codes',
    'rfid': 'needs the weights: python -m vqjax.weights inception',
  },
}


def shown(count=4, seed=0):
  """Pictures of `count` images; the originals are the same for every seed."""
  originals = np.random.default_rng(7).integers(0, 256, (count, 6, 8, 3), np.uint8)
  noise = np.random.default_rng(seed).integers(-9, 10, originals.shape)
  reconstructions = np.clip(originals + noise, 0, 255).astype(np.uint8)
  return Pictures(10 * np.arange(count), 20.0 + np.arange(count), originals, reconstructions)


def baselines(**changes):
  """A run at 2 bits a pixel, a codec below it, patches that are not to be had, the mean colour."""
  numbers = lambda *values: dict(zip(('bits_per_pixel', 'psnr', 'ssim'), values, strict=True))
  return {
    'run': Baseline('this run', 'tokens', 40, numbers=numbers(2.0, 21.5, 0.75)),
    'jpeg': Baseline(
      *('JPEG', 'Pillow', 40),
      setting='quality 37',
      numbers={**numbers(1.9, 30.25, 0.9), 'lpips': 0.125},
      curve=((1.0, 25.0), (1.9, 30.25), (9.0, 40.0)),
    ),
    'webp': Baseline('WebP', 'Pillow', 40, reason='needs 2.5', curve=((2.5, 33.0),)),
    'kmeans_patches': Baseline('k-means on patches', 'Lloyd', 40, reason='left out by --quick'),
    'mean_color': Baseline('mean colour', 'one', 40, numbers=numbers(0.5, 15.0, 0.25)),
  } | changes


def evaluation(**changes):
  """An Evaluation with everything in it, and 3 of 5 codes used."""
  rng = np.random.default_rng(0)
  codes = rng.normal(size=(5, 3)).astype(np.float32)
  latents = rng.normal(size=(20, 3)).astype(np.float32)
  samples = shown()
  order = np.argsort(samples.psnr)[:2]
  fields = {
    'metrics': {'psnr': 21.5, 'rec_loss': 0.012345, 'usage': 0.6, 'rfid': None, 'num_images': 40},
    'missing': {'rfid': PROTOCOL['metrics']['rfid']},
    'code_counts': np.array([3, 0, 100, 0, 1]),
    'samples': samples,
    'best': Pictures(*(field[order[::-1]] for field in samples)),
    'worst': Pictures(*(field[order] for field in samples)),
    'cloud': Cloud(latents, codes[rng.integers(0, 3, 20)], codes),
    'protocol': PROTOCOL,
  }
  return Evaluation(**fields | changes)


def of_a_generator(**changes):
  """An Evaluation of six samples of two classes, with what is nearest to one of them."""
  images = shown(6).originals
  generated = Generated(
    *(np.arange(6), images, ['a', 'b'] * 3),
    {2: ([images[0], images[1]], [0.5, 12.25])},
    'of the training data',
  )
  numbers = {'gfid': 12.5, 'inception_score': None, 'num_images': 6}
  said = {'gfid': 'Frechet distance', 'inception_score': 'needs classes'}
  fields = {
    'metrics': numbers,
    'missing': {'inception_score': 'needs classes'},
    'generated': generated,
    'protocol': {'run': 'samples', 'data': 'reference', 'metrics': said},
  }
  return Evaluation(**fields | changes)


class Batches:
  """An iterator of dicts that can be closed, as data sources give."""

  def __init__(self, *batches):
    self._batches, self.closed = iter(batches), False

  def __iter__(self):
    return self._batches

  def close(self):
    self.closed = True
