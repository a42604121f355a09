"""The convolutional autoencoder of taming-transformers and latent-diffusion, layer for layer.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (CVPR 2021), and Rombach et
al., High-Resolution Image Synthesis with Latent Diffusion Models (CVPR 2022). Module names follow
the originals' keys: `down_0_block_1/conv1` is `down.0.block.1.conv1`.

OptVQ's networks for ImageNet are the same. So are LlamaGen's, whose attention stands at the deepest
level and in the middle: `attn_resolutions=(resolution // downsample,)`. The `noattn` variant of
latent-diffusion is `mid_attention=False` without `attn_resolutions`.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.networks.layers import conv, dense, group_norm, upsampled_conv


class _Block(nn.Module):
  """What the blocks share: computation dtype and normalisation."""

  dtype: DTypeLike = jnp.float32
  norm_groups: int = 32

  def norm(self, x, name, act=True):
    x = group_norm(x, self.norm_groups, name=name, dtype=self.dtype)
    return nn.swish(x) if act else x


class ResBlock(_Block):
  """norm, swish, conv, norm, swish, dropout, conv; plus the input (1x1 conv if widths differ)."""

  features: int = 0
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    h = conv(self.norm(x, 'norm1'), self.features, name='conv1', dtype=self.dtype)
    h = nn.Dropout(self.dropout, deterministic=not train)(self.norm(h, 'norm2'))
    h = conv(h, self.features, name='conv2', dtype=self.dtype)
    if x.shape[-1] != self.features:
      x = dense(x, self.features, name='nin_shortcut', dtype=self.dtype)
    return x + h


class AttnBlock(_Block):
  """Single-head attention over all positions, softmax in float32; plus the input."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    h = self.norm(x, 'norm', act=False)
    q, k, v = (
      dense(h, channels, name=name, dtype=self.dtype).reshape(batch, -1, 1, channels)
      for name in 'qkv'
    )
    h = jax.nn.dot_product_attention(q, k, v)  # [B T 1 C], scale C^-0.5
    h = h.reshape(batch, height, width, channels)
    return x + dense(h, channels, name='proj_out', dtype=self.dtype)


class _Cnn(_Block):
  """Fields of encoder and decoder, and the stages that they share.

  Attributes:
    channels: width at full resolution; level i has `channels * channel_mult[i]`.
    channel_mult: one entry a level; each level but the last halves the resolution.
    num_res_blocks: residual blocks a level in the encoder; the decoder has one more.
    attn_resolutions: sizes in pixels at which every residual block is followed by attention.
    resolution: size in pixels that `attn_resolutions` refer to. The network runs at other sizes;
      where attention sits does not change with them.
    mid_attention: attention in the middle, at the lowest resolution.
    dropout: in the residual blocks, while training.
    remat: recompute every block in the backward pass: less memory, more time.
    dtype: of the computation; parameters are float32.
    norm_groups: groups of every GroupNorm.
  """

  channels: int = 128
  channel_mult: tuple[int, ...] = (1, 2, 4)
  num_res_blocks: int = 2
  attn_resolutions: tuple[int, ...] = ()
  resolution: int = 256
  mid_attention: bool = True
  dropout: float = 0.0
  remat: bool = False

  @property
  def downsample(self) -> int:
    """Pixels per token side."""
    return 2 ** (len(self.channel_mult) - 1)

  def res(self, x, train, features, name):
    kind = nn.remat(ResBlock, static_argnums=(2,)) if self.remat else ResBlock
    return kind(self.dtype, self.norm_groups, features, self.dropout, name=name)(x, train)

  def attn(self, x, name):
    kind = nn.remat(AttnBlock) if self.remat else AttnBlock
    return kind(self.dtype, self.norm_groups, name=name)(x)

  def level(self, x, train, name, i, num_blocks):
    for j in range(num_blocks):
      x = self.res(x, train, self.channels * self.channel_mult[i], f'{name}_{i}_block_{j}')
      if self.resolution // 2**i in self.attn_resolutions:
        x = self.attn(x, f'{name}_{i}_attn_{j}')
    return x

  def mid(self, x, train):
    x = self.res(x, train, x.shape[-1], 'mid_block_1')
    if self.mid_attention:
      x = self.attn(x, 'mid_attn_1')
    return self.res(x, train, x.shape[-1], 'mid_block_2')


class CNNEncoder(_Cnn):
  """Images [B H W C] -> latents [B H/f W/f z_channels], `f = downsample`.

  Attributes:
    z_channels: width of the latents.
  """

  z_channels: int = 3

  @property
  def width_out(self) -> int:
    """Width of the latents."""
    return self.z_channels

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    x = conv(x, self.channels, name='conv_in', dtype=self.dtype)
    for i in range(len(self.channel_mult)):
      x = self.level(x, train, 'down', i, self.num_res_blocks)
      if i < len(self.channel_mult) - 1:
        # The originals pad right and bottom only; SAME does so for even sizes alone.
        x = conv(
          x,
          x.shape[-1],
          stride=2,
          padding=((0, 1), (0, 1)),
          name=f'down_{i}_downsample',
          dtype=self.dtype,
        )
    x = self.mid(x, train)
    return conv(self.norm(x, 'norm_out'), self.z_channels, name='conv_out', dtype=self.dtype)


class CNNDecoder(_Cnn):
  """Latents [B h w z] -> images [B h*f w*f out_channels], without an output activation.

  Attributes:
    out_channels: channels of the images.
  """

  out_channels: int = 3

  width_in: ClassVar[int | None] = None
  last_kernel = ('conv_out', 'kernel')
  classifies = False

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    last = len(self.channel_mult) - 1
    x = conv(z, self.channels * self.channel_mult[last], name='conv_in', dtype=self.dtype)
    x = self.mid(x, train)
    for i in range(last, -1, -1):
      x = self.level(x, train, 'up', i, self.num_res_blocks + 1)
      if i > 0:
        x = upsampled_conv(x, name=f'up_{i}_upsample', dtype=self.dtype)
    # The image leaves in float32: losses and rounding to 8 bits need it.
    x = self.norm(x, 'norm_out').astype(jnp.float32)
    return conv(x, self.out_channels, name='conv_out')
