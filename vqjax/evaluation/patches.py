"""Block vector quantization: k-means on patches of pixels, a tokenizer without a network.

Gersho and Gray, Vector Quantization and Signal Compression (1992), has the method; it is from about
1980 (Linde, Buzo and Gray). Patches do not overlap; one of side p becomes one of K codes, which are
patches too, at log2(K) / p^2 bits a pixel.
"""

import contextlib
import hashlib
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from vqjax import data as datasets
from vqjax.cache_folder import cache_folder
from vqjax.errors import UserError
from vqjax.evaluation.collect import spread
from vqjax.networks.layers import depth_to_space, space_to_depth
from vqjax.quantizers import kmeans_plus_plus, lloyd, nearest_code
from vqjax.whole_files import replacing

log = logging.getLogger('vqjax')

# Bounds, so that the fit takes seconds: of codes, images and patches, of numbers in these patches,
# and of the codes times the patches that they are drawn from.
MOST_CODES = 4096
MOST_IMAGES = 2_000
MOST_PATCHES = 100_000
_MOST_NUMBERS = 2**24
_MOST_DRAWS = 2**26
PATCHES_A_CODE = 10  # at least: codes of fewer are the patches themselves
ITERATIONS = 20  # beyond, the error of the fitted patches falls by less than 1%
_FIT = 1  # counted up when `fit` makes something else of the same patches
_BATCH = 2**16  # patches whose codes are searched at a time


def cut(images: np.ndarray, side: int) -> np.ndarray:
  """Images [N H W 3] to the rows of their patches [N (H/side) (W/side), 3 side^2]."""
  return space_to_depth(images, side).reshape(-1, side * side * images.shape[-1])


def join(rows: np.ndarray, shape: tuple[int, ...], side: int) -> np.ndarray:
  """The inverse of `cut`: images of `shape`, [N H W 3]."""
  count, height, width, _ = shape
  return depth_to_space(rows.reshape(count, height // side, width // side, -1), side)


def num_patches(side: int, image_size: int, num_images: int) -> int:
  """How many patches codes are fitted to."""
  there = min(num_images, MOST_IMAGES) * (image_size // side) ** 2
  return min(there, MOST_PATCHES, _MOST_NUMBERS // (3 * side**2))


def choose(rate: float, image_size: int, num_images: int) -> tuple[int, int] | None:
  """The largest patches that a rate allows: (side, K), or None.

  `K = floor(2^(rate side^2))`, at least 2, at most 4096 and at most a tenth of `num_patches`; the
  side divides that of the images.

  Args:
    rate: bits a pixel.
    image_size: height and width of the images, in pixels.
    num_images: of training.
  """
  for side in range(image_size, 0, -1):
    bits = rate * side**2
    if image_size % side or not 1 <= bits + 1e-9 < 32:
      continue
    num_codes = math.floor(2**bits + 1e-6)  # the rate is rounded: 2^log2(1000) is below 1000
    if num_codes <= min(MOST_CODES, num_patches(side, image_size, num_images) // PATCHES_A_CODE):
      return side, num_codes
  return None


def training_patches(source: datasets.Source, data: ConfigDict, side: int) -> np.ndarray:
  """`num_patches` patches of training images, evenly spread over the set, uint8 [N 3 side^2].

  As many of each image, at random places; images are cut as for evaluation. The same each time.

  Raises:
    UserError: no image can be read.
  """
  count = num_patches(side, data.image_size, len(source))
  part = _Part(source)
  of_each = -(-count // len(part))
  rng = np.random.default_rng(0)
  rows: list[np.ndarray] = []
  with contextlib.closing(datasets.eval_batches(part, data, batch_size=32)) as batches:
    for batch in batches:
      rows += [
        rng.permutation(cut(image[None], side))[:of_each] for image in batch['image'][batch['mask']]
      ]
  if not rows:
    raise UserError(f'none of {source.description} can be read; the log says why.')
  return rng.permutation(np.concatenate(rows))[:count]


class _Part:
  """At most MOST_IMAGES of a source, evenly spread."""

  def __init__(self, source: datasets.Source) -> None:
    self._source, self.description = source, source.description
    self._positions = sorted(spread(len(source), MOST_IMAGES))

  def __len__(self) -> int:
    return len(self._positions)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[self._positions[index]]


def fit(rows: np.ndarray, num_codes: int) -> np.ndarray:
  """Codes by k-means++ and Lloyd's iterations: uint8 [N D] -> uint8 [K D], rounded.

  They are kept in the folder of weights, by a hash of the rows: what is there is never of other
  images.
  """
  key = hashlib.sha256(f'{_FIT} {num_codes} {rows.shape}\n'.encode())
  key.update(np.ascontiguousarray(rows).data)
  path = cache_folder() / 'patches' / f'{key.hexdigest()}.npy'
  with contextlib.suppress(OSError, ValueError, EOFError, MemoryError):
    return np.load(path)
  x = _centred(rows)
  # Rows are in random order. A draw goes over all of them for every code.
  drawn = max(_MOST_DRAWS // num_codes, PATCHES_A_CODE)
  codes = kmeans_plus_plus(jax.random.key(0), x[:drawn], num_codes)
  codes = lloyd(x, codes, ITERATIONS)
  rounded = np.rint(np.clip(np.asarray(codes) + 128, 0, 255)).astype(np.uint8)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open('wb') as file:
      np.save(file, rounded)
  except OSError as error:
    log.warning('codes of patches are not kept: %s; set VQJAX_CACHE to another folder', error)
  return rounded


def quantized(images: np.ndarray, codes: np.ndarray, side: int) -> np.ndarray:
  """Every patch becomes the nearest code, searched exactly: uint8 [N H W 3] -> the same."""
  rows = cut(images, side)
  centres = _centred(codes)
  indices = [
    np.asarray(_nearest(_centred(rows[i : i + _BATCH]), centres))
    for i in range(0, len(rows), _BATCH)
  ]
  return join(codes[np.concatenate(indices)], images.shape, side)


_nearest = jax.jit(nearest_code)


def _centred(rows):
  """Around 0, where float32 holds the products of up to 1024 bytes exactly."""
  return jnp.asarray(rows, jnp.float32) - 128
