"""The ADM evaluator's numbers, from what Inception says about generated images and a reference.

Dhariwal & Nichol, Diffusion Models Beat GANs on Image Synthesis (NeurIPS 2021): the evaluator of
its code. What images must go through before is in networks/inception.py, protocol 'adm'.

Deviations: means are float64, where it has those of float32 features; the trace of the root of
covariances is exact, without the offset that it adds where `sqrtm` fails; 0 log 0 is 0.
"""

from collections.abc import Mapping

import numpy as np

from vqjax.evaluation import metrics, scoring
from vqjax.evaluation.precision_recall import NEIGHBOURS, Rows, precision_and_recall
from vqjax.evaluation.results import Found
from vqjax.evaluation.statistics import FeatureStatistics, InceptionScore, Precomputed

SPLIT = 5000  # images of a part of the Inception score
_FEW = f'needs {NEIGHBOURS + 1} samples and {NEIGHBOURS + 1} images of the reference, or more'
NO_IMAGES = 'needs images of the reference (arr_0), and it has statistics alone'

Statistics = FeatureStatistics | Precomputed


class Seen:
  """What Inception says about a set, added up; memory does not grow with the number of images.

  Attributes:
    pool: statistics of pool_3.
    spatial: those of spatial features.
    rows: pool_3 itself, for nearest neighbours.
    score: None where the weights have no classes.
  """

  def __init__(self) -> None:
    self.pool: FeatureStatistics | None = None
    self.spatial: FeatureStatistics | None = None
    self.rows = Rows()
    self.score: InceptionScore | None = None

  @property
  def statistics(self) -> dict[str, Statistics]:
    """Both, by the name of their features."""
    return {'pool': self.pool, 'spatial': self.spatial} if self.pool and self.spatial else {}

  def add(self, found: Found, in_rows: np.ndarray | None = None) -> None:
    """Adds what `scoring.see` finds, arrays [B ...]; to `rows` only those that are chosen, [B].

    Raises:
      UserError: features that are not finite.
    """
    if self.pool is None or self.spatial is None:
      self.pool, self.spatial = (
        FeatureStatistics(found[name].shape[1]) for name in ('pool', 'spatial')
      )
      if 'probabilities' in found:
        self.score = InceptionScore(found['probabilities'].shape[1], split=SPLIT)
    self.pool.add(found['pool'])
    self.spatial.add(found['spatial'])
    self.rows.add(found['pool'] if in_rows is None else found['pool'][in_rows])
    if self.score is not None:
      self.score.add(found['probabilities'])


def numbers(
  samples: Seen, statistics: Mapping[str, Statistics], reference: Rows | None
) -> tuple[dict[str, float], dict[str, str]]:
  """(numbers by name, for every one that is missing what it needs), see `table.OF_SAMPLES`.

  Args:
    samples: of two images or more.
    statistics: of the reference, of `pool` and `spatial`.
    reference: pool_3 of images of the reference; None if there are no images.

  Raises:
    UserError: fewer than two images.
  """
  found: dict[str, float] = {}
  missing: dict[str, str] = {}
  for name, features in (('gfid', 'pool'), ('sfid', 'spatial')):
    of, against = samples.statistics[features], statistics[features]
    found[name] = metrics.frechet_distance_of_roots(of.mean, of.root, against.mean, against.root)
  if samples.score is None:
    missing['inception_score'] = scoring.NO_CLASSES
  else:
    found['inception_score'] = samples.score.value
  for float16, suffix in ((False, ''), (True, '_float16')):
    names = f'precision{suffix}', f'recall{suffix}'
    if reference is None or min(len(samples.rows), len(reference)) <= NEIGHBOURS:
      missing |= dict.fromkeys(names, NO_IMAGES if reference is None else _FEW)
    else:
      both = precision_and_recall(samples.rows, reference, float16=float16)
      found |= dict(zip(names, both, strict=True))
  return found, missing
