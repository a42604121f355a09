"""The convolutional autoencoder of MaskGIT: that of taming-transformers without attention.

Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022). Further differences:
convolutions inside residual blocks have no bias; where widths differ, the shortcut is a 1x1
convolution of the block's *output*, not of its input; average pooling halves the resolution; the
decoder has as many blocks a level as the encoder. Initialised by Flax's defaults, as the original.

Module names follow the keys of the PyTorch port in 1d-tokenizer: `down_0_block_1/conv1` is
`down.0.block.1.conv1`, `mid_0` is `mid.0`, `up_1_upsample_conv` is `up.1.upsample_conv`. The
original numbers the same modules in the order of their calls.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.networks.layers import group_norm


class MaskGITBlock(nn.Module):
  """norm, swish, conv, norm, swish, conv; plus the input (or, if widths differ, see above)."""

  features: int
  norm_groups: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = x
    for i in (1, 2):
      h = nn.swish(group_norm(h, self.norm_groups, name=f'norm{i}', dtype=self.dtype))
      conv = nn.Conv(self.features, (3, 3), use_bias=False, dtype=self.dtype, name=f'conv{i}')
      h = conv(h)
    if x.shape[-1] != self.features:
      x = nn.Dense(self.features, use_bias=False, dtype=self.dtype, name='nin_shortcut')(h)
    return x + h


class _MaskGIT(nn.Module):
  """Fields of encoder and decoder.

  Attributes:
    channels: width at full resolution; level i has `channels * channel_mult[i]`.
    channel_mult: one entry a level; each level but the last halves the resolution.
    num_res_blocks: residual blocks a level and in the middle, in encoder and decoder.
    remat: recompute every block in the backward pass: less memory, more time.
    dtype: of the computation; parameters are float32.
    norm_groups: groups of every GroupNorm.
  """

  channels: int = 128
  channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
  num_res_blocks: int = 2
  remat: bool = False
  dtype: DTypeLike = jnp.float32
  norm_groups: int = 32

  @property
  def downsample(self) -> int:
    """Pixels per token side."""
    return 2 ** (len(self.channel_mult) - 1)

  def blocks(self, x, features, name):
    kind = nn.remat(MaskGITBlock) if self.remat else MaskGITBlock
    for i in range(self.num_res_blocks):
      x = kind(features, self.norm_groups, self.dtype, name=f'{name}_{i}')(x)
    return x

  def norm_out(self, x):
    return nn.swish(group_norm(x, self.norm_groups, name='norm_out', dtype=self.dtype))


class MaskGITEncoder(_MaskGIT):
  """Images [B H W C] -> latents [B H/f W/f z_channels], `f = downsample`.

  Attributes:
    z_channels: width of the latents.
  """

  z_channels: int = 256

  @property
  def width_out(self) -> int:
    """Width of the latents."""
    return self.z_channels

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    del train  # nothing here differs
    x = nn.Conv(self.channels, (3, 3), use_bias=False, dtype=self.dtype, name='conv_in')(x)
    for i, mult in enumerate(self.channel_mult):
      x = self.blocks(x, self.channels * mult, f'down_{i}_block')
      if i < len(self.channel_mult) - 1:
        batch, height, width, features = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, features).mean(axis=(2, 4))
    x = self.norm_out(self.blocks(x, x.shape[-1], 'mid'))
    return nn.Dense(self.z_channels, dtype=self.dtype, name='conv_out')(x)


class MaskGITDecoder(_MaskGIT):
  """Latents [B h w z] -> images float32 [B h*f w*f out_channels], without an output activation.

  Attributes:
    out_channels: channels of the images.
  """

  out_channels: int = 3

  width_in: ClassVar[int | None] = None
  last_kernel = ('conv_out', 'kernel')
  classifies = False

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
    x = conv(self.channels * self.channel_mult[-1], name='conv_in')(z)
    x = self.blocks(x, x.shape[-1], 'mid')
    for i, mult in reversed(list(enumerate(self.channel_mult))):
      x = self.blocks(x, self.channels * mult, f'up_{i}_block')
      if i > 0:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        x = conv(x.shape[-1], name=f'up_{i}_upsample_conv')(x)
    # The image leaves in float32: losses and rounding to 8 bits need it.
    x = self.norm_out(x).astype(jnp.float32)
    return nn.Conv(self.out_channels, (3, 3), name='conv_out')(x)
