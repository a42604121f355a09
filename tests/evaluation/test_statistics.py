import re

import numpy as np
import pytest
from golden_data import load

from vqjax.errors import UserError
from vqjax.evaluation import statistics as feature_statistics
from vqjax.evaluation.statistics import FeatureStatistics, InceptionScore


def features(count=101, width=12):
  """Float32 whose means are up to a million times their deviations, which cancel in E[x^2]."""
  random = np.random.default_rng(0)
  x = random.standard_normal((count, width)) @ random.standard_normal((width, width))
  x += np.logspace(0, 6, width)
  x[:, 3] = 0.125  # never varies
  return x.astype(np.float32)


def probabilities(count=101, width=10):
  logits = 4 * np.random.default_rng(1).standard_normal((count, width))
  p = np.exp(logits)
  p[:, 2] = 0
  return p / p.sum(axis=1, keepdims=True)


def added(accumulator, rows, batch):
  for start in range(0, len(rows), batch):
    accumulator.add(rows[start : start + batch])
  return accumulator


def assert_same(statistics, x):
  x = x.astype(np.float64)
  assert statistics.count == len(x)
  np.testing.assert_allclose(statistics.mean, x.mean(axis=0), rtol=1e-12)
  expected = np.cov(x, rowvar=False)
  deviation = np.sqrt(np.diag(expected))
  allowed = 1e-9 * deviation[:, None] * deviation[None]
  assert (np.abs(statistics.covariance - expected) <= allowed).all()


@pytest.mark.parametrize('batch', [1, 7, 64, 1000])
def test_batches_and_order_do_not_matter(batch):
  x = features()
  shuffled = np.random.default_rng(batch).permutation(x)
  assert_same(added(FeatureStatistics(12), shuffled, batch), x)
  p = np.random.default_rng(batch).permutation(probabilities())
  expected = added(InceptionScore(10), probabilities(), 101).value
  np.testing.assert_allclose(added(InceptionScore(10), p, batch).value, expected, rtol=1e-12)


@pytest.mark.parametrize('count', [2, 9, 101])
def test_root_of_few_and_of_many(count):
  """Of few images their own rows; adding goes on after it, or the covariance, was asked for."""
  x = features(count)
  statistics = added(FeatureStatistics(12), x[:2], 1)
  assert statistics.covariance.shape == (12, 12)
  assert statistics.root.shape == (4, 12)  # deviations, and one row between the means of each batch
  added(statistics, x[2:], 4)
  assert_same(statistics, x)
  scale = np.sqrt(np.diag(statistics.covariance).max())
  difference = statistics.root.T @ statistics.root - statistics.covariance
  assert np.abs(difference).max() < 1e-9 * scale**2


def test_equals_the_reference():
  data = load('metrics/frechet')
  statistics = added(FeatureStatistics(64), data['in_a_small'], 96)
  np.testing.assert_allclose(statistics.mean, data['out_mu_a_small'], atol=1e-10)
  np.testing.assert_allclose(statistics.covariance, data['out_cov_a_small'], atol=1e-10)


@pytest.mark.parametrize('splits', [1, 5, 10])
def test_inception_score_equals_the_reference(splits):
  """Which has scores of several parts too: row i is in part `splits * i // N`."""
  data = load('metrics/inception_score')
  logits = data['in_logits'].astype(np.float64)
  p = np.exp(logits - logits.max(axis=1, keepdims=True))
  p = p / p.sum(axis=1, keepdims=True)
  cuts = [i * len(p) // splits for i in range(1, splits)]
  scores = [added(InceptionScore(p.shape[1]), part, 64).value for part in np.split(p, cuts)]
  np.testing.assert_allclose(np.mean(scores), data[f'out_is_mean_splits{splits}'], rtol=1e-9)
  np.testing.assert_allclose(np.std(scores), data[f'out_is_std_splits{splits}'], atol=1e-9)


@pytest.mark.parametrize('batch', [1, 7, 64, 1000])
@pytest.mark.parametrize('split', [25, 40, 101, 5000])
def test_inception_score_in_parts_of_so_many(split, batch):
  """The last may have fewer, and counts as the others; of one that is exactly full there is none.

  Each is the definition: exp of the mean of KL(p | mean p).
  """
  p = probabilities(100) + 1e-9
  p /= p.sum(axis=1, keepdims=True)
  kl = lambda part: (part * np.log(part / part.mean(axis=0))).sum(axis=1)
  expected = np.mean([np.exp(kl(p[i : i + split]).mean()) for i in range(0, len(p), split)])
  score = added(InceptionScore(10, split=split), p, batch)
  np.testing.assert_allclose(score.value, expected, rtol=1e-9)
  assert score.count == 100


def test_limits_of_the_inception_score():
  # Sure of a class, and all classes alike: K. Always the same answer: 1.
  np.testing.assert_allclose(added(InceptionScore(7), np.eye(7), 2).value, 7, rtol=1e-12)
  same = np.full((5, 4), 0.25)
  np.testing.assert_allclose(added(InceptionScore(4), same, 2).value, 1, rtol=1e-12)


def test_what_is_added_is_checked():
  statistics, score = FeatureStatistics(3), InceptionScore(3)
  with pytest.raises(ValueError, match=r'features are \[B 3\]; got \[2, 4\]'):
    statistics.add(np.ones((2, 4)))
  with pytest.raises(ValueError, match=r'probabilities are \[B 3\]; got \[3\]'):
    score.add(np.ones(3))
  rows = np.ones((5, 3))
  rows[1, 2], rows[4] = np.nan, np.inf
  with pytest.raises(UserError, match='the features of 2 of 5 images are not finite: look at'):
    statistics.add(rows)
  with pytest.raises(UserError, match='the probabilities of 2 of 5 images are not finite'):
    score.add(rows)
  assert statistics.count == score.count == 0
  with pytest.raises(UserError, match='a covariance needs at least 2 images, got 0'):
    statistics.covariance  # noqa: B018
  with pytest.raises(UserError, match='an Inception score needs at least 1 image, got 0'):
    score.value  # noqa: B018


def test_saved_and_loaded(tmp_path, monkeypatch):
  statistics = added(FeatureStatistics(12), features(), 20)
  statistics.save(tmp_path / 'photos.stats', 'ten photographs, weights sha256 ab')
  found = feature_statistics.load(tmp_path / 'photos.stats', width=12)
  np.testing.assert_array_equal(found.mean, statistics.mean)
  np.testing.assert_array_equal(found.covariance, statistics.covariance)
  assert found[2:] == (101, 'ten photographs, weights sha256 ab')
  assert [path.name for path in tmp_path.iterdir()] == ['photos.stats']
  monkeypatch.setenv('HOME', str(tmp_path))
  assert feature_statistics.load('~/photos.stats').count == 101
  with pytest.raises(UserError, match=r'cannot write .*none/x.npz: No such file .*; name a file'):
    statistics.save(tmp_path / 'none' / 'x.npz', '')


def test_files_of_others(tmp_path):
  mean, covariance = np.arange(3.0, dtype=np.float32), np.eye(3, dtype=np.float32)
  np.savez(tmp_path / 'pytorch_fid.npz', mu=mean, sigma=covariance)
  # ADM's, with images that fail when they are read.
  others = {'mu_s': np.ones(2), 'sigma_s': np.eye(2), 'arr_0': np.array([{}])}
  np.savez(tmp_path / 'adm.npz', mu=mean, sigma=covariance, **others)
  for name in ('pytorch_fid.npz', 'adm.npz'):
    found = feature_statistics.load(tmp_path / name)
    np.testing.assert_array_equal(found.mean, [0, 1, 2])
    np.testing.assert_array_equal(found.covariance, np.eye(3))
    assert found.mean.dtype == found.covariance.dtype == np.float64
    assert (found.count, found.provenance) == (None, '')
  spatial = feature_statistics.load(tmp_path / 'adm.npz', suffix='_s')
  np.testing.assert_array_equal(spatial.mean, [1, 1])
  np.testing.assert_array_equal(spatial.covariance, np.eye(2))
  with pytest.raises(UserError, match=r'fid.npz lacks mu_s and sigma_s \(it has mu, sigma\): give'):
    feature_statistics.load(tmp_path / 'pytorch_fid.npz', suffix='_s')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'mu': None}, 'FILE lacks mu (it has sigma): give statistics that vqjax, pytorch-fid or'),
    ({'mu': None, 'sigma': None, 'arr_0': 1}, 'FILE lacks mu and sigma (it has arr_0): give'),
    ({'mu': np.ones((1, 3))}, 'FILE has mu [1, 3] and sigma [3, 3], legal are [D] and [D D]: give'),
    ({'sigma': np.eye(4)}, 'FILE has mu [3] and sigma [4, 4], legal are [D] and [D D]: give'),
    (
      {'mu': np.ones(5), 'sigma': np.eye(5)},
      'FILE has mu [5] and sigma [5, 5], of another network than this one of 3 features: give',
    ),
    ({'mu': np.array([1, np.nan, 2])}, 'FILE has a mu that is not of finite real numbers: give'),
    (
      {'sigma': np.full((3, 3), np.inf)},
      'FILE has a sigma that is not of finite real numbers: give',
    ),
    ({'mu': np.array(['a', 'b', 'c'])}, 'FILE has a mu that is not of finite real numbers: give'),
    ({'sigma': np.tri(3)}, 'FILE has a sigma that is not symmetric (off by 1), so no covariance:'),
    ({'mu': np.array([{}] * 3)}, 'FILE is no .npz of numbers, or damaged: give statistics'),
  ],
  ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_what_is_wrong_with_a_file(tmp_path, change, message):
  path = tmp_path / 'x.npz'
  arrays = {'mu': np.zeros(3), 'sigma': np.eye(3)} | change
  np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
  with pytest.raises(UserError, match=re.escape(message.replace('FILE', str(path)))):
    feature_statistics.load(path, width=3)


def test_no_npz_at_all(tmp_path):
  whole, path = tmp_path / 'whole.npz', tmp_path / 'x.npz'
  np.savez(whole, mu=np.zeros(3), sigma=np.eye(3))
  content = whole.read_bytes()
  for damaged in (
    b'',
    b'not a zip',
    content[: len(content) // 2],
    content.replace(b'\xf0?', b'ab'),
  ):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r'x.npz is no .npz of numbers, or damaged: give'):
      feature_statistics.load(path)
  np.save(tmp_path / 'x.npy', np.zeros(3))
  with pytest.raises(UserError, match=r'x.npy is a single array and no .npz of mu and sigma: give'):
    feature_statistics.load(tmp_path / 'x.npy')
  with pytest.raises(UserError, match=r'cannot read .*none.npz: No such file or directory; give'):
    feature_statistics.load(tmp_path / 'none.npz')
