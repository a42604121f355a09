import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from golden_data import load
from skimage import filters
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqjax import metrics
from vqjax.quantizers import code_counts, perplexity, usage

psnr, ssim = jax.jit(metrics.psnr), jax.jit(metrics.ssim)


def photographs():
  """Three crops of different brightness: uint8 [3 96 128 3]."""
  crops = (
    skimage.data.astronaut()[60:156, 180:308],
    skimage.data.coffee()[100:196, 200:328],
    skimage.data.rocket()[20:116, 10:138],
  )
  return np.stack(crops)


def to_bytes(x):
  return np.clip(np.round(x), 0, 255).astype(np.uint8)


# uint8 [N H W 3] -> the same, distorted.
DISTORTIONS = {
  'noise': lambda x: to_bytes(x + np.random.default_rng(0).normal(0, 20, x.shape)),
  'one level': lambda x: x ^ 1,
  'blur': lambda x: to_bytes(255 * filters.gaussian(x / 255, (0, 2, 2, 0))),
  'brighter': lambda x: to_bytes(x + 60.0),
  # A large mean over hardly any variance, where E[x^2] - E[x]^2 cancels.
  'bright and flat': lambda x: to_bytes(245 + x / 64),
  'negative': lambda x: 255 - x,
}


@pytest.mark.parametrize('distortion', DISTORTIONS)
def test_psnr_and_ssim_equal_scikit_image(distortion):
  x = photographs()
  y = DISTORTIONS[distortion](x)
  options = {
    'data_range': 255,
    'channel_axis': -1,
    'gaussian_weights': True,
    'sigma': 1.5,
    'use_sample_covariance': False,
  }
  expected_psnr = [
    peak_signal_noise_ratio(*pair, data_range=255) for pair in zip(x, y, strict=True)
  ]
  expected_ssim = [structural_similarity(*pair, **options) for pair in zip(x, y, strict=True)]
  x, y = jnp.asarray(x), jnp.asarray(y)
  np.testing.assert_allclose(psnr(x, y), expected_psnr, atol=1e-3)
  np.testing.assert_allclose(ssim(x, y), expected_ssim, atol=1e-5)


def test_ssim_where_both_images_are_bright_and_flat():
  x = DISTORTIONS['bright and flat'](photographs())
  y = DISTORTIONS['one level'](x)
  expected = [
    structural_similarity(
      *pair, data_range=255, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
    )
    for pair in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(ssim(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-5)


def test_golden_pairs():
  data = load('metrics/images_small')
  x, y = jnp.asarray(data['in_ref_32x32']), jnp.asarray(data['in_rec_32x32'])
  np.testing.assert_allclose(psnr(x, y), data['out_psnr_rgb_32x32'], atol=1e-3)
  np.testing.assert_allclose(ssim(x, y), data['out_ssim_rgb_gauss_32x32'], atol=1e-5)


def test_identical_images():
  x = jnp.asarray(photographs())
  assert jnp.isposinf(psnr(x, x)).all()
  np.testing.assert_allclose(ssim(x, x), 1, atol=1e-6)


@pytest.mark.parametrize('metric', [psnr, ssim], ids=['psnr', 'ssim'])
def test_batches_and_ranges(metric):
  x = photographs()
  y = DISTORTIONS['noise'](x)
  together = metric(jnp.asarray(x), jnp.asarray(y))
  assert together.shape == (3,)
  assert together.dtype == jnp.float32
  assert len(set(together.tolist())) == 3
  alone = [metric(jnp.asarray(x[i : i + 1]), jnp.asarray(y[i : i + 1]))[0] for i in range(3)]
  np.testing.assert_allclose(together, alone, rtol=1e-6)
  np.testing.assert_allclose(metric(jnp.asarray(y), jnp.asarray(x)), together, rtol=1e-6)

  unit = lambda x: jnp.asarray(x, jnp.float32) / 255
  np.testing.assert_allclose(metric(unit(x), unit(y)), together, rtol=1e-6)


def test_ssim_needs_room_for_its_window():
  assert ssim(*[jnp.zeros((1, 11, 11, 3))] * 2) == 1
  with pytest.raises(ValueError, match=r'at least 11 x 11 pixels; got \(16, 10\)'):
    ssim(*[jnp.zeros((1, 16, 10, 3))] * 2)


def test_code_statistics_equal_the_reference():
  data = load('metrics/codebook_stats')
  num_codes = int(data['in_K'])
  batches = [jnp.asarray(i.reshape(-1), jnp.int32) for i in data['in_indices']]
  counts = [code_counts(batch, num_codes) for batch in batches]
  np.testing.assert_allclose(
    [perplexity(c) for c in counts], data['out_perplexity_per_batch'], rtol=1e-5
  )
  np.testing.assert_array_equal([usage(c) * num_codes for c in counts], data['out_used_per_batch'])
  np.testing.assert_allclose(
    np.mean([usage(c) for c in counts]), data['out_usage_mean_of_batches'], rtol=1e-6
  )
  # Counts of batches add up to those of all.
  total = sum(counts)
  np.testing.assert_array_equal(total, data['out_histogram'])
  np.testing.assert_allclose(perplexity(total), data['out_perplexity_all'], rtol=1e-5)
  np.testing.assert_allclose(usage(total), data['out_usage_all'], rtol=1e-6)
