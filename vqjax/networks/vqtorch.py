"""The autoencoder and the classifier of vqtorch's examples, for MNIST.

Huh et al., Straightening Out the Straight-Through Estimator (ICML 2023); the examples of its
library. `layers_3` is the original's `layers.3`; the numbers between are its layers without
parameters. GELU is the exact one, and follows the pooling.
"""

import functools
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vqjax.networks.layers import conv, dense

_gelu = functools.partial(nn.gelu, approximate=False)
_pool = functools.partial(nn.max_pool, window_shape=(2, 2), strides=(2, 2))


class VQTorchEncoder(nn.Module):
  """Images [B H W C] -> latents [B H/4 W/4 2*channels]; the trunk of both.

  Attributes:
    channels: width of the first layer.
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
    x = _gelu(_pool(conv(x, self.channels, name='layers_0', dtype=self.dtype)))
    return _pool(conv(x, 2 * self.channels, name='layers_3', dtype=self.dtype))


class VQTorchDecoder(nn.Module):
  """Latents [B h w z] -> images float32 [B 4h 4w out_channels], clamped to [-1, 1].

  As in the original, a pixel outside [-1, 1] gets no gradient.

  Attributes:
    channels: width of the first layer.
    out_channels: channels of the images; grey in the original.
    dtype: of the computation; parameters are float32.
  """

  channels: int = 16
  out_channels: int = 1
  dtype: DTypeLike = jnp.float32

  downsample = 4
  width_in: ClassVar[int | None] = None
  last_kernel = ('layers_10', 'kernel')
  classifies = False

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    double = lambda x: x.repeat(2, axis=1).repeat(2, axis=2)
    x = _gelu(conv(double(z), self.channels, name='layers_7', dtype=self.dtype))
    # The image leaves in float32: losses and rounding to 8 bits need it.
    x = conv(double(x.astype(jnp.float32)), self.out_channels, name='layers_10')
    return jnp.clip(x, -1, 1)


class VQTorchClassifier(nn.Module):
  """Latents [B h w z] -> logits float32 [B num_classes]: it stands where a decoder does.

  Attributes:
    channels: a quarter of its width: the width of the encoder's first layer.
    num_classes: number of logits.
    dtype: of the computation; parameters are float32.
  """

  channels: int = 16
  num_classes: int = 10
  dtype: DTypeLike = jnp.float32

  width_in: ClassVar[int | None] = None
  last_kernel = ('layers_9', 'kernel')
  classifies = True

  @nn.compact
  def __call__(self, z: jax.Array, train: bool = False) -> jax.Array:
    del train
    x = conv(z, 4 * self.channels, name='layers_6', dtype=self.dtype)
    x = jnp.max(x, axis=(1, 2)).astype(jnp.float32)
    return dense(x, self.num_classes, name='layers_9')
