import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from golden_data import load
from scipy import ndimage
from skimage import filters
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqjax.evaluation import metrics
from vqjax.quantizers import code_counts, perplexity, usage

IMAGE_METRICS = ('psnr', 'psnr_luma', 'ssim', 'ssim_luma', 'l1', 'l2')
# One program for all of them.
measure = jax.jit(lambda x, y: {name: getattr(metrics, name)(x, y) for name in IMAGE_METRICS})


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


def scikit_image(x, y):
  """PSNR and SSIM of uint8 images."""
  gaussian = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False}
  pairs = list(zip(x, y, strict=True))
  return {
    'psnr': [peak_signal_noise_ratio(*pair, data_range=255) for pair in pairs],
    'ssim': [
      structural_similarity(*pair, data_range=255, channel_axis=-1, **gaussian) for pair in pairs
    ],
  }


def in_float64(x, y):
  """The other numbers of uint8 images, by their definitions."""
  d = x / 255 - y / 255
  luma = d @ (np.array([65.481, 128.553, 24.966]) / 255)
  # A division of integers is exact where it gives a half.
  x, y = (np.rint(z.astype(int) @ (299, 587, 114) / 1000) for z in (x, y))
  blur = lambda z: ndimage.gaussian_filter(z, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]
  mx, my = blur(x), blur(y)
  vx, vy, covariance = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
  c1, c2 = 2.55**2, 7.65**2
  structure = (2 * covariance + c2) / (vx + vy + c2)
  similarity = (2 * mx * my + c1) / (mx**2 + my**2 + c1) * np.maximum(structure, 0)
  return {
    'l1': np.abs(d).mean(axis=(1, 2, 3)),
    'l2': (d**2).mean(axis=(1, 2, 3)),
    'psnr_luma': -10 * np.log10((luma**2).mean(axis=(1, 2)) + 1e-8),
    'ssim_luma': similarity.mean(axis=(1, 2)),
  }


@pytest.mark.parametrize('distortion', DISTORTIONS)
def test_photographs_equal_scikit_image_and_float64(distortion):
  x = photographs()
  y = DISTORTIONS[distortion](x)
  got = measure(jnp.asarray(x), jnp.asarray(y))
  expected = scikit_image(x, y) | in_float64(x, y)
  assert set(got) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


def test_where_both_images_are_bright_and_flat():
  x = DISTORTIONS['bright and flat'](photographs())
  y = DISTORTIONS['one level'](x)
  got = measure(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(got['ssim'], scikit_image(x, y)['ssim'], atol=1e-5)
  np.testing.assert_allclose(got['ssim_luma'], in_float64(x, y)['ssim_luma'], atol=1e-5)


@pytest.mark.parametrize('size', ['32x32', '48x40', '64x64'])
def test_golden_pairs(size):
  data = load('metrics/images')
  got = measure(jnp.asarray(data[f'in_ref_{size}']), jnp.asarray(data[f'in_rec_{size}']))
  # scikit-image's are float64. pyiqa's (the luma) are float32, and 1e-3 is for halves, see there.
  for name, key, tolerance in (
    ('psnr', 'psnr_rgb', 1e-5),
    ('ssim', 'ssim_rgb_gauss', 1e-5),
    ('psnr_luma', 'psnr_y_optvq', 1e-3),
    ('ssim_luma', 'ssim_optvq', 1e-3),
    ('l1', 'l1', 1e-7),
    ('l2', 'mse', 1e-7),
  ):
    np.testing.assert_allclose(got[name], data[f'out_{key}_{size}'], atol=tolerance, err_msg=name)
  assert np.isposinf(got['psnr'][15])


def test_luma_of_bytes_is_rounded_half_to_even():
  colours = np.array([[0, 138, 171], [0, 170, 15]])
  assert [299 * r + 587 * g + 114 * b for r, g, b in colours] == [100_500, 101_500]
  image = lambda pixels: jnp.ones((2, 11, 11, 1), jnp.uint8) * jnp.asarray(pixels, jnp.uint8)
  colours = image(colours[:, None, None])
  greys = [image(np.reshape(levels, (2, 1, 1, 1))) for levels in ([100, 102], [101, 101])]
  similarity = jax.jit(metrics.ssim_luma)
  np.testing.assert_array_equal(similarity(colours, greys[0]), 1)
  assert (similarity(colours, greys[1]) < 1).all()


def test_identical_images():
  x = jnp.asarray(photographs())
  got = measure(x, x)
  assert np.isposinf(got['psnr']).all()
  np.testing.assert_allclose(got['psnr_luma'], 80, rtol=1e-6)
  assert [set(np.asarray(got[name])) for name in ('ssim', 'ssim_luma', 'l1', 'l2')] == [
    *[{1}, {1}, {0}, {0}]
  ]


def test_batches_and_ranges():
  x = photographs()
  y = DISTORTIONS['noise'](x)
  together = measure(jnp.asarray(x), jnp.asarray(y))
  alone = [measure(jnp.asarray(x[i : i + 1]), jnp.asarray(y[i : i + 1])) for i in range(3)]
  swapped = measure(jnp.asarray(y), jnp.asarray(x))
  unit = lambda x: jnp.asarray(x, jnp.float32) / 255
  floats = measure(unit(x), unit(y))
  for name, value in together.items():
    assert (value.shape, value.dtype) == ((3,), jnp.float32)
    assert len(set(value.tolist())) == 3
    np.testing.assert_allclose(value, [one[name][0] for one in alone], rtol=1e-6)
    np.testing.assert_allclose(swapped[name], value, rtol=1e-6)
    # In floats, luma that is a half is rounded up or down.
    np.testing.assert_allclose(floats[name], value, rtol=1e-4 if name == 'ssim_luma' else 1e-6)


def test_grey_images_are_their_own_luma():
  x = photographs()[..., :1]
  y = DISTORTIONS['noise'](x)
  got = measure(jnp.asarray(x), jnp.asarray(y))
  np.testing.assert_allclose(got['psnr_luma'], got['psnr'], atol=1e-4)
  of_colour = measure(*(jnp.asarray(np.repeat(z, 3, axis=-1)) for z in (x, y)))
  np.testing.assert_array_equal(got['ssim_luma'], of_colour['ssim_luma'])


def test_ssim_needs_room_for_its_window():
  assert metrics.ssim(*[jnp.zeros((1, 11, 11, 3))] * 2) == 1
  with pytest.raises(ValueError, match=r'at least 11 x 11 pixels; got \(16, 10\)'):
    metrics.ssim(*[jnp.zeros((1, 16, 10, 3))] * 2)


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
  # The same numbers, otherwise.
  np.testing.assert_allclose(
    2 ** metrics.token_entropy(total), data['out_perplexity_all'], rtol=1e-5
  )
  for tokens, window in (
    (data['in_indices'].reshape(-1, 8, 8), 4),
    (data['in_indices'].reshape(-1), 4 * 8 * 8),
  ):
    mean = metrics.windowed_usage(tokens, num_codes, window)
    np.testing.assert_allclose(mean, data['out_usage_mean_of_batches'], rtol=1e-12)


def test_token_entropy():
  assert metrics.token_entropy([5] * 8 + [0] * 8) == pytest.approx(3, rel=1e-15)
  assert metrics.token_entropy([3, 1]) == pytest.approx(2 - 0.75 * np.log2(3), rel=1e-15)
  assert metrics.token_entropy([7, 0]) == metrics.token_entropy([0, 0]) == 0


def test_windowed_usage():
  tokens = [0, 0, 0, 1, 2, 3, 0]
  assert metrics.windowed_usage(tokens, 4, 3) == (1 / 4 + 3 / 4) / 2  # the last 0 is left out
  assert metrics.windowed_usage(tokens, 4, 7) == 1
  assert metrics.windowed_usage([-1, 0, 4, 1], 4, 2) == 1 / 4  # -1 and 4 are no codes
  with pytest.raises(ValueError, match='window = 8: legal is 1 to 7, the number of rows'):
    metrics.windowed_usage(tokens, 4, 8)
