"""Evaluations of no tokenizer, and batches of no data."""

import numpy as np

from vqjax.evaluation.results import Cloud, Evaluation, Pictures

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


class Batches:
  """An iterator of dicts that can be closed, as data sources give."""

  def __init__(self, *batches):
    self._batches, self.closed = iter(batches), False

  def __iter__(self):
    return self._batches

  def close(self):
    self.closed = True
