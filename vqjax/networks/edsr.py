"""A residual autoencoder without normalisation, all of it at the resolution of the tokens.

The blocks of EDSR (Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution,
CVPRW 2017), which has no normalisation because absolute values, the colours, have to pass: conv,
activation, conv; plus the input. Images enter as patches whose pixels are channels (space to depth)
and leave likewise (sub-pixel convolution, Shi et al., CVPR 2016), so that no layer works on single
pixels. In a run of minutes it goes where the networks of VQGAN do not: docs/evidence.md.

Deviations: GELU for ReLU; the last convolution of a block starts at zero in place of being scaled
by 0.1 (Zhang et al., Fixup Initialization, ICLR 2019), so that the network starts as a linear one.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.networks.layers import conv, depth_to_space, group_norm, space_to_depth


class Block(nn.Module):
  """conv, GELU, conv; plus the input. [B h w C] -> [B h w C]."""

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = nn.gelu(conv(x, x.shape[-1], name='conv1', dtype=self.dtype))
    zeros = nn.initializers.zeros
    return x + conv(h, x.shape[-1], name='conv2', dtype=self.dtype, kernel_init=zeros)


class _Edsr(nn.Module):
  """Fields of encoder and decoder, and the blocks that they share.

  Attributes:
    channels: width of all blocks.
    num_blocks: how many.
    patch_size: pixels per token side.
    norm_groups: groups of a GroupNorm and swish before the last convolution, as the networks of
      VQGAN have; 0: none. To see what it costs.
    dtype: of the computation; parameters are float32.
  """

  channels: int = 32
  num_blocks: int = 4
  patch_size: int = 2
  norm_groups: int = 0
  dtype: DTypeLike = jnp.float32

  @property
  def downsample(self) -> int:
    """Pixels per token side."""
    return self.patch_size

  def body(self, x):
    x = conv(x, self.channels, name='conv_in', dtype=self.dtype)
    for i in range(self.num_blocks):
      x = Block(self.dtype, name=f'block_{i}')(x)
    if self.norm_groups:
      x = nn.swish(group_norm(x, self.norm_groups, name='norm_out', dtype=self.dtype))
    return x


class EdsrEncoder(_Edsr):
  """Images [B H W C] -> latents [B H/f W/f z_channels], `f = patch_size`.

  Attributes:
    z_channels: width of the latents.
  """

  z_channels: int = 8

  @property
  def width_out(self) -> int:
    """Width of the latents."""
    return self.z_channels

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    del train  # nothing here differs
    x = self.body(space_to_depth(x, self.patch_size))
    return conv(x, self.z_channels, name='conv_out', dtype=self.dtype)


class EdsrDecoder(_Edsr):
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
    # The image leaves in float32: losses and rounding to 8 bits need it.
    x = self.body(z).astype(jnp.float32)
    x = conv(x, self.out_channels * self.patch_size**2, name='conv_out')
    return depth_to_space(x, self.patch_size)
