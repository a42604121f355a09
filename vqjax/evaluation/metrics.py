"""Numbers of a tokenizer: pixels (JAX), tokens and distributions (NumPy, float64).

Perplexity and usage of a whole split are in `vqjax.quantizers`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its parts are imported where they are first used
from numpy.typing import ArrayLike

Images = jax.Array | np.ndarray  # [B H W C], uint8 or float in [0, 1]

SSIM_WINDOW = 11  # pixels


def _levels(images):
  """0 to 255 in float32: bytes as they are, so that their differences are exact; [0, 1] scaled."""
  levels = images.astype(jnp.float32)
  return levels if images.dtype == jnp.uint8 else levels * 255


def _mean(pixels):
  """[B H W C] -> [B]; by rows, as a long float32 sum would round in the fifth decimal of a PSNR."""
  return jnp.mean(jnp.mean(pixels, axis=(2, 3)), axis=1)


def l1(x: Images, y: Images) -> jax.Array:
  """Mean absolute error over all pixels and channels, `mean |x - y|`.

  Args:
    x: images [B H W C], uint8 or float in [0, 1].
    y: likewise.

  Returns:
    float32 [B] in [0, 1].
  """
  return _mean(jnp.abs(_levels(x) - _levels(y))) / 255


def l2(x: Images, y: Images) -> jax.Array:
  """Mean squared error over all pixels and channels, `mean (x - y)^2`; as `l1`."""
  return _mean(jnp.square(_levels(x) - _levels(y))) / 255**2


def psnr(x: Images, y: Images) -> jax.Array:
  """Peak signal-to-noise ratio in dB over all pixels and RGB channels: `-10 log10 mean (x - y)^2`.

  Args:
    x: images [B H W C], uint8 or float in [0, 1].
    y: likewise.

  Returns:
    float32 [B]; infinite where the images are identical.
  """
  return -10 * jnp.log10(l2(x, y))


def psnr_luma(x: Images, y: Images) -> jax.Array:
  """PSNR in dB of the luma, as in OptVQ's tables: `-10 log10(mean (x' - y')^2 + 1e-8)`.

  `x' = (65.481 R + 128.553 G + 24.966 B + 16) / 255`: BT.601, studio swing. As it spans 219/255 of
  the range, this is 1.3 dB above PSNR of full-range luma, itself above that of RGB: do not compare
  it with `psnr`. Source: OptVQ's evaluation, which calls pyiqa's `psnr` with `test_y_channel`.

  Args:
    x: images [B H W 3], uint8 or float in [0, 1]; of one channel, that as it is.
    y: likewise.

  Returns:
    float32 [B], at most 80.
  """
  difference = (_levels(x) - _levels(y)) / 255
  if x.shape[-1] == 3:
    weights = _weights(65.481, 128.553, 24.966)
    difference = jnp.sum(difference * weights, axis=-1, keepdims=True) / 255
  return -10 * jnp.log10(_mean(jnp.square(difference)) + 1e-8)


def _weights(*of_channels):
  return jnp.asarray(of_channels, jnp.float32)[None, None, None]


def ssim(x: Images, y: Images) -> jax.Array:
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
  luminance, structure = _similarities(_levels(x), _levels(y))
  return jnp.mean(luminance * structure, axis=(1, 2, 3))


def ssim_luma(x: Images, y: Images) -> jax.Array:
  """Structural similarity of the rounded luma, as in OptVQ's tables.

  As `ssim`, of `.299 R + .587 G + .114 B` in levels of 0 to 255, rounded, half to even; negative
  contrast-structure counts as 0. uint8 is rounded exactly, where pyiqa's float32 falls to
  either side of a half, at one pixel in a thousand. Source: OptVQ's evaluation, which calls pyiqa's
  `ssim` with `test_y_channel`.

  Args:
    x: images [B H W 3], uint8 or float in [0, 1], at least 11 x 11; of one channel, that alone.
    y: likewise.

  Returns:
    float32 [B] in [0, 1].
  """
  luminance, structure = _similarities(_luma_levels(x), _luma_levels(y))
  return jnp.mean(luminance * jnp.maximum(structure, 0), axis=(1, 2, 3))


def _luma_levels(images):
  if images.shape[-1] == 1:
    return jnp.round(_levels(images))
  if images.dtype != jnp.uint8:
    luma = jnp.sum(_levels(images) * _weights(0.299, 0.587, 0.114), axis=-1, keepdims=True)
    return jnp.round(luma)
  weights = jnp.asarray((299, 587, 114), jnp.int32)[None, None, None]
  thousandths = jnp.sum(images.astype(jnp.int32) * weights, axis=-1, keepdims=True)
  level, rest = thousandths // 1000, thousandths % 1000
  up = (rest > 500) | ((rest == 500) & (level % 2 == 1))
  return jnp.where(up, level + 1, level).astype(jnp.float32)


def _similarities(x, y):
  """Luminance and contrast-structure of SSIM at every window, of levels.

  With s = x + y, d = x - y and either moment m, the mean squared or the variance, both are
  `(m(s) - m(d) + 2c) / (m(s) + m(d) + 2c)`: the error of m(s), a difference of large numbers where
  a bright image is flat, drops out as far as x and y agree.
  """
  if min(x.shape[1:3]) < SSIM_WINDOW:
    raise ValueError(f'ssim needs images of at least 11 x 11 pixels; got {x.shape[1:3]}.')
  z = jnp.concatenate([x + y, x - y], axis=-1)
  # Around a common offset: E[z^2] - E[z]^2 cancels in float32 where the mean is large.
  offset = jnp.round(jnp.mean(z, axis=(1, 2), keepdims=True))
  z = z - offset
  mean, square = jnp.split(_blur(jnp.concatenate([z, z * z], axis=-1)), 2, axis=-1)
  variance = square - mean**2

  def ratio(moment, c):
    of_sum, of_difference = jnp.split(moment, 2, axis=-1)
    return (of_sum - of_difference + 2 * c) / (of_sum + of_difference + 2 * c)

  return ratio((mean + offset) ** 2, (0.01 * 255) ** 2), ratio(variance, (0.03 * 255) ** 2)


def _blur(images):
  """The window's means, as products with its banded matrices: 11 shifts each compile far longer."""
  bell = np.exp(-0.5 * ((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / 1.5) ** 2)
  bands = []
  for size in images.shape[1:3]:
    starts = np.arange(size - SSIM_WINDOW + 1)
    band = np.zeros((size, len(starts)))
    band[starts[:, None] + np.arange(SSIM_WINDOW)[None], starts[:, None]] = bell / bell.sum()
    bands.append(jnp.asarray(band, jnp.float32))
  return jnp.einsum('bhwc,hi,wj->bijc', images, *bands, precision=jax.lax.Precision.HIGHEST)


def token_entropy(counts: ArrayLike) -> float:
  """Entropy of a token in bits, `-sum p log2 p` with `p = counts / sum`: [K] -> float.

  The bits that an ideal code of single tokens would spend; at most log2 K, and log2 of the
  perplexity. All-zero counts give 0.
  """
  counts = np.asarray(counts, np.float64)
  return float(scipy.special.entr(counts / max(counts.sum(), 1)).sum() / np.log(2))


def windowed_usage(tokens: ArrayLike, num_codes: int, window: int) -> float:
  """Mean over windows of the fraction of codes that occur in one: int [N ...] -> float in [0, 1].

  A window is `window` consecutive rows of the first axis: images of [B H W], tokens of [N]. The
  larger it is, the larger is the usage, up to `quantizers.usage` of the whole split; LlamaGen takes
  65,536 tokens, the rotation trick's authors 256 images. Rows after the last full window are left
  out, and so are tokens outside [0, K), as in `quantizers.code_counts`.

  Raises:
    ValueError: there is no full window.
  """
  tokens = np.asarray(tokens)
  if not 1 <= window <= len(tokens):
    raise ValueError(f'window = {window}: legal is 1 to {len(tokens)}, the number of rows.')
  fractions = []
  for start in range(0, len(tokens) - window + 1, window):
    found = np.unique(tokens[start : start + window])
    fractions.append(np.count_nonzero((found >= 0) & (found < num_codes)) / num_codes)
  return float(np.mean(fractions))


def frechet_distance(
  mean1: ArrayLike, covariance1: ArrayLike, mean2: ArrayLike, covariance2: ArrayLike
) -> float:
  """Squared Frechet distance of two Gaussians: `|m1 - m2|^2 + tr(S1 + S2) - 2 tr (S1 S2)^(1/2)`.

  Of Inception features this is FID (Heusel et al. 2017, equation 6). The last trace is the nuclear
  norm of `S1^(1/2) S2^(1/2)`, whose factors exist for every covariance: with fewer images than
  dimensions the `sqrtm(S1 S2)` of pytorch-fid and clean-fid is inexact, or fails until they add an
  offset to both diagonals, and nothing is added here.

  Args:
    mean1: [D].
    covariance1: [D D], symmetric, of any rank.
    mean2: [D].
    covariance2: [D D].

  Returns:
    float, at least 0.
  """
  return frechet_distance_of_roots(mean1, root(covariance1), mean2, root(covariance2))


def frechet_distance_of_roots(
  mean1: ArrayLike, root1: ArrayLike, mean2: ArrayLike, root2: ArrayLike
) -> float:
  """`frechet_distance` of covariances `root^T root`; takes as long as the roots have few rows.

  Args:
    mean1: [D].
    root1: [R D], any that the product holds for: rotations leave singular values alone.
    mean2: [D].
    root2: [R' D].

  Returns:
    float, at least 0.
  """
  shift = np.asarray(mean1, np.float64) - np.asarray(mean2, np.float64)
  root1, root2 = np.asarray(root1, np.float64), np.asarray(root2, np.float64)
  root_trace = np.linalg.svd(root1 @ root2.T, compute_uv=False).sum()
  traces = np.square(root1).sum() + np.square(root2).sum()
  return max(float(shift @ shift + traces - 2 * root_trace), 0.0)


def root(covariance: ArrayLike) -> np.ndarray:
  """R with `R^T R = covariance`, without what is rounding: [D D] -> float64 [rank D]."""
  values, axes = np.linalg.eigh(np.asarray(covariance, np.float64))
  there = values > values.max(initial=0) * len(values) * np.finfo(np.float64).eps
  return np.sqrt(values[there])[:, None] * axes[:, there].T
