"""Precision and recall of generated images, by nearest neighbours among features."""

import functools
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from vqjax.errors import UserError

NEIGHBOURS = 3
BLOCK = 4096  # rows at a time of either set: 64 MB of distances
_FLOAT16 = {'exponent_bits': 5, 'mantissa_bits': 10}


class Rows:
  """Features [N D] of a set, float32, in a temporary file: memory does not grow with N."""

  def __init__(self) -> None:
    self._file = tempfile.TemporaryFile()  # noqa: SIM115 (as long as this lives)
    weakref.finalize(self, self._file.close)
    self._width = 0
    self._count = 0

  def __len__(self) -> int:
    return self._count

  def add(self, features: ArrayLike) -> None:
    """Appends [B D].

    Raises:
      UserError: the disk takes no more.
    """
    rows = np.ascontiguousarray(features, np.float32)
    try:
      self._file.seek(0, 2)
      self._file.write(rows.data)
      self._file.flush()
    except OSError as error:
      raise UserError(
        f'cannot keep features in {tempfile.gettempdir()}: {error.strerror}; make room for '
        f'{rows.shape[1] * 4} bytes an image, or name another folder by TMPDIR.'
      ) from error
    self._width = rows.shape[1]
    self._count += len(rows)

  def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, [n D] with n up to `size`), one after another."""
    for start in range(0, self._count, size):
      self._file.seek(start * self._width * 4)
      content = self._file.read(min(size, self._count - start) * self._width * 4)
      yield start, np.frombuffer(content, np.float32).reshape(-1, self._width)


def precision_and_recall(
  samples: Rows,
  reference: Rows,
  *,
  neighbours: int = NEIGHBOURS,
  float16: bool = False,
  block: int = BLOCK,
) -> tuple[float, float]:
  """Shares of samples that look real, and of what is real that samples cover.

  Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models (NeurIPS
  2019). The manifold of a set is the union of balls around its rows, each up to the `neighbours`-th
  nearest other row. Precision is the share of samples in the manifold of the reference, recall the
  share of the reference in the manifold of the samples. Source: the evaluator of ADM.

  Args:
    samples: features [N D].
    reference: features [M D].
    neighbours: k, less than N and M.
    float16: whether squared distances, `(|u|^2 - 2 u v) + |v|^2` and at least 0, u of the reference
      and v of the samples, are of features rounded to float16, and rounded after every operation,
      as that evaluator does. Near 500 its steps are 0.25 to 0.5, which decides near ties. Sums are
      added in float32 here; TensorFlow's are its own. A block in which not all are finite is of
      float32; there a block is of 10,000.
    block: rows at a time; no result in float32 depends on it.

  Returns:
    (precision, recall), float in [0, 1].

  Raises:
    ValueError: too few rows.
  """
  if min(len(samples), len(reference)) <= neighbours:
    raise ValueError(
      f'{len(samples)} samples and {len(reference)} of the reference; legal: more than '
      f'{neighbours} each, the number of neighbours.'
    )
  block = min(block, max(len(samples), len(reference)))
  options: dict[str, Any] = {'neighbours': neighbours, 'float16': float16, 'block': block}
  radii_samples, radii_reference = radii(samples, **options), radii(reference, **options)
  precise, recalled = np.zeros(len(samples), bool), np.zeros(len(reference), bool)
  for i, u in reference.blocks(block):
    for j, v in samples.blocks(block):
      of_u, of_v = radii_reference[i : i + len(u)], radii_samples[j : j + len(v)]
      filled = _filled(u, block), _filled(v, block)
      balls = _filled(of_u, block, -1), _filled(of_v, block, -1)  # below zero they hold nothing
      of_rows, of_columns = map(np.asarray, _inside(*filled, *balls, float16=float16))
      recalled[i : i + len(u)] |= of_rows[: len(u)]
      precise[j : j + len(v)] |= of_columns[: len(v)]
  return float(precise.mean()), float(recalled.mean())


def radii(
  rows: Rows, *, neighbours: int = NEIGHBOURS, float16: bool = False, block: int = BLOCK
) -> np.ndarray:
  """Squared distance of each row to its k-th nearest other one, float32 [N].

  It is the (k + 1)-th smallest of all, the row itself included, whose distance is 0 up to rounding.
  """
  block = min(block, len(rows))
  found = np.empty(len(rows), np.float32)
  for i, u in rows.blocks(block):
    nearest = np.full((block, neighbours + 1), np.inf, np.float32)
    for _, v in rows.blocks(block):
      count = np.int32(len(v))
      nearest = _nearest(nearest, _filled(u, block), _filled(v, block), count, float16=float16)
    found[i : i + len(u)] = np.asarray(nearest)[: len(u), -1]
  return found


def _filled(rows, count, value=0):
  """Rows, or numbers, filled up to `count`, so that one program does for all blocks."""
  return np.pad(rows, [(0, count - len(rows))] + [(0, 0)] * (rows.ndim - 1), constant_values=value)


@functools.partial(jax.jit, static_argnames='float16')
def _inside(u, v, radii_u, radii_v, *, float16):
  """Whether rows of u lie within the radius of any of v, [U], and the other way round, [V]."""
  distances = _distances(u, v, float16)
  return (
    jnp.any(distances <= radii_v[None], axis=1),
    jnp.any(distances <= radii_u[:, None], axis=0),
  )


@functools.partial(jax.jit, static_argnames='float16')
def _nearest(nearest, u, v, count, *, float16):
  """The smallest distances to rows so far [U k], with the first `count` rows of v."""
  distances = _distances(u, v, float16)
  distances = jnp.where(jnp.arange(len(v))[None] < count, distances, jnp.inf)
  candidates = jnp.concatenate([nearest, distances], axis=1)
  return -jax.lax.top_k(-candidates, nearest.shape[1])[0]


def _distances(u, v, float16):
  """Squared, float32: [U D], [V D] -> [U V]."""
  if not float16:
    return _squared(u, v, lambda x: x)
  # Of float16 numbers, float32 rounded is what float16 arithmetic gives; casts back and forth the
  # compiler may leave out.
  short = _squared(u, v, functools.partial(jax.lax.reduce_precision, **_FLOAT16))
  return jax.lax.cond(
    jnp.all(jnp.isfinite(short)), lambda: short, lambda: _squared(u, v, lambda x: x)
  )


def _squared(u, v, rounded):
  u, v = rounded(u), rounded(v)
  norm = lambda x: rounded(jnp.sum(rounded(x * x), axis=1))
  product = rounded(jnp.matmul(u, v.T, precision=jax.lax.Precision.HIGHEST))
  return jnp.maximum(rounded(rounded(norm(u)[:, None] - 2 * product) + norm(v)[None]), 0)
