"""Discriminators of the StyleGAN family: square images [B S S C] -> one logit each [B].

Both halve the image in residual blocks until it is 4 x 4; `widths` are those of the feature maps,
from S x S down. They take images of one size, 2 ** (len(widths) + 1) pixels a side.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.errors import UserError


def pyramid(size: int, channels: int, most: int = 512) -> tuple[int, ...]:
  """Widths for images of `size` pixels: `channels`, doubled with every halving, up to `most`.

  At 256 pixels channels=128 are StyleGAN2's (channel_multiplier 2) and channels=64 MaskGIT's.

  Raises:
    UserError: a size that is no power of two, or below 8.
  """
  levels = size.bit_length() - 2
  if size < 8 or size != 2 ** (levels + 1):
    raise UserError(
      f'the discriminator takes images of {size} pixels; legal: a power of two from 8 on: set '
      'config.data.image_size to one, or config.gan.discriminator=patchgan.'
    )
  return tuple(min(channels * 2**i, most) for i in range(levels))


class StyleGAN2Discriminator(nn.Module):
  """The residual discriminator of StyleGAN2 as enhancing-transformers (ViT-VQGAN) has it.

  1x1 convolution; blocks (f(x) + g(x)) / sqrt(2), f two 3x3 convolutions, the second behind a blur
  and of stride 2, g a blur and a 1x1 convolution of stride 2; the deviation within groups of four
  images as one more channel; a 3x3 convolution and two linear layers. Karras et al., Analyzing and
  Improving the Image Quality of StyleGAN (CVPR 2020), figure 7 and appendix B.

  Equalised learning rate: kernels are drawn from N(0, 1) and divided by sqrt(fan-in) when used.
  Rows of `final_linear_0/kernel` are in C, H, W order, as in the original. Groups of images are
  taken from the whole batch; the original takes them from each GPU's share.

  Attributes:
    widths: of the feature maps, see `pyramid`.
    dtype: of the computation; parameters, deviations and logits are float32.

  Raises:
    UserError: images of another size, or a batch that does not split into groups.
  """

  widths: tuple[int, ...]
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    _check_size(self, x)
    layer = functools.partial(_equalized, dtype=self.dtype)
    x = _act(layer(x, self.widths[0], 1, name='block_0'))
    for i, width in enumerate(self.widths[1:], 1):
      x = _StyleBlock(width, self.dtype, name=f'block_{i}')(x)
    x = jnp.concatenate([x, _deviation(x).astype(x.dtype)], axis=-1)
    x = _act(layer(x, self.widths[-1], 3, name='final_conv')).astype(jnp.float32)
    x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
    x = _act(_equalized(x, self.widths[-1], 1, name='final_linear_0'))
    return _equalized(x, 1, 1, name='final_linear_1')[:, 0]


class _StyleBlock(nn.Module):
  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    layer = functools.partial(_equalized, dtype=self.dtype)
    y = _act(layer(x, x.shape[-1], 3, name='conv1'))
    y = layer(_blur(y, 2), self.features, 3, strides=2, padding='VALID', name='conv2')
    # Where the 1x1 convolution of stride 2 does not look, nothing need be blurred.
    skip = layer(_blur(x, 1, stride=2), self.features, 1, use_bias=False, name='skip')
    return (_act(y) + skip) / math.sqrt(2)


class MaskGITDiscriminator(nn.Module):
  """The StyleGAN discriminator of MaskGIT's tokenizer.

  Like StyleGAN2's with a 3x3 stem, blur and subsampling between the two convolutions of a block and
  before the skip, plain leaky ReLU 0.2, Glorot-uniform kernels used as they are, and no deviation
  over the batch. Rows of `final_linear_0/kernel` are in H, W, C order. Chang et al., MaskGIT (CVPR
  2022), the discriminator of its code.

  Attributes:
    widths: of the feature maps, see `pyramid`.
    dtype: of the computation; parameters and logits are float32.

  Raises:
    UserError: images of another size.
  """

  widths: tuple[int, ...]
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    _check_size(self, x)
    glorot: dict[str, Any] = {'kernel_init': nn.initializers.xavier_uniform()}

    def layer(x, features, size, name, **kwargs):
      if size == 1:
        return nn.Dense(features, dtype=self.dtype, name=name, **glorot, **kwargs)(x)
      return nn.Conv(features, (size, size), dtype=self.dtype, name=name, **glorot, **kwargs)(x)

    act = functools.partial(nn.leaky_relu, negative_slope=0.2)
    x = act(layer(x, self.widths[0], 3, 'block_0'))
    for i, width in enumerate(self.widths[1:], 1):
      y = act(layer(x, x.shape[-1], 3, f'block_{i}_conv1'))
      y = act(layer(_blur(y, 1, stride=2), width, 3, f'block_{i}_conv2'))
      skip = layer(_blur(x, 1, stride=2), width, 1, f'block_{i}_skip', use_bias=False)
      x = (y + skip) / math.sqrt(2)
    x = act(layer(x, self.widths[-1], 3, 'final_conv')).astype(jnp.float32)
    x = x.reshape(x.shape[0], -1)
    x = act(nn.Dense(self.widths[-1], name='final_linear_0', **glorot)(x))
    return nn.Dense(1, name='final_linear_1', **glorot)(x)[:, 0]


def _check_size(module, x):
  size = 2 ** (len(module.widths) + 1)
  if x.shape[1:3] != (size, size):
    raise UserError(
      f'{type(module).__name__} with {len(module.widths)} widths got images of '
      f'{x.shape[1]}x{x.shape[2]} pixels; legal: {size}x{size}.'
    )


def _equalized(x, features, size, *, name, **kwargs):
  """A layer at equalised learning rate; dividing the input is dividing the kernel."""
  x = x / math.sqrt(size * size * x.shape[-1])
  kwargs['kernel_init'] = nn.initializers.normal(1.0)
  if size == 1:
    return nn.Dense(features, name=name, **kwargs)(x)
  return nn.Conv(features, (size, size), name=name, **kwargs)(x)


def _act(x):
  return math.sqrt(2) * nn.leaky_relu(x, 0.2)


def _blur(x, padding, stride=1):
  """Low-pass filter (1 3 3 1) / 8 along both axes, `padding` zeros around, every `stride`-th."""
  # Shifted sums: on a CPU, XLA's convolutions of one channel each take 20 to 100 times as long.
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  for axis in (1, 2):
    stop = x.shape[axis] - 3
    x = sum(
      weight / 8 * jax.lax.slice_in_dim(x, i, i + stop, stride, axis=axis)
      for i, weight in enumerate((1, 3, 3, 1))
    )
  return x


def _deviation(x):
  """Standard deviation over groups of images, a mean over the rest: [B H W C] -> [B H W 1]."""
  batch = x.shape[0]
  group = batch // (batch // min(batch, 4))
  if batch % group:
    raise UserError(
      f'StyleGAN2Discriminator got {batch} images, which do not split into groups of {group}; '
      f'legal: for example {batch // 4 * 4}.'
    )
  y = x.astype(jnp.float32).reshape(group, batch // group, *x.shape[1:])
  y = y - jnp.mean(y, axis=0, keepdims=True)
  y = jnp.sqrt(jnp.mean(jnp.square(y), axis=0) + 1e-8)
  y = jnp.mean(y, axis=(1, 2, 3))
  return jnp.broadcast_to(jnp.tile(y, group)[:, None, None, None], (*x.shape[:3], 1))
