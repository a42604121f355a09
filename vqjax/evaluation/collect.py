"""The evaluation of a set: every batch through the step, and what it finds added up."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from vqjax.errors import UserError
from vqjax.evaluation.results import Evaluation, Found, Pictures
from vqjax.evaluation.statistics import FeatureStatistics, Precomputed
from vqjax.evaluation.table import METRICS
from vqjax.evaluation.totals import Accumulator, CodeUse, Distances, Means, Subset

EXTREMES = 8  # how many of the best and of the worst images are kept

# Position, PSNR, original, reconstruction.
_Picture = tuple[np.integer, float, np.ndarray, np.ndarray]


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
  subset: Subset | None = None,
) -> Evaluation:
  """Evaluates `batches` by `step`, adds up what it finds, and closes them.

  Args:
    step: function of a batch, see evaluation/step.py.
    batches: an iterator with a `close`.
    num_codes: K; None where `step` gives no tokens.
    samples: positions of images to keep with their reconstructions, see `spread`.
    reference: statistics that rFID compares with, in place of the originals'.
    missing: numbers that `step` cannot give, by name, and what they would need.
    subset: gets what was found too; its numbers are the caller's.

  Raises:
    UserError: there is no image, or one whose features are not finite.
  """
  means, distances, gallery = Means(), Distances(reference), _Gallery(frozenset(samples))
  codes = None if num_codes is None else CodeUse(num_codes)
  accumulators: list[Accumulator] = [means, distances, *([codes] if codes else [])]
  with contextlib.closing(batches):
    for batch in batches:
      found = step(batch)
      gallery.add(found)
      for accumulator in (*accumulators, *([subset] if subset else [])):
        accumulator.add(found)
  if not means.count:
    raise UserError(
      'no image could be read; the log names the unreadable ones: repair them, or name others.'
    )
  numbers: dict[str, float | None] = {}
  gaps = dict(missing or {})
  for accumulator in accumulators:
    more, others = accumulator.numbers()
    for name in (*more, *others):
      if name not in METRICS or METRICS[name].by is not type(accumulator):
        kind = type(accumulator).__name__
        raise ValueError(f'{name}: evaluation/table.py has no such row by {kind}; add or mend it.')
    numbers, gaps = {**numbers, **more}, gaps | others
  numbers |= dict.fromkeys(gaps)
  return Evaluation(
    {name: numbers[name] for name in METRICS if name in numbers},
    gaps,
    code_counts=None if codes is None else codes.counts,
    statistics=distances.originals,
    samples=_pictures(gallery.samples),
    best=_pictures(gallery.best),
    worst=_pictures(gallery.worst),
  )


class _Gallery:
  """Images to be looked at: those at given positions of the set, the best and the worst by PSNR.

  Args:
    wanted: positions of images to keep, in the order of the set.
  """

  def __init__(self, wanted: frozenset[int]) -> None:
    self._wanted = wanted
    self._position = 0  # of the next image, those that a mask leaves out included
    self.samples: list[_Picture] = []
    self.best: list[_Picture] = []
    self.worst: list[_Picture] = []

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
    self.samples += [pick(i) for i in inside if positions[i] in self._wanted]
    order = inside[np.argsort(psnr[inside], kind='stable')]
    rank = lambda picture: picture[1]
    worst = self.worst + [pick(i) for i in order[:EXTREMES]]
    best = self.best + [pick(i) for i in order[::-1][:EXTREMES]]
    self.worst = sorted(worst, key=rank)[:EXTREMES]
    self.best = sorted(best, key=rank, reverse=True)[:EXTREMES]


def _bytes(image):
  return image.copy() if image.dtype == np.uint8 else np.uint8(np.rint(image * 255))


def _pictures(kept: list[_Picture]) -> Pictures | None:
  """They as arrays; None of a set without images."""
  return Pictures(*map(np.stack, zip(*kept, strict=True))) if kept else None
