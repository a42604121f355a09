"""The distance of Gaussians that is rFID's."""

import numpy as np
import pytest
import scipy.linalg
from golden_data import load

from vqjax.evaluation.metrics import frechet_distance


def gaussian(x):
  x = np.asarray(x, np.float64)
  return x.mean(axis=0), np.cov(x, rowvar=False)


def features(count, width, seed):
  """Correlated, none of mean zero."""
  random = np.random.default_rng(seed)
  mixing = random.standard_normal((width, width)) / np.sqrt(width)
  return 0.3 + random.standard_normal((count, width)) @ mixing


def rotation(width):
  return np.linalg.qr(np.random.default_rng(width).standard_normal((width, width)))[0]


def trace_of(*gaussians):
  return sum(np.trace(covariance) for _, covariance in gaussians)


def test_as_many_dimensions_as_inception_has_and_300_images():
  data = load('metrics/frechet')
  a, b = (data[key] * data['in_step'] for key in ('in_a', 'in_b'))
  # In coordinates of the span of all 600, distances are the same and matrices a tenth of the size.
  both = np.concatenate([a, b])
  a, b = np.split(np.linalg.cholesky(both @ both.T), 2)
  got = frechet_distance(*gaussian(a), *gaussian(b))
  np.testing.assert_allclose(got, data['out_fd_svd'], rtol=1e-8)
  # pytorch-fid's own root of a singular matrix is off by as much.
  np.testing.assert_allclose(got, data['out_fd_scipy'], rtol=1e-6)


def test_small_goldens():
  data = load('metrics/frechet')
  a, b = gaussian(data['in_a_small']), gaussian(data['in_b_small'])
  np.testing.assert_allclose(frechet_distance(*a, *b), data['out_fd_small_scipy'], rtol=1e-8)
  variances = [np.diag(data[f'in_diag_var{i}']) for i in (1, 2)]
  got = frechet_distance(data['in_diag_mu1'], variances[0], data['in_diag_mu2'], variances[1])
  np.testing.assert_allclose(got, data['out_diag_fd'], rtol=1e-8)
  pairs = list(zip(data['in_2x2_sigma1'], data['in_2x2_sigma2'], strict=True))
  got = [frechet_distance(np.zeros(2), s, np.zeros(2), t) for s, t in pairs]
  np.testing.assert_allclose(got, data['out_2x2_fd'], rtol=1e-8)
  zero = np.zeros(24)
  got = frechet_distance(zero, data['in_comm_sigma1'], zero, data['in_comm_sigma2'])
  np.testing.assert_allclose(got, data['out_comm_fd'], rtol=1e-8)


def test_equals_the_formula_of_pytorch_fid_where_that_is_well_conditioned():
  a, b = gaussian(features(400, 16, 0)), gaussian(features(300, 16, 1))
  root = scipy.linalg.sqrtm(a[1] @ b[1]).real
  expected = np.sum((a[0] - b[0]) ** 2) + np.trace(a[1] + b[1] - 2 * root)
  np.testing.assert_allclose(frechet_distance(*a, *b), expected, rtol=1e-10)


@pytest.mark.parametrize(('n', 'm'), [(20, 15), (20, 200), (2, 2)])
def test_fewer_images_than_dimensions(n, m):
  x, y = features(n, 64, 0), features(m, 64, 1)
  a, b = gaussian(x), gaussian(y)
  # The exact value, from the features: X X^T has the eigenvalues of X^T X.
  product = (x - a[0]) @ (y - b[0]).T / np.sqrt((n - 1) * (m - 1))
  nuclear = np.linalg.svd(product, compute_uv=False).sum()
  expected = np.sum((a[0] - b[0]) ** 2) + trace_of(a, b) - 2 * nuclear
  got = frechet_distance(*a, *b)
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * trace_of(a, b))
  np.testing.assert_allclose(frechet_distance(*b, *a), got, rtol=1e-7)  # symmetric


def test_variances_from_one_to_nothing():
  # With common axes the distance is that of the standard deviations.
  first, second = np.logspace(0, -14, 48), np.logspace(-12, 0, 48)
  first[5] = second[9] = 0
  axes = rotation(48)
  a, b = ((axes * variances) @ axes.T for variances in (first, second))
  expected = np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
  got = frechet_distance(np.zeros(48), a, np.zeros(48), b)
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize('count', [10, 500])
def test_a_set_is_at_no_distance_from_itself(count):
  x = 100 * features(count, 64, 3)
  a, b = gaussian(x), gaussian(x[::-1])
  assert 0 <= frechet_distance(*a, *b) < 1e-6 * trace_of(a, b)
  assert frechet_distance(a[0] + 2, a[1], *b) == pytest.approx(4 * 64, abs=1e-6 * trace_of(a, b))


def test_nothing_varies():
  zero = np.zeros((3, 3))
  assert frechet_distance(np.ones(3), zero, np.zeros(3), zero) == 3
  assert frechet_distance(np.ones(3), np.eye(3), np.ones(3), zero) == 3
