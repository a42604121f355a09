"""Statistics of what a network says about a set of images, streamed; and those on disk.

Memory is that of the result, whatever the number of images, and the result is the same in whatever
batches, order and parts they come, up to float64 rounding.
"""

import pathlib
from typing import NamedTuple

import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import ArrayLike

from vqjax import tensor_files
from vqjax.errors import UserError, printable
from vqjax.evaluation.metrics import root
from vqjax.whole_files import replacing


class FeatureStatistics:
  """Mean and covariance of features [N D], in float64, with memory O(D^2).

  Batches are merged pairwise (Chan, Golub & LeVeque 1983): with n and m rows, means a and b and
  scatters `S = sum (x - mean)^T (x - mean)`, the scatter of both together is `S_a + S_b +
  n m / (n + m) (b - a)^T (b - a)`. Every scatter is about its own mean, so that no large numbers
  cancel, as they do in `E[x^2] - E[x]^2`. Up to D rows are kept as they are, a root of the scatter;
  more are added to the product.

  Args:
    width: D.

  Attributes:
    count: N, int.
    mean: float64 [D].
  """

  def __init__(self, width: int) -> None:
    self.count = 0
    self.mean = np.zeros(width)
    self._rows: list[np.ndarray] = []  # deviations that are not in the scatter
    self._scatter: np.ndarray | None = None  # its upper triangle

  def add(self, features: ArrayLike) -> None:
    """Adds features, float [B D], of images that count.

    Raises:
      ValueError: another width.
      UserError: features that are not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or features.shape[1] != len(self.mean):
      raise ValueError(f'features are [B {len(self.mean)}]; got {list(features.shape)}.')
    _check_finite(features, 'features')
    if not (count := len(features)):
      return
    mean, total = features.mean(axis=0), self.count + count
    shift = mean - self.mean
    # The term between the means is one more row of deviations: a single product adds both terms.
    between = np.sqrt(self.count * count / total) * shift
    self._rows += [features - mean, between[None]]
    if sum(map(len, self._rows)) > len(mean):
      self._scatter, self._rows = self._whole_scatter(), []
    self.mean = self.mean + shift * (count / total)
    self.count = total

  @property
  def covariance(self) -> np.ndarray:
    """`S / (N - 1)`, float64 [D D], as `np.cov`.

    Raises:
      UserError: fewer than two images.
    """
    if self.count < 2:
      raise UserError(
        f'a covariance needs at least 2 images, got {self.count}: evaluate on more of them.'
      )
    covariance = self._whole_scatter() / (self.count - 1)
    covariance += np.triu(covariance, 1).T
    return covariance

  @property
  def root(self) -> np.ndarray:
    """R with `R^T R = covariance`, float64 [N' D]; of few images at no cost. Raises as that."""
    if self._scatter is not None or self.count < 2:
      return root(self.covariance)
    return np.concatenate(self._rows) / np.sqrt(self.count - 1)

  def _whole_scatter(self):
    """The upper triangle, with the rows that are not in it yet."""
    width = len(self.mean)
    scatter = np.zeros((width, width), order='F') if self._scatter is None else self._scatter
    if self._rows:
      # BLAS adds to the triangle alone; NumPy's product and sum take eight times as long.
      rows = np.concatenate(self._rows)
      syrk = scipy.linalg.blas.dsyrk
      scatter = syrk(1.0, rows.T, beta=1.0, c=scatter, overwrite_c=False)
    return scatter

  def save(self, path: str | pathlib.Path, provenance: str) -> None:
    """Writes an `.npz` of `mu` and `sigma`, as pytorch-fid reads it, `count` and `provenance`.

    Args:
      path: of the file.
      provenance: what the numbers are of: data, how it was prepared, the network's weights' hash.

    Raises:
      UserError: fewer than two images, or a path that cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    mean, covariance, count = self.mean, self.covariance, self.count
    try:
      # Opened here: by its path, NumPy would append .npz to the name.
      with replacing(path) as partial, partial.open('wb') as file:
        np.savez(file, provenance=np.str_(provenance), mu=mean, sigma=covariance, count=count)
    except OSError as error:
      raise UserError(
        f'cannot write {path}: {error.strerror}; name a file in a folder that can be written.'
      ) from error


class Precomputed(NamedTuple):
  """Statistics that a file holds."""

  mean: np.ndarray  # float64 [D]
  covariance: np.ndarray  # float64 [D D]
  # None and '' where others wrote the file; the name hides a method of tuples, which none needs.
  count: int | None  # type: ignore[assignment]
  provenance: str

  @property
  def root(self) -> np.ndarray:
    """R with `R^T R = covariance`, float64 [rank D]."""
    return root(self.covariance)


def load(path: str | pathlib.Path, width: int | None = None, suffix: str = '') -> Precomputed:
  """Reads the `mu` [D] and `sigma` [D D] of an `.npz` of ours, of pytorch-fid's or of ADM's.

  Nothing else in it is read, so ADM's images (`arr_0`) cost nothing; nor is anything unpickled.

  Args:
    path: of the file.
    width: D that is needed; any if None.
    suffix: of both names, '_s' for ADM's of spatial features.

  Raises:
    UserError: no such file, or not statistics of that width.
  """
  advice = 'give statistics that vqjax, pytorch-fid or the ADM evaluation wrote'
  names = f'mu{suffix}', f'sigma{suffix}'
  try:
    place = pathlib.Path(path).expanduser()
    with place.open('rb') as file:
      if file.read(6) == b'\x93NUMPY':
        raise UserError(f'{path} is a single array and no .npz of mu and sigma: {advice}.')
    with tensor_files.open_npz(place) as arrays:
      if missing := set(names) - arrays.keys():
        found = printable(', '.join(arrays)[:200]) or 'nothing'
        raise UserError(f'{path} lacks {" and ".join(sorted(missing))} (it has {found}): {advice}.')
      mean, covariance = (arrays[name]() for name in names)
      count = int(arrays['count']()) if 'count' in arrays else None
      provenance = str(arrays['provenance']()) if 'provenance' in arrays else ''
  except tensor_files.DAMAGE as error:
    raise UserError(f'{path} is no .npz of numbers, or damaged: {advice}.') from error
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}; {advice}.') from error
  _check(path, names, mean, covariance, width, advice)
  return Precomputed(mean.astype(np.float64), covariance.astype(np.float64), count, provenance)


def _check(path, names, mean, covariance, width, advice):
  found = f'{names[0]} {list(mean.shape)} and {names[1]} {list(covariance.shape)}'
  if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
    raise UserError(f'{path} has {found}, legal are [D] and [D D]: {advice}.')
  if width not in (None, mean.size):
    raise UserError(
      f'{path} has {found}, of another network than this one of {width} features: {advice}, of '
      'the same network.'
    )
  for name, array in zip(names, (mean, covariance), strict=True):
    if array.dtype.kind not in 'fiu' or not np.isfinite(array).all():
      raise UserError(f'{path} has a {name} that is not of finite real numbers: {advice}.')
  asymmetry = np.abs(covariance - covariance.T).max(initial=0)
  if asymmetry > 1e-5 * np.abs(covariance).max(initial=0):
    raise UserError(
      f'{path} has a {names[1]} that is not symmetric (off by {asymmetry:.2g}), so no covariance: '
      f'{advice}.'
    )


class InceptionScore:
  """Inception score (Salimans et al. 2016), from sums over probabilities [N K].

  `exp mean_n KL(p_n | q)` with `q = mean_n p_n`, which is `exp(H(q) - mean_n H(p_n))` with the
  entropy H. In parts it is the mean over parts, each of which has its own q, and so depends on the
  order of the images. `0 log 0` is 0, where ADM's evaluator has NaN.

  Args:
    width: K.
    split: images of a part, in the order in which they are added; the last may have fewer, and
      counts as the others. None for one part.
  """

  def __init__(self, width: int, split: int | None = None) -> None:
    self.count = 0
    self._split = split
    self._scores: list[float] = []  # of whole parts
    self._start(width)

  def _start(self, width):
    self._part = 0  # images of this part
    self._sum = np.zeros(width)  # of p, [K]
    self._entropy = 0.0  # sum of H(p)

  def add(self, probabilities: ArrayLike) -> None:
    """Adds softmax outputs, float [B K], of images that count; raises as `FeatureStatistics`."""
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or p.shape[1] != len(self._sum):
      raise ValueError(f'probabilities are [B {len(self._sum)}]; got {list(p.shape)}.')
    _check_finite(p, 'probabilities')
    self.count += len(p)
    while len(p):
      room = self._split - self._part if self._split else len(p)
      now, p = p[:room], p[room:]
      self._part += len(now)
      self._sum += now.sum(axis=0)
      self._entropy += float(scipy.special.entr(now).sum())
      if self._part == self._split:
        self._scores.append(self._of_part())
        self._start(len(self._sum))

  def _of_part(self):
    mean = scipy.special.entr(self._sum / self._part).sum()
    return float(np.exp(mean - self._entropy / self._part))

  @property
  def value(self) -> float:
    """The score, in [1, K].

    Raises:
      UserError: there is no image yet.
    """
    if not self.count:
      raise UserError('an Inception score needs at least 1 image, got 0: evaluate on more of them.')
    return float(np.mean([*self._scores, *([self._of_part()] if self._part else [])]))


def _check_finite(rows, what):
  bad = np.count_nonzero(~np.isfinite(rows).all(axis=1))
  if bad:
    raise UserError(
      f'the {what} of {bad} of {len(rows)} images are not finite: look at the reconstructions, '
      'which have NaN if the training diverged, and evaluate an earlier checkpoint.'
    )
