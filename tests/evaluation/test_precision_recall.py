"""Precision and recall against their definition and against the reference."""

import tempfile

import numpy as np
import pytest
from golden_data import checkpoint

from vqjax.errors import UserError
from vqjax.evaluation.precision_recall import Rows, precision_and_recall, radii


def rows(features, batch=64):
  kept = Rows()
  for start in range(0, len(features), batch):
    kept.add(features[start : start + batch])
  return kept


def by_definition(samples, reference, k):
  """Loops over everything, in float64."""
  distance = lambda a, b: np.square(np.float64(a)[:, None] - np.float64(b)[None]).sum(axis=2)

  def radius(x):
    others = distance(x, x) + np.diag(np.full(len(x), np.inf))
    return np.sort(others, axis=1)[:, k - 1]

  between = distance(samples, reference)
  precise = (between <= radius(reference)[None]).any(axis=1)
  recalled = (between <= radius(samples)[:, None]).any(axis=0)
  return precise.mean(), recalled.mean()


@pytest.mark.parametrize('block', [7, 64, 4096])
def test_by_definition_in_blocks_of_any_size(block):
  rng = np.random.default_rng(0)
  samples, reference = rng.normal(size=(61, 5)), 0.7 * rng.normal(size=(50, 5)) + 0.5
  for k in (1, 3):
    found = precision_and_recall(rows(samples), rows(reference), neighbours=k, block=block)
    assert found == by_definition(samples, reference, k)
    assert 0.1 < min(found) < max(found) < 1


def test_what_is_alike_and_what_is_apart():
  x = np.random.default_rng(0).normal(size=(20, 4))
  assert precision_and_recall(rows(x), rows(x)) == (1, 1)
  assert precision_and_recall(rows(x), rows(x + 100)) == (0, 0)
  # All samples one real image: every one is real, and hardly anything is covered.
  one = np.repeat(x[:1], 10, axis=0)
  assert precision_and_recall(rows(one), rows(x)) == (1, 1 / 20)


@pytest.mark.parametrize('block', [100, 4096])
def test_equal_the_reference(block):
  _, data, sidecar = checkpoint('evaluator_a', 'generation')
  tolerance = {name: of['atol'] for name, of in sidecar['arrays'].items() if 'atol' in of}
  samples, reference = rows(data['sample_pool']), rows(data['ref_pool'])
  for name, of in (('ref', reference), ('sample', samples)):
    expected, atol = data[f'radii_{name}'], tolerance[f'radii_{name}']
    np.testing.assert_allclose(radii(of, block=block), expected, rtol=0, atol=atol)
  for name, float16 in (('pr_f32', False), ('pr_f16', True)):
    found = precision_and_recall(samples, reference, float16=float16, block=block)
    np.testing.assert_allclose(found, data[name], rtol=0, atol=tolerance[name])


def by_numpy_in_float16(u, v):
  """Squared distances [U V]; sums are added in float32."""
  norm = lambda x: np.square(x).astype(np.float32).sum(axis=1).astype(np.float16)
  u, v = u.astype(np.float16), v.astype(np.float16)
  product = (u.astype(np.float32) @ v.astype(np.float32).T).astype(np.float16)
  return np.maximum(norm(u)[:, None] - np.float16(2) * product + norm(v)[None], 0)


def test_float16_is_that_of_numpy_where_it_is_finite():
  u = np.abs(np.random.default_rng(0).normal(size=(40, 300))).astype(np.float32)
  found = radii(rows(u), float16=True)
  np.testing.assert_array_equal(found, np.sort(by_numpy_in_float16(u, u), axis=1)[:, 3])
  assert (found != radii(rows(u))).any()
  large = 100 * u  # whose norms are beyond 65,504
  np.testing.assert_array_equal(radii(rows(large), float16=True), radii(rows(large)))


@pytest.mark.parametrize(('unit', 'block'), [(1 / 16, 25), (1 / 32, 64)])
def test_float16_of_two_sets_is_rounded_in_the_evaluators_order(unit, block):
  """Of multiples of `unit`, whose sums are exact, where the other order gives another share."""
  draws = np.random.default_rng(124).normal(size=(2, 60, 64))
  samples, real = np.float32(np.round(draws / unit) * unit)
  of_samples, of_real = (np.sort(by_numpy_in_float16(x, x), axis=1)[:, 3] for x in (samples, real))

  def shares(distances):  # [reference, samples]
    precise = (distances <= of_real[:, None]).any(axis=0)
    recalled = (distances <= of_samples[None]).any(axis=1)
    return precise.mean(), recalled.mean()

  expected = shares(by_numpy_in_float16(real, samples))
  assert expected != shares(by_numpy_in_float16(samples, real).T)
  assert precision_and_recall(rows(samples), rows(real), float16=True, block=block) == expected


def test_too_few_rows_and_no_room(monkeypatch):
  x = np.zeros((3, 2))
  with pytest.raises(ValueError, match='3 samples and 4 of the reference; legal: more than 3 each'):
    precision_and_recall(rows(x), rows(np.zeros((4, 2))))

  class Full:
    close = print

    def seek(self, *_):
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(tempfile, 'TemporaryFile', Full)
  with pytest.raises(UserError, match=r'features in /.*: No space left.*; make room for 8'):
    rows(x)
