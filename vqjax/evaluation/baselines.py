"""What others reach at the rate of a run, on the same images: JPEG, WebP, k-means on patches.

All give 8-bit images, and are scored by what scores the run.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vqjax import data as datasets
from vqjax.errors import UserError
from vqjax.evaluation import codecs, patches, scoring
from vqjax.evaluation.codecs import Codec
from vqjax.evaluation.results import Baseline
from vqjax.evaluation.totals import Subset

MOST_IMAGES = 500  # of a larger set, evenly spread: codecs take a third of a second each
NUMBERS = ('psnr', 'ssim', 'lpips')
_BATCH = 2**20  # pixels scored at a time

# Images uint8 [N H W 3] and names in NUMBERS -> means over images.
_Scores = Callable[..., dict[str, float]]


def measure(
  subset: Subset,
  rate: float,
  training: ConfigDict,
  network_params: Mapping[str, Any],
  *,
  quick: bool = False,
) -> dict[str, Baseline]:
  """'run', and beside it 'jpeg', 'webp', 'kmeans_patches' and 'mean_color' on the same images.

  Args:
    subset: the images, and the numbers of the run on them.
    rate: of the run, bits a pixel; what is beside it takes no more.
    training: section `data` of a config, whose training images patches are fitted to, cut as for
      evaluation.
    network_params: as `scoring.load_network_params` gives them, or a part of it.
    quick: without k-means.
  """
  images = subset.images
  scores = functools.partial(_scores, network_params, images)
  found, _ = subset.numbers()
  own = {'bits_per_pixel': rate} | {name: found[name] for name in NUMBERS if name in found}
  run = Baseline(
    'this run', 'tokens of equal length, without entropy coding', len(images), numbers=own
  )
  return {
    'run': run,
    'jpeg': _codec(codecs.JPEG, images, rate, scores),
    'webp': _codec(codecs.WEBP, images, rate, scores),
    'kmeans_patches': _patches(images, rate, training, scores, quick),
    'mean_color': _mean_color(images, scores),
  }


def _codec(codec: Codec, images: np.ndarray, rate: float, scores: _Scores) -> Baseline:
  """One quality for the whole set, the best whose mean rate is at most the run's."""
  tried: dict[int, tuple[float, float]] = {}

  def bits(quality: int) -> float:
    if quality not in tried:
      rate, pixels = codecs.coded(codec, images, quality)
      tried[quality] = rate, scores(pixels, ('psnr',))['psnr']
    return tried[quality][0]

  # It tries about seven, most of them near the run's rate; a few others make a curve of them.
  place = bisect.bisect_right(codec.qualities, rate, key=bits)
  for other in (place // 8, place // 4, place // 2, (place + len(codec.qualities)) // 2):
    bits(codec.qualities[min(other, len(codec.qualities) - 1)])
  curve = tuple(sorted(point for point in tried.values() if math.isfinite(point[1])))
  protocol = f'{codec.protocol}; one quality for all images, the best within the rate of the run'
  baseline = Baseline(codec.label, protocol, len(images), curve=curve)
  if place == 0:
    lowest = codec.qualities[0]
    reason = f'needs {tried[lowest][0]:.4g} bits a pixel at its lowest quality, {lowest}; the run'
    return dataclasses.replace(baseline, reason=f'{reason} has {rate:.4g}')
  quality = codec.qualities[place - 1]
  rate, pixels = codecs.coded(codec, images, quality)
  numbers = {'bits_per_pixel': rate, **scores(pixels)}
  return dataclasses.replace(baseline, setting=f'quality {quality}', numbers=numbers)


def _patches(
  images: np.ndarray, rate: float, training: ConfigDict, scores: _Scores, quick: bool
) -> Baseline:
  """The largest patches that the rate allows, see `patches.choose`."""
  protocol = (
    'every patch of RGB pixels becomes the nearest of K, found by k-means++ and '
    f'{patches.ITERATIONS} iterations of Lloyd'
  )
  baseline = Baseline('k-means on patches', protocol, len(images))
  missing = lambda reason: dataclasses.replace(baseline, reason=reason)
  if quick:
    return missing('left out by --quick')
  if training.source == 'folder' and not training.path:  # a converted checkpoint
    return missing('the run has no training images of its own, which codes are fitted to')
  try:
    source = datasets.make_source(training, 'train')
    size = training.image_size
    chosen = patches.choose(rate, size, len(source))
    if chosen is None:
      return missing(
        f'at {rate:.4g} bits a pixel no patch whose side divides {size} has 2 to '
        f'{patches.MOST_CODES:,} codes, with {patches.PATCHES_A_CODE} training patches or more each'
      )
    side, num_codes = chosen
    rows = patches.training_patches(source, training, side)
  except UserError as error:
    return missing(f"the run's training images cannot be read: {error}")
  codes = patches.fit(rows, num_codes)
  return dataclasses.replace(
    baseline,
    protocol=f'{protocol} on {len(rows):,} patches of {source.description}',
    setting=f'{side}x{side} pixels, {num_codes:,} codes',
    numbers={
      'bits_per_pixel': math.log2(num_codes) / side**2,
      **scores(patches.quantized(images, codes, side)),
    },
  )


def _mean_color(images: np.ndarray, scores: _Scores) -> Baseline:
  pixels = math.prod(images.shape[1:3])
  numbers = {
    'bits_per_pixel': 24 / pixels,
    **scores(np.asarray(jax.jit(scoring.mean_color)(images))),
  }
  return Baseline('mean colour', 'one colour an image, 24 bits', len(images), numbers=numbers)


def _scores(
  network_params: Mapping[str, Any],
  originals: np.ndarray,
  images: np.ndarray,
  numbers: tuple[str, ...] = NUMBERS,
) -> dict[str, float]:
  """Means over images of what can be computed of `numbers`."""
  count, height, width, _ = images.shape
  size = min(max(_BATCH // (height * width), 1), count)
  sums = dict.fromkeys(numbers, 0.0)
  for start in range(0, count, size):
    first = min(start, count - size)  # the last batch is as large: no program more
    pairs = (x[first : first + size] for x in (originals, images))
    found = _score(network_params, *pairs, numbers)
    for name, values in found.items():
      sums[name] += np.asarray(values[start - first :], np.float64).sum()
  return {name: float(sums[name] / count) for name in found}


@functools.partial(jax.jit, static_argnames='numbers')
def _score(network_params, x, y, numbers):
  return scoring.score(network_params, x, y, numbers)[0]
