"""Batches of an evaluation, added up: memory does not grow with the number of images.

An `Accumulator` takes what the step found on each batch and in the end gives numbers. Sums are
float64 on the host, so that they depend neither on the size of a batch nor on the devices.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import numpy as np

from vqjax.errors import UserError
from vqjax.evaluation import metrics
from vqjax.evaluation.results import Evaluation, Found, Pictures
from vqjax.evaluation.statistics import FeatureStatistics, InceptionScore, Precomputed
from vqjax.evaluation.table import METRICS

log = logging.getLogger('vqjax')

EXTREMES = 8  # how many of the best and of the worst images are kept
# How many of what a window of each number has.
WINDOWS = {'usage_65536_tokens': (65_536, 'tokens'), 'usage_256_images': (256, 'images')}

# Position, PSNR, original, reconstruction.
_Picture = tuple[np.integer, float, np.ndarray, np.ndarray]


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
    numbers['rfid'] = metrics.frechet_distance(
      against.mean, against.covariance, found.mean, found.covariance
    )
    return numbers, {}


class Gallery:
  """Images to be looked at: those at given positions of the set, the best and the worst by PSNR.

  It has no numbers.

  Args:
    wanted: positions of images to keep, in the order of the set.
  """

  def __init__(self, wanted: frozenset[int]) -> None:
    self._wanted = wanted
    self._position = 0  # of the next image, those that a mask leaves out included
    self._samples: list[_Picture] = []
    self._best: list[_Picture] = []
    self._worst: list[_Picture] = []

  def add(self, found: Found) -> None:
    mask = found['mask']
    if 'images' in found:
      self._add(mask, found['values']['psnr'], *found['images'])
    self._position += len(mask)

  def _add(self, mask, psnr, originals, reconstructions):
    positions = self._position + np.arange(len(mask))

    def pick(i: np.integer) -> _Picture:
      # Copies: a view would keep its whole batch.
      copies = originals[i].copy(), _bytes(reconstructions[i])
      return positions[i], float(psnr[i]), *copies

    inside = np.flatnonzero(mask)
    self._samples += [pick(i) for i in inside if positions[i] in self._wanted]
    order = inside[np.argsort(psnr[inside], kind='stable')]
    rank = lambda picture: picture[1]
    worst = self._worst + [pick(i) for i in order[:EXTREMES]]
    best = self._best + [pick(i) for i in order[::-1][:EXTREMES]]
    self._worst = sorted(worst, key=rank)[:EXTREMES]
    self._best = sorted(best, key=rank, reverse=True)[:EXTREMES]

  def numbers(self) -> tuple[dict[str, float], dict[str, str]]:
    return {}, {}

  def pictures(self) -> dict[str, Pictures | None]:
    """`samples`, `best` and `worst`; None of a set without images."""
    kept = {'samples': self._samples, 'best': self._best, 'worst': self._worst}
    return {name: _pictures(rows) for name, rows in kept.items()}


def spread(total: int, count: int) -> frozenset[int]:
  """At most `count` positions in `range(total)`, evenly spread: a picture of the whole set."""
  count = min(count, total)
  return frozenset(i * total // count for i in range(count))


def collect(
  step: Callable[[Any], Found],
  batches: Any,
  *,
  num_codes: int | None = None,
  samples: Collection[int] = (),
  reference: Precomputed | FeatureStatistics | None = None,
  missing: Mapping[str, str] | None = None,
) -> Evaluation:
  """Evaluates `batches` by `step`, adds up what it finds, and closes them.

  Args:
    step: function of a batch, see evaluation/step.py.
    batches: an iterator with a `close`.
    num_codes: K; None where `step` gives no tokens.
    samples: positions of images to keep with their reconstructions, see `spread`.
    reference: statistics that rFID compares with, in place of the originals'.
    missing: numbers that `step` cannot give, by name, and what they would need.

  Raises:
    UserError: there is no image, or one whose features are not finite.
  """
  means, distances, gallery = Means(), Distances(reference), Gallery(frozenset(samples))
  codes = None if num_codes is None else CodeUse(num_codes)
  accumulators: list[Accumulator] = [means, distances, gallery, *([codes] if codes else [])]
  with contextlib.closing(batches):
    for batch in batches:
      found = step(batch)
      for accumulator in accumulators:
        accumulator.add(found)
  if not means.count:
    raise UserError(
      'no image could be read; the log names the unreadable ones: repair them, or name others.'
    )
  numbers: dict[str, float | None] = {}
  gaps = dict(missing or {})
  for accumulator in accumulators:
    more, others = accumulator.numbers()
    numbers, gaps = {**numbers, **more}, gaps | others
  numbers |= dict.fromkeys(gaps)
  if unknown := numbers.keys() - METRICS.keys():
    raise ValueError(f'{", ".join(sorted(unknown))}: no row in evaluation/table.py; add one.')
  shown = gallery.pictures()
  return Evaluation(
    {name: numbers[name] for name in METRICS if name in numbers},
    gaps,
    code_counts=None if codes is None else codes.counts,
    statistics=distances.originals,
    samples=shown['samples'],
    best=shown['best'],
    worst=shown['worst'],
  )


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


def _bytes(image):
  return image.copy() if image.dtype == np.uint8 else np.uint8(np.rint(image * 255))


def _pictures(kept):
  return Pictures(*map(np.stack, zip(*kept, strict=True))) if kept else None
