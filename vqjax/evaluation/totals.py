"""Numbers of a set, added up over its batches: memory does not grow with the number of images.

An `Accumulator` takes what the step found on each batch and in the end gives numbers. Sums are
float64 on the host, so that they depend neither on the size of a batch nor on the devices.
"""

import logging
import math
from collections.abc import Collection
from typing import Protocol

import numpy as np

from vqjax.evaluation import metrics
from vqjax.evaluation.results import Found
from vqjax.evaluation.statistics import FeatureStatistics, InceptionScore, Precomputed

log = logging.getLogger('vqjax')

# How many of what a window of each number has.
WINDOWS = {'usage_65536_tokens': (65_536, 'tokens'), 'usage_256_images': (256, 'images')}


class Accumulator(Protocol):
  """Something that is added up over the batches of a set."""

  def add(self, found: Found) -> None:
    """Adds what was found on a batch, of the images where `found['mask']` holds."""

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    """Once all batches are in: (numbers by name, for every one that is missing what it needs)."""


class Means:
  """`num_images`, and means over images of what the step computed of each, by name."""

  def __init__(self) -> None:
    self.count = 0
    self._sums: dict[str, float] = {}

  def add(self, found: Found) -> None:
    mask = found['mask']
    self.count += int(mask.sum())
    for name, value in found['values'].items():
      self._sums[name] = self._sums.get(name, 0.0) + value[mask].astype(np.float64).sum()

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    numbers = {name: float(value / self.count) for name, value in self._sums.items()}
    return numbers | {'num_images': self.count}, {}


class Subset:
  """Some images of the set as they are, and what `Means` says of them alone.

  Args:
    positions: of the images, in the order of the set.
  """

  def __init__(self, positions: Collection[int]) -> None:
    self._wanted = np.array(sorted(positions))
    self._means = Means()
    self._position = 0  # of the next image, those that a mask leaves out included
    self._images: list[np.ndarray] = []

  @property
  def images(self) -> np.ndarray:
    """The originals, uint8 [n H W 3]."""
    return np.concatenate(self._images)

  def add(self, found: Found) -> None:
    mask = found['mask']
    positions = self._position + np.arange(len(mask))
    self._position += len(mask)
    chosen = mask & np.isin(positions, self._wanted)
    self._means.add({**found, 'mask': chosen})
    self._images.append(found['images'][0][chosen])

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    return self._means.numbers()


class CodeUse:
  """How often each of K codes occurs: usage, of the whole and in windows, perplexity, bits.

  Attributes:
    counts: int64 [K].
  """

  def __init__(self, num_codes: int) -> None:
    self.counts = np.zeros(num_codes, np.int64)
    self._windows = {name: _Windows(num_codes, size) for name, (size, _) in WINDOWS.items()}
    self._bits_per_pixel: float | None = None

  def add(self, found: Found) -> None:
    tokens = found['tokens'][found['mask']]  # [B T]
    num_codes = len(self.counts)
    self.counts += np.bincount(tokens.reshape(-1), minlength=num_codes)
    for name, window in self._windows.items():
      window.add(tokens.reshape(-1) if WINDOWS[name][1] == 'tokens' else tokens)
    if 'images' in found:
      pixels = math.prod(found['images'][0].shape[1:3])
      self._bits_per_pixel = tokens.shape[1] * math.log2(num_codes) / pixels

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    entropy = metrics.token_entropy(self.counts)
    numbers = {
      'usage': float(np.mean(self.counts > 0)),
      'perplexity': 2**entropy,
      'token_entropy': entropy,
    }
    if self._bits_per_pixel is not None:
      numbers['bits_per_pixel'] = self._bits_per_pixel
    missing = {}
    for name, window in self._windows.items():
      if window.fractions:
        numbers[name] = float(np.mean(window.fractions))
      else:
        missing[name] = f'needs {window.size:,} {WINDOWS[name][1]} or more'
    return numbers, missing


class Distances:
  """rFID and the Inception score, of what Inception says about originals and reconstructions.

  Args:
    reference: statistics that rFID compares with, in place of the originals'.
  """

  def __init__(self, reference: Precomputed | FeatureStatistics | None = None) -> None:
    self._reference = reference
    self.originals: FeatureStatistics | None = None
    self._reconstructions: FeatureStatistics | None = None
    self._score: InceptionScore | None = None

  def add(self, found: Found) -> None:
    mask = found['mask']
    if 'features' in found:
      if self.originals is None or self._reconstructions is None:
        width = found['features'].shape[-1]
        self.originals, self._reconstructions = FeatureStatistics(width), FeatureStatistics(width)
      self.originals.add(found['features'][0][mask])
      self._reconstructions.add(found['features'][1][mask])
    if 'probabilities' in found:
      if self._score is None:
        self._score = InceptionScore(found['probabilities'].shape[-1])
      self._score.add(found['probabilities'][mask])

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    if self.originals is None or self._reconstructions is None:
      return {}, {}
    numbers = {} if self._score is None else {'inception_score': self._score.value}
    count, width = self.originals.count, len(self.originals.mean)
    if count < 2:
      return numbers, {'rfid': 'needs 2 images or more'}
    if count <= width:
      log.warning(
        'rfid of %d images is far above that of many: a covariance of %d features needs more '
        'images than that; compare it with that of the same images alone',
        *(count, width),
      )
    against, found = self._reference or self.originals, self._reconstructions
    numbers['rfid'] = metrics.frechet_distance_of_roots(
      against.mean, against.root, found.mean, found.root
    )
    return numbers, {}


class _Windows:
  """`metrics.windowed_usage` of what comes in any portions."""

  def __init__(self, num_codes, size):
    self.num_codes, self.size = num_codes, size
    self.rows: np.ndarray | None = None
    self.fractions: list[float] = []

  def add(self, rows):
    rows = rows if self.rows is None else np.concatenate([self.rows, rows])
    while len(rows) >= self.size:
      usage = metrics.windowed_usage(rows[: self.size], self.num_codes, self.size)
      self.fractions.append(usage)
      rows = rows[self.size :]
    self.rows = rows
