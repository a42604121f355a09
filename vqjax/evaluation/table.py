"""Every number that a run or an evaluation reports: one row each, read by all that show numbers.

The rows stand in the order in which numbers are shown. Those without a `by` are reported by the
training step alone, or by the loop.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax

from vqjax.evaluation import metrics
from vqjax.evaluation.totals import Accumulator, CodeUse, Distances, Means

Line = Literal['progress', 'held out']  # of the log


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number.

  Attributes:
    meaning: its definition and protocol, shown beside it; '' of a number that no evaluation has.
    by: what adds it up over a set, see `evaluation.totals`; by `Means`, it is computed of each
      image by the step, of pixels or by a network.
    better: which of two values is better, where that can be said.
    of_pixels: what computes it from originals and reconstructions, uint8 or float in [0, 1]
      [B H W 3]: float32 [B].
    network: name in `vqjax.weights` of the network that it needs, or ''.
    words: how a line of the log says it, a format string; '': by name, with four digits.
    lines: the lines of the log that it stands in: that of the progress of training, and that of a
      look at held-out images.
    curve: title of the drawing in the report that shows its course over training, or ''.
    baseline: whether it is there for comparison, and drawn so.
  """

  meaning: str = ''
  by: type[Accumulator] | None = None
  better: Literal['higher', 'lower', ''] = ''
  of_pixels: Callable[[jax.Array, jax.Array], jax.Array] | None = None
  network: str = ''
  words: str = ''
  lines: tuple[Line, ...] = ()
  curve: str = ''
  baseline: bool = False


_PROGRESS: tuple[Line, ...] = ('progress',)
_HELD_OUT: tuple[Line, ...] = ('held out',)
_BOTH = (*_PROGRESS, *_HELD_OUT)
_INCEPTION = 'inception'

METRICS = {
  # Terms of the objective, as the training step reports them.
  'loss': Metric(lines=_PROGRESS, curve='loss'),
  # Of images. `l1` and `l2` of a training step are terms too, in the model's range.
  'psnr': Metric(
    'dB, RGB, mean over images',
    Means,
    'higher',
    metrics.psnr,
    words='PSNR {:.2f} dB',
    lines=_HELD_OUT,
    curve='held-out PSNR, dB',
  ),
  'psnr_mean_color': Metric(
    "PSNR of an image of each original's own mean colour, for comparison",
    Means,
    words='of the mean colour alone {:.2f}',
    lines=_HELD_OUT,
    curve='held-out PSNR, dB',
    baseline=True,
  ),
  'ssim': Metric(
    'RGB, Gaussian window (sigma 1.5, 11 taps), mean over images',
    Means,
    'higher',
    metrics.ssim,
    words='SSIM {:.3f}',
    lines=_HELD_OUT,
  ),
  'psnr_luma': Metric(
    "dB, BT.601 studio-swing luma, mean over images: OptVQ's tables",
    Means,
    'higher',
    metrics.psnr_luma,
  ),
  'ssim_luma': Metric(
    "luma of YIQ rounded to 8 bits, the same window, mean over images: OptVQ's tables",
    Means,
    'higher',
    metrics.ssim_luma,
  ),
  'l1': Metric(
    'mean absolute error, pixels in [0, 1]',
    Means,
    'lower',
    metrics.l1,
    lines=_PROGRESS,
    curve='loss',
  ),
  'l2': Metric(
    'mean squared error, pixels in [0, 1]',
    Means,
    'lower',
    metrics.l2,
    lines=_PROGRESS,
    curve='loss',
  ),
  'perceptual': Metric(lines=_PROGRESS, curve='loss'),
  'cross_entropy': Metric(lines=_PROGRESS, curve='loss'),
  'quantizer': Metric(curve='loss'),
  'accuracy': Metric(
    'fraction of images whose largest logit is that of their class',
    Means,
    'higher',
    words='accuracy {:.1%}',
    lines=_BOTH,
    curve='accuracy',
  ),
  # Of a generator, which predicts tokens.
  'token_loss': Metric(
    'the objective without dropout and with every label, nats a symbol, mean over images; a masked '
    "generator's depends on the masks, which are the same in every look",
    Means,
    'lower',
    words='token loss {:.4f}',
    lines=_HELD_OUT,
    curve='held-out token loss',
  ),
  'token_accuracy': Metric(
    "fraction of an image's symbols, of the masked ones where there are such, whose largest logit "
    'is right, mean over images',
    Means,
    'higher',
    words='token accuracy {:.1%}',
    lines=_BOTH,
    curve='token accuracy',
  ),
  'lpips': Metric('AlexNet, version 0.1, mean over images', Means, 'lower', network='lpips_alex'),
  'lpips_vgg': Metric('VGG16, version 0.1, mean over images', Means, 'lower', network='lpips_vgg'),
  'rfid': Metric(
    'Frechet distance of Inception-v3 pool3 features; images resized to 299 x 299, bilinear '
    'without antialiasing; covariance over N - 1',
    Distances,
    'lower',
    network=_INCEPTION,
  ),
  'inception_score': Metric(
    'of the reconstructions, in one part; Inception-v3, logits without bias',
    Distances,
    'higher',
    network=_INCEPTION,
  ),
  'rec_loss': Metric(
    "pixel term of the objective in the model's range, before rounding; or cross entropy", Means
  ),
  # Terms of the quantizer and of the GAN, as the training step reports them.
  'commitment': Metric(lines=_PROGRESS, curve='quantizer terms'),
  'entropy': Metric(curve='quantizer terms'),
  'sample_entropy': Metric(curve='quantizer terms'),
  'code_entropy': Metric(curve='quantizer terms'),
  'orthogonality': Metric(curve='quantizer terms'),
  'kl_to_uniform': Metric(curve='quantizer terms'),
  'generator': Metric(lines=_PROGRESS, curve='discriminator'),
  'discriminator': Metric(curve='discriminator'),
  'r1': Metric(curve='discriminator'),
  'lecam': Metric(curve='discriminator'),
  'gan_weight': Metric(lines=_PROGRESS, curve='discriminator'),
  'logits_real': Metric(),
  'logits_fake': Metric(),
  'discriminator_accuracy': Metric(),
  # Of the optimizers.
  'grad_norm': Metric(),
  'discriminator_grad_norm': Metric(),
  'learning_rate': Metric(),
  # Of codes.
  'usage': Metric(
    'fraction of codes that occur in the whole set',
    CodeUse,
    'higher',
    words='usage {:.0%}',
    lines=_BOTH,
    curve='usage',
  ),
  'usage_65536_tokens': Metric(
    'fraction of codes that occur in 65,536 consecutive tokens, mean', CodeUse, 'higher'
  ),
  'usage_256_images': Metric(
    'fraction of codes that occur in 256 consecutive images, mean', CodeUse, 'higher'
  ),
  'perplexity': Metric(
    'exp of the entropy of the code frequencies over the whole set',
    CodeUse,
    words='perplexity {:.0f}',
    lines=_PROGRESS,
    curve='perplexity',
  ),
  'dead': Metric(lines=_PROGRESS, curve='usage'),
  'token_entropy': Metric('bits a token, of the code frequencies over the whole set', CodeUse),
  'bits_per_pixel': Metric('tokens an image times log2 of the number of codes, by pixels', CodeUse),
  # Of the run.
  'num_images': Metric(by=Means),
  'step': Metric(),
  'images_per_second': Metric(),
  'tokens_per_second': Metric(),
}

_PRECISION = (
  'share of samples within the third-neighbour radius of an image of the reference, pool_3 features'
)
_RECALL = (
  'share of the images of the reference within the third-neighbour radius of a sample, pool_3 '
  'features'
)
_FLOAT16 = "; distances rounded to float16, as in ADM's evaluator"
_ADM = 'images resized to 299 x 299 as by TensorFlow 1, (x - 128) / 128: the ADM evaluator'

# Numbers of images that a generator made, by the protocol of the ADM evaluator. They are apart from
# those above: its resize is another, and with that the distance; so is its Inception score.
OF_SAMPLES = {
  'gfid': Metric(
    f'Frechet distance of Inception-v3 pool_3 features, covariance over N - 1; {_ADM}',
    better='lower',
    network=_INCEPTION,
  ),
  'sfid': Metric(
    "Frechet distance of the first 7 channels of Inception-v3's mixed_6/conv, 17 x 17 x 7, "
    f'covariance over N - 1; {_ADM}',
    better='lower',
    network=_INCEPTION,
  ),
  'inception_score': Metric(
    f'mean over splits of 5,000 in the order of the images, logits without bias; {_ADM}',
    better='higher',
    network=_INCEPTION,
  ),
  'precision': Metric(
    f'{_PRECISION}; distances in float32; {_ADM}', better='higher', network=_INCEPTION
  ),
  'recall': Metric(f'{_RECALL}; distances in float32; {_ADM}', better='higher', network=_INCEPTION),
  'precision_float16': Metric(
    f'{_PRECISION}{_FLOAT16}; {_ADM}', better='higher', network=_INCEPTION
  ),
  'recall_float16': Metric(f'{_RECALL}{_FLOAT16}; {_ADM}', better='higher', network=_INCEPTION),
  'num_images': METRICS['num_images'],
}


def line(kind: Line, values: Mapping[str, float | None]) -> list[str]:
  """The numbers of `values`, {name: number}, that stand in a line of the log, in words."""
  return [
    (metric.words or f'{name} {{:.4g}}').format(values[name])
    for name, metric in METRICS.items()
    if kind in metric.lines and values.get(name) is not None
  ]


def in_table(value: float | None) -> str:
  """A number as a table shows it: four decimals, or four digits where it is small."""
  if value is None:
    return 'null'
  if isinstance(value, int):
    return str(value)
  if not math.isfinite(value):
    return 'not a number' if math.isnan(value) else 'infinite'
  return f'{value:.4g}' if 0 < abs(value) < 0.1 else f'{value:.4f}'


def decibels(psnr: float) -> str:
  """A PSNR as it stands below an image."""
  return f'{psnr:.2f} dB' if math.isfinite(psnr) else in_table(float(psnr))
