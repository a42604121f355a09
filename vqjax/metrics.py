"""Image quality, as pure functions of pixels; code statistics are in `vqjax.quantizers`."""

import jax
import jax.numpy as jnp
import numpy as np


def _unit_range(images):
  return images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images


def psnr(x, y):
  """Peak signal-to-noise ratio in dB over all pixels and RGB channels: `-10 log10 mean (x - y)^2`.

  Args:
    x: images [B H W C], uint8 or float in [0, 1].
    y: likewise.

  Returns:
    float32 [B]; infinite where the images are identical.
  """
  error = jnp.mean(jnp.square(_unit_range(x) - _unit_range(y)), axis=(1, 2, 3))
  return -10 * jnp.log10(error)


def ssim(x, y):
  """Structural similarity (Wang et al. 2004): Gaussian window, sigma 1.5, 11 taps, per channel.

  Population covariance, data range 1, K1 = 0.01, K2 = 0.03; the mean over positions whose window
  lies inside the image, then over channels. Equals scikit-image's `structural_similarity` with
  `gaussian_weights=True, use_sample_covariance=False`.

  Args:
    x: images [B H W C], uint8 or float in [0, 1]; at least 11 x 11.
    y: likewise.

  Returns:
    float32 [B] in [-1, 1].
  """
  if min(x.shape[1:3]) < 11:
    raise ValueError(f'ssim needs images of at least 11 x 11 pixels; got {x.shape[1:3]}.')
  x, y = _unit_range(x), _unit_range(y)
  taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
  taps = jnp.asarray(taps / taps.sum(), jnp.float32)

  def blur(images):
    for axis in (1, 2):
      size = images.shape[axis] - 10
      images = sum(
        tap * jax.lax.slice_in_dim(images, i, i + size, axis=axis) for i, tap in enumerate(taps)
      )
    return images

  # Around a common offset: E[x^2] - E[x]^2 cancels in float32 where the mean is large.
  offset = jnp.mean((x + y) / 2, axis=(1, 2), keepdims=True)
  x, y = x - offset, y - offset
  mean_x, mean_y = blur(x), blur(y)
  var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
  covariance = blur(x * y) - mean_x * mean_y
  mean_x, mean_y = mean_x + offset, mean_y + offset
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (var_x + var_y + c2)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))
