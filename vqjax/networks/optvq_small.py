"""OptVQ's networks for CIFAR-10 and MNIST: six convolutions each, four pixels per token side.

Zhang et al., Preventing Local Pitfalls in Vector Quantization via Optimal Transport (arXiv
2412.15195). Its networks for ImageNet are those of `cnn.py`. Module names are the original's keys.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.networks.layers import PatchTranspose, conv


class OptVQSmallEncoder(nn.Module):
  """Images [B H W C] -> latents [B H/4 W/4 2*channels].

  Attributes:
    channels: width of all layers but the last two.
    dtype: of the computation; parameters are float32.
  """

  channels: int = 16
  dtype: DTypeLike = jnp.float32

  downsample = 4

  @property
  def width_out(self) -> int:
    """Width of the latents."""
    return 2 * self.channels

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    del train  # nothing here differs
    halve: dict[str, Any] = {'size': 2, 'stride': 2, 'padding': 'VALID', 'dtype': self.dtype}
    x = nn.relu(conv(x, self.channels, name='in_fc', dtype=self.dtype))
    x = conv(x, self.channels, name='down1', **halve)
    x = nn.relu(conv(x, self.channels, name='conv1', dtype=self.dtype))
    x = conv(x, self.channels, name='down2', **halve)
    x = nn.relu(conv(x, 2 * self.channels, name='conv2', dtype=self.dtype))
    return conv(x, 2 * self.channels, name='out_fc', dtype=self.dtype)


class OptVQSmallDecoder(nn.Module):
  """Latents [B h w z] -> images float32 [B 4h 4w out_channels], without an output activation.

  Attributes:
    channels: width of all layers but the first.
    out_channels: channels of the images.
    dtype: of the computation; parameters are float32.
  """

  channels: int = 16
  out_channels: int = 3
  dtype: DTypeLike = jnp.float32

  downsample = 4
  width_in: ClassVar[int | None] = None
  last_kernel = ('out_fc', 'kernel')
  classifies = False

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    double = lambda name: PatchTranspose(self.channels, 2, dtype=self.dtype, name=name)
    x = nn.relu(conv(z, 2 * self.channels, name='in_fc', dtype=self.dtype))
    x = nn.relu(conv(double('up1')(x), self.channels, name='conv1', dtype=self.dtype))
    x = nn.relu(conv(double('up2')(x), self.channels, name='conv2', dtype=self.dtype))
    # The image leaves in float32: losses and rounding to 8 bits need it.
    return conv(x.astype(jnp.float32), self.out_channels, name='out_fc')
