"""A tokenizer's numbers on a held-out set, streamed."""

import contextlib
import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from vqjax import quantizers, sharding, steps
from vqjax.errors import UserError

PROTOCOL = {
  'accuracy': 'fraction of images whose largest logit is that of their class',
  'psnr': 'dB, RGB, 8-bit images, mean over images',
  'ssim': 'RGB, Gaussian window (sigma 1.5, 11 taps), 8-bit images, mean over images',
  'rec_loss': "pixel term of the objective in the model's range, before rounding; or cross entropy",
  'usage': 'fraction of codes that occur in the whole set',
  'perplexity': 'exp of the entropy of the code frequencies over the whole set',
  'psnr_mean_color': "PSNR of an image of each original's own mean colour, for comparison",
}

# Always null so far, and why.
NOT_COMPUTED = {
  'rfid': 'needs the Inception-v3 network and its weights, which this version does not have',
  'inception_score': 'needs the Inception-v3 network and its weights, as rfid does',
  'lpips': 'needs the LPIPS network, which this version has as a term of the objective only',
}


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


def make_eval_step(recipe, mesh):
  """Jits the evaluation step; its results are copied to every device, so any process reads them."""
  step = functools.partial(steps.eval_step, recipe)
  return jax.jit(step, out_shardings=sharding.replicated(mesh))


def spread(total, count):
  """At most `count` positions in `range(total)`, evenly spread: a picture of the whole set."""
  count = min(count, total)
  return frozenset(i * total // count for i in range(count))


def evaluate(eval_step, mesh, params, variables, batches, pictures=()) -> Evaluation:
  """Runs over `batches` of {'image', 'label', 'mask'} and closes them.

  Sums are float64 on the host. The images at the positions `pictures`, see `spread`, are kept with
  their reconstructions, if there are any.
  """
  sums, count, codes, position, kept = {}, 0, 0, 0, []
  with contextlib.closing(batches):
    for local in batches:
      batch = sharding.put_batch(mesh, local)
      shown, values, mask, counts = jax.device_get(eval_step(params, variables, batch))
      for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value[mask].astype(np.float64).sum()
      count += int(mask.sum())
      codes = codes + counts.astype(np.int64)
      wanted = [i for i in np.flatnonzero(mask) if position + i in pictures]
      position += len(mask)
      kept.append([images[wanted] for images in shown])
  if not count:
    raise UserError(
      'no held-out image could be read; the log names the unreadable ones: repair them or change '
      'config.data.path or config.data.eval_path.'
    )
  metrics = {name: float(value / count) for name, value in sums.items()}
  frequencies = np.asarray(codes, np.float32)
  metrics |= {
    'usage': float(quantizers.usage(frequencies)),
    'perplexity': float(quantizers.perplexity(frequencies)),
    'num_images': count,
  }
  pictures = [np.concatenate(images) for images in zip(*kept, strict=True)]
  return Evaluation(metrics, pictures, np.asarray(codes))
