"""The numbers of a set of images and their reconstructions, streamed."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqjax import quantizers, sharding
from vqjax.errors import UserError
from vqjax.evaluation import metrics, scoring
from vqjax.evaluation.statistics import FeatureStatistics, InceptionScore
from vqjax.training import step as steps

log = logging.getLogger('vqjax')

EXTREMES = 8  # how many of the best and of the worst images are kept
CLOUD = 2_000  # latents at most
WINDOWS = {'usage_65536_tokens': 65_536, 'usage_256_images': 256}  # in tokens, in images


class Pictures(NamedTuple):
  """Some images with their reconstructions."""

  positions: np.ndarray  # int64 [n], in the order of the set
  psnr: np.ndarray  # float64 [n], dB
  originals: np.ndarray  # uint8 [n H W 3]
  reconstructions: np.ndarray  # uint8 [n H W 3]


class Cloud(NamedTuple):
  """Latents of some images, the code that each became, and the codebook, all in one space."""

  latents: np.ndarray  # float32 [n D]
  quantized: np.ndarray  # float32 [n D]
  codes: np.ndarray | None  # float32 [K D]; None where codes are not vectors of this space


@dataclasses.dataclass
class Evaluation:
  """What `evaluate` found."""

  metrics: dict[str, float | int | None]
  missing: dict[str, str]  # by the name of a metric that is None: what it needs, and the command
  code_counts: np.ndarray | None = None  # int64 [K]; None where there are no tokens
  samples: Pictures | None = None  # evenly spread over the set; None of a classifier
  best: Pictures | None = None  # by PSNR, the best first
  worst: Pictures | None = None  # the worst first
  cloud: Cloud | None = None
  statistics: FeatureStatistics | None = None  # of the originals' features


def make_eval_step(recipe, mesh, *, networks=None, rounding='uint8') -> Callable:
  """The evaluation of one local batch, as `evaluate` wants it.

  Returns:
    function of (params, variables, batch): NumPy arrays by name. `mask` [B]; `images`, originals
    and what they are compared with; `values`, float32 [B] by name; `tokens`, int32 [B T]; and what
    `scoring.score` sees. Without `networks` there are those numbers of pixels alone that training
    looks at. Results are copied to every device, so that any process has all of them.
  """

  def step(networks, params, variables, batch):
    mask = batch['mask']
    quick = {'psnr', 'ssim'} - scoring.missing({}, batch['image'].shape[1:3]).keys()
    images, y, values, tokens = steps.eval_step(recipe, params, variables, batch)
    found = {'mask': mask, 'values': values, 'tokens': tokens}
    if images is not None:
      y = scoring.ROUNDINGS[rounding](y)
      found['images'] = images, y
      if networks is None:
        values |= {name: scoring.PIXELS[name](images, y) for name in quick}
      else:
        more, seen = scoring.score(networks, images, y)
        values |= more
        found |= seen
    return found

  jitted = jax.jit(step, out_shardings=sharding.replicated(mesh))
  if networks is not None:
    networks = jax.device_put(networks, sharding.replicated(mesh))

  def evaluated(params, variables, local):
    return jax.device_get(jitted(networks, params, variables, sharding.put_batch(mesh, local)))

  return evaluated


def make_pair_step(mesh, networks) -> Callable:
  """Likewise of pairs {'original', 'reconstruction', 'mask'}: a function of the batch alone."""

  def step(networks, batch):
    images = batch['original'], batch['reconstruction']
    values, seen = scoring.score(networks, *images)
    return {'mask': batch['mask'], 'values': values, 'images': images, **seen}

  jitted = jax.jit(step, out_shardings=sharding.replicated(mesh))
  networks = jax.device_put(networks, sharding.replicated(mesh))
  return lambda local: jax.device_get(jitted(networks, sharding.put_batch(mesh, local)))


def spread(total, count):
  """At most `count` positions in `range(total)`, evenly spread: a picture of the whole set."""
  count = min(count, total)
  return frozenset(i * total // count for i in range(count))


def evaluate(
  step, batches, *, num_codes=None, samples=(), reference=None, missing=None
) -> Evaluation:
  """Runs over `batches`, of which `step(batch)` is as `make_eval_step` says, and closes them.

  Sums are float64 on the host, and memory does not grow with the number of images.

  Args:
    step: function of a batch.
    batches: an iterator with a `close`.
    num_codes: K; None where `step` gives no tokens.
    samples: positions of images to keep with their reconstructions, see `spread`.
    reference: `Precomputed` statistics that rFID compares with, in place of the originals'.
    missing: numbers that `step` cannot give, by name, and what they would need.

  Raises:
    UserError: there is no image, or one whose features are not finite.
  """
  totals = _Totals(num_codes, frozenset(samples))
  with contextlib.closing(batches):
    for batch in batches:
      totals.add(step(batch))
  return totals.evaluation(reference, dict(missing or {}))


class _Totals:
  """What is known after some batches."""

  def __init__(self, num_codes, wanted):
    self.num_codes, self.wanted = num_codes, wanted
    self.position = self.count = 0  # with and without images that the mask leaves out
    self.sums = {}
    self.codes = None if num_codes is None else np.zeros(num_codes, np.int64)
    self.windows = {}
    self.samples, self.best, self.worst = [], [], []
    self.statistics = self.probabilities = None
    self.size = self.tokens_an_image = None  # size: height and width

  def add(self, found):
    mask = found['mask']
    self.count += int(mask.sum())
    for name, value in found['values'].items():
      self.sums[name] = self.sums.get(name, 0.0) + value[mask].astype(np.float64).sum()
    if self.codes is not None:
      self._add_tokens(found['tokens'][mask])
    if 'images' in found:
      self._add_pictures(mask, found['values']['psnr'], *found['images'])
    if 'features' in found:
      if self.statistics is None:
        width = found['features'].shape[-1]
        self.statistics = [FeatureStatistics(width) for _ in found['features']]
      for statistics, features in zip(self.statistics, found['features'], strict=True):
        statistics.add(features[mask])
    if 'probabilities' in found:
      if self.probabilities is None:
        self.probabilities = InceptionScore(found['probabilities'].shape[-1])
      self.probabilities.add(found['probabilities'][mask])
    self.position += len(mask)

  def _add_tokens(self, tokens):
    self.tokens_an_image = tokens.shape[1]
    self.codes += np.bincount(tokens.reshape(-1), minlength=self.num_codes)
    for name, size in WINDOWS.items():
      window = self.windows.setdefault(name, _Windows(self.num_codes, size))
      window.add(tokens.reshape(-1) if name == 'usage_65536_tokens' else tokens)

  def _add_pictures(self, mask, psnr, originals, reconstructions):
    self.size = originals.shape[1:3]
    positions = self.position + np.arange(len(mask))
    # Copies: a view would keep its whole batch.
    copies = lambda i: (originals[i].copy(), _bytes(reconstructions[i]))
    pick = lambda i: (positions[i], float(psnr[i]), *copies(i))
    inside = np.flatnonzero(mask)
    self.samples += [pick(i) for i in inside if positions[i] in self.wanted]
    order = inside[np.argsort(psnr[inside], kind='stable')]
    rank = lambda picture: picture[1]
    worst = self.worst + [pick(i) for i in order[:EXTREMES]]
    best = self.best + [pick(i) for i in order[::-1][:EXTREMES]]
    self.worst = sorted(worst, key=rank)[:EXTREMES]
    self.best = sorted(best, key=rank, reverse=True)[:EXTREMES]

  def evaluation(self, reference, gaps) -> Evaluation:
    if not self.count:
      raise UserError(
        'no image could be read; the log names the unreadable ones: repair them, or name others.'
      )
    numbers = {name: float(value / self.count) for name, value in self.sums.items()}
    if self.codes is not None:
      self._code_numbers(numbers, gaps)
    if self.statistics is not None:
      self._distribution_numbers(numbers, gaps, reference)
    numbers |= dict.fromkeys(gaps)
    ordered = {name: numbers[name] for name in scoring.PROTOCOL if name in numbers}
    return Evaluation(
      {**ordered, 'num_images': self.count},
      gaps,
      self.codes,
      *(_pictures(kept) for kept in (self.samples, self.best, self.worst)),
      statistics=self.statistics[0] if self.statistics else None,
    )

  def _code_numbers(self, numbers, gaps):
    frequencies = np.asarray(self.codes, np.float32)
    entropy = metrics.token_entropy(self.codes)
    numbers |= {
      'usage': float(quantizers.usage(frequencies)),
      'perplexity': 2**entropy,
      'token_entropy': entropy,
    }
    if self.best:
      bits = self.tokens_an_image * math.log2(self.num_codes)
      numbers['bits_per_pixel'] = bits / math.prod(self.size)
    for name, window in self.windows.items():
      if window.fractions:
        numbers[name] = float(np.mean(window.fractions))
      else:
        gaps[name] = f'needs {window.size:,} {"images" if "images" in name else "tokens"} or more'

  def _distribution_numbers(self, numbers, gaps, reference):
    originals, reconstructions = self.statistics
    if self.probabilities is not None:
      numbers['inception_score'] = self.probabilities.value
    if self.count < 2:
      gaps['rfid'] = 'needs 2 images or more'
      return
    if self.count <= len(originals.mean):
      log.warning(
        'rfid of %d images is far above that of many: a covariance of %d features needs more '
        'images than that; compare it with that of the same images alone',
        self.count,
        len(originals.mean),
      )
    against = reference or originals
    numbers['rfid'] = metrics.frechet_distance(
      against.mean, against.covariance, reconstructions.mean, reconstructions.covariance
    )


class _Windows:
  """`metrics.windowed_usage` of what comes in any portions."""

  def __init__(self, num_codes, size):
    self.num_codes, self.size = num_codes, size
    self.rows, self.fractions = None, []

  def add(self, rows):
    rows = rows if self.rows is None else np.concatenate([self.rows, rows])
    while len(rows) >= self.size:
      usage = metrics.windowed_usage(rows[: self.size], self.num_codes, self.size)
      self.fractions.append(usage)
      rows = rows[self.size :]
    self.rows = rows


def _bytes(image):
  return image.copy() if image.dtype == np.uint8 else np.uint8(np.rint(image * 255))


def _pictures(kept):
  return Pictures(*map(np.stack, zip(*kept, strict=True))) if kept else None


def cloud(recipe, mesh, params, variables, batch) -> Cloud | None:
  """Latents of a local batch {'image', 'mask'}, where the mask holds, and the codes.

  They are at most `CLOUD`, evenly spread; None if the mask holds nowhere.
  """
  model = recipe.tokenizer
  batch = sharding.put_batch(mesh, {name: batch[name] for name in ('image', 'mask')})

  def look(variables, images, mask):
    x = model.normalize(images)
    # As codes are compared with them: bounded in FSQ, unit vectors on a sphere.
    latents = model.apply(variables, x, method=lambda m, x: m.quantizer.enter(m.latents(x)))
    if getattr(model.quantizer.core, 'sphere', False) and not model.quantizer.token_axes:
      latents = quantizers.unit(latents)
    quantized = model.apply(variables, x, mask=mask, method='encode')
    return latents, quantized.z_q, _codes(model, variables), mask

  look = jax.jit(look, out_shardings=sharding.replicated(mesh))
  found = look({'params': params, **variables}, batch['image'], batch['mask'])
  latents, quantized, codes, mask = jax.device_get(found)
  if not mask.any():
    return None
  latents, quantized = (x[mask].reshape(-1, x.shape[-1]) for x in (latents, quantized))
  some = np.linspace(0, len(latents) - 1, min(CLOUD, len(latents))).astype(np.int64)
  return Cloud(latents[some], quantized[some], codes)


def _codes(model, variables):
  """Vectors of all codes, where a token is one code and they are not too many to draw."""
  quantizer = model.quantizer
  if quantizer.token_axes or quantizer.num_codes > 2**16:
    return None
  tokens = jnp.arange(quantizer.num_codes)
  return model.apply(variables, tokens, method=lambda model, tokens: model.quantizer.lookup(tokens))
