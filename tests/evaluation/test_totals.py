"""What is added up over batches, on made-up ones."""

import functools

import jax
import numpy as np
import pytest
import scipy.special
from fake_evaluation import Batches

from vqjax import quantizers
from vqjax.errors import UserError
from vqjax.evaluation import metrics, totals
from vqjax.evaluation.collect import EXTREMES, collect
from vqjax.evaluation.statistics import FeatureStatistics

K = 16


def inception_score(p):
  """The definition, of all rows at once: exp of the mean divergence from their mean."""
  p = np.asarray(p, np.float64)
  return np.exp(scipy.special.rel_entr(p, p.mean(axis=0)[None]).sum(axis=1).mean())


def made_up(count, width=6, seed=0):
  """What a step finds on `count` images, each its own batch position."""
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, 2, 2, 3), np.uint8)
  p = rng.dirichlet(np.ones(5), count).astype(np.float32)
  return {
    'mask': np.ones(count, bool),
    'values': {'psnr': rng.uniform(10, 30, count).astype(np.float32)},
    'tokens': rng.integers(0, K, (count, 4), np.int32),
    'images': (images, 255 - images),
    'features': rng.normal(3, 1, (2, count, width)).astype(np.float32),
    'probabilities': p,
  }


def rows(found, chosen):
  """The part of `made_up` at these rows."""
  pick = lambda key, x: x[:, chosen] if key == 'features' else x[chosen]
  return {key: jax.tree.map(functools.partial(pick, key), value) for key, value in found.items()}


def evaluate(*parts, **options):
  return collect(lambda found: found, Batches(*parts), num_codes=K, **options)


@pytest.mark.parametrize('size', [1, 7, 40])
def test_sums_are_those_of_the_whole(size, monkeypatch):
  small = {'usage_65536_tokens': (24, 'tokens'), 'usage_256_images': (10, 'images')}
  monkeypatch.setattr(totals, 'WINDOWS', small)
  whole = made_up(40)
  found = evaluate(*(rows(whole, slice(i, i + size)) for i in range(0, 40, size)))
  got, tokens = found.metrics, whole['tokens']
  counts = np.bincount(tokens.reshape(-1), minlength=K)
  np.testing.assert_array_equal(found.code_counts, counts)
  expected = {
    'psnr': whole['values']['psnr'].mean(dtype=np.float64),
    'usage': np.mean(counts > 0),
    'usage_65536_tokens': metrics.windowed_usage(tokens.reshape(-1), K, 24),
    'usage_256_images': metrics.windowed_usage(tokens, K, 10),
    'perplexity': quantizers.perplexity(np.float32(counts)),
    'token_entropy': metrics.token_entropy(counts),
    'bits_per_pixel': 4 * 4 / 4,
    'rfid': metrics.frechet_distance(
      *(f(x) for x in whole['features'] for f in (lambda x: x.mean(0), lambda x: np.cov(x.T)))
    ),
    'inception_score': inception_score(whole['probabilities']),
    'num_images': 40,
  }
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, rtol=2e-6, err_msg=name)
  assert not found.missing


def test_best_worst_and_samples_are_the_right_ones():
  whole = made_up(40)
  whole['mask'][[3, 20]] = False
  parts = [rows(whole, slice(i, i + 8)) for i in range(0, 40, 8)]
  found = evaluate(*parts, samples={0, 3, 39})
  order = [i for i in np.argsort(whole['values']['psnr']) if whole['mask'][i]]
  np.testing.assert_array_equal(found.worst.positions, order[:EXTREMES])
  np.testing.assert_array_equal(found.best.positions, order[::-1][:EXTREMES])
  np.testing.assert_array_equal(found.samples.positions, [0, 39])
  for kept in (found.samples, found.best, found.worst):
    np.testing.assert_array_equal(kept.originals, whole['images'][0][kept.positions])
    np.testing.assert_array_equal(kept.reconstructions, whole['images'][1][kept.positions])
    np.testing.assert_allclose(kept.psnr, whole['values']['psnr'][kept.positions])


@pytest.mark.parametrize('size', [1, 7, 40])
def test_a_subset_is_what_it_would_be_alone(size):
  whole = made_up(40)
  whole['mask'][[3, 20]] = False
  subset = totals.Subset({0, 3, 14, 39})
  evaluate(*(rows(whole, slice(i, i + size)) for i in range(0, 40, size)), subset=subset)
  chosen = [0, 14, 39]
  np.testing.assert_array_equal(subset.images, whole['images'][0][chosen])
  numbers, missing = subset.numbers()
  expected = whole['values']['psnr'][chosen].mean(dtype=np.float64)
  assert numbers == {'psnr': pytest.approx(expected, rel=1e-6), 'num_images': 3}
  assert not missing


def test_what_cannot_be_known_says_what_it_needs():
  found = evaluate(made_up(1))
  assert found.missing == {
    'usage_65536_tokens': 'needs 65,536 tokens or more',
    'usage_256_images': 'needs 256 images or more',
    'rfid': 'needs 2 images or more',
  }
  assert all(found.metrics[name] is None for name in found.missing)


def test_few_images_for_a_covariance_are_warned_of(caplog):
  evaluate(made_up(6))
  assert 'rfid of 6 images is far above' in caplog.text
  caplog.clear()
  evaluate(made_up(7))
  assert not caplog.records


def test_a_reference_takes_the_place_of_the_originals():
  whole = made_up(40)
  other = FeatureStatistics(6)
  other.add(whole['features'][1])
  assert evaluate(whole, reference=other).metrics['rfid'] < 1e-9
  assert evaluate(whole).metrics['rfid'] > 0.01


def test_no_image_or_a_broken_one_is_an_error_and_data_are_closed():
  whole = made_up(8)
  batches = Batches(whole)
  whole['features'][1, 3] = np.nan
  with pytest.raises(UserError, match=r'features of 1 of 8 images are not finite'):
    collect(lambda found: found, batches, num_codes=K)
  assert batches.closed
  whole = made_up(8)
  whole['mask'][:] = False
  with pytest.raises(UserError, match='no image could be read'):
    evaluate(whole)


def test_a_number_without_a_row_in_the_table_is_an_error():
  whole = made_up(4)
  whole['values']['sharpness'] = whole['values']['psnr']
  with pytest.raises(ValueError, match=r'sharpness: evaluation/table\.py has no such row by Means'):
    evaluate(whole)
