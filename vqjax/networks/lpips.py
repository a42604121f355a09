"""LPIPS: the distance between two images as pretrained classifiers see it."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.errors import UserError


class _Stage(NamedTuple):
  """What lies between two taps: max-pooling of stride 2, then convolutions, ReLU after each."""

  pool: int  # window; 0 for none
  convs: tuple[int, ...]  # torchvision's indices in `features`
  width: int
  kernel: int = 3
  stride: int = 1
  padding: int = 1


_TRUNKS = {
  'vgg': (
    _Stage(0, (0, 2), 64),
    _Stage(2, (5, 7), 128),
    _Stage(2, (10, 12, 14), 256),
    _Stage(2, (17, 19, 21), 512),
    _Stage(2, (24, 26, 28), 512),
  ),
  'alex': (
    _Stage(0, (0,), 64, kernel=11, stride=4, padding=2),
    _Stage(3, (3,), 192, kernel=5, padding=2),
    _Stage(3, (6,), 384),
    _Stage(0, (8,), 256),
    _Stage(0, (10,), 256),
  ),
}
SMALLEST = {'vgg': 16, 'alex': 31}  # pixels; below, the last tap is empty
# Of ImageNet's images in [-1, 1], not in [0, 1] as usual.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
  """Perceptual distance of image pairs [B H W 3], [B H W 3] in [-1, 1] -> [B], 0 for equal ones.

  d(x, y) = sum_l mean_hw sum_c w_lc (f_lc(x) - f_lc(y))^2, where the f_l [B h w C] are five taps of
  an ImageNet classifier, each vector divided by its length (+ 1e-10), and w_l >= 0 is `lin{l}`.
  Version 0.1 of Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual
  Metric (CVPR 2018), equation 1; the pretrained parameters come from `vqjax.weights`.

  Deviations: there is no dropout before `lin{l}`, which taming-transformers leaves active while a
  tokenizer trains (the expectation is the same), and a vector of zeros, where the original's
  gradient is NaN, has a finite one. The parameters are constants: differentiate by the images.

  Attributes:
    net: the classifier, 'vgg' (VGG16, the training loss) or 'alex' (AlexNet, the paper's metric).
    widths: channels of the five taps, to narrow the network; None for the published ones.
    dtype: of the classifier's computation; parameters, lengths and distances are float32.

  Raises:
    UserError: an unknown `net`, or images too small to reach the last tap.
  """

  net: str = 'vgg'
  widths: tuple[int, ...] | None = None
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    if self.net not in _TRUNKS:
      raise UserError(f'LPIPS.net is {self.net!r}; legal: {", ".join(_TRUNKS)}.')
    stages = _TRUNKS[self.net]
    widths = self.widths or [stage.width for stage in stages]
    for i, (stage, width) in enumerate(zip(stages, widths, strict=True)):
      for index in stage.convs:
        conv = nn.Conv(
          width,
          (stage.kernel, stage.kernel),
          stage.stride if index == stage.convs[0] else 1,
          stage.padding,
          dtype=self.dtype,
        )
        setattr(self, f'conv_{index}', conv)
      setattr(self, f'lin{i}', self.param(f'lin{i}', nn.initializers.ones, (width,), jnp.float32))

  def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
    # Two passes, not one over both: nothing of the image that gets no gradient is then kept.
    return self.distances(self.features(x), self.features(y)).sum(-1)

  def features(self, x: jax.Array) -> list[jax.Array]:
    """Images [B H W 3] -> the taps, five [B h w C], finest first, none negative."""
    if min(x.shape[1:3]) < SMALLEST[self.net]:
      raise UserError(
        f'LPIPS with net={self.net!r} got images of {x.shape[1]}x{x.shape[2]} pixels; '
        f'legal: {SMALLEST[self.net]} or more on each side.'
      )
    shift, scale = (jnp.asarray(v, x.dtype)[None, None, None] for v in (_SHIFT, _SCALE))
    x = (x - shift) / scale
    taps = []
    for stage in _TRUNKS[self.net]:
      if stage.pool:
        x = nn.max_pool(x, (stage.pool, stage.pool), (2, 2))
      for index in stage.convs:
        x = nn.relu(getattr(self, f'conv_{index}')(x))
      taps.append(x)
    return taps

  def distances(self, x: Sequence[jax.Array], y: Sequence[jax.Array]) -> jax.Array:
    """The taps of both images -> what each tap adds to the distance [B 5]."""
    lins = [getattr(self, f'lin{i}') for i in range(len(x))]
    return jnp.stack([_distance(*tap) for tap in zip(lins, x, y, strict=True)], axis=-1)


def _distance(lin, x, y):
  return jnp.mean(jnp.sum(lin[None, None, None] * (_unit(x) - _unit(y)) ** 2, -1), (1, 2))


def _unit(x):
  x = x.astype(jnp.float32)
  square = jnp.sum(x**2, axis=-1, keepdims=True)
  # The length's slope at zero is infinite: zeros stay as they are.
  zero = square == 0
  return x / jnp.where(zero, 1, jnp.sqrt(jnp.where(zero, 1, square)) + 1e-10)
