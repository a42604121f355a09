"""Layers as the published networks set and initialise them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vqjax.networks.convolutions import conv3x3, upsampled_conv3x3

Array = TypeVar('Array', jax.Array, np.ndarray)  # either, and the same comes out

# PyTorch's default for convolutions and linear layers: uniform in +-1/sqrt(fan_in). It takes the
# fan-in of a transposed convolution, [size size features C] here, to be size * size * features.
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _bias_init(fan_in):
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv(
  x: jax.Array,
  features: int,
  size: int = 3,
  *,
  stride: int = 1,
  padding: str | Sequence[tuple[int, int]] = 'SAME',
  name: str,
  **kwargs: Any,
) -> jax.Array:
  """Convolution with PyTorch's default initialisation, inside a compact module: [B H W C]."""
  kwargs.setdefault('kernel_init', _kernel_init)
  if (size, stride, padding) == (3, 1, 'SAME'):
    kwargs.setdefault('conv_general_dilated', _alone(conv3x3))
  return nn.Conv(
    features,
    (size, size),
    stride,
    padding,
    bias_init=_bias_init(size * size * x.shape[-1]),
    name=name,
    **kwargs,
  )(x)


def _alone(convolution: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """In the place of `lax.conv_general_dilated` in `nn.Conv`, whose choices it does not have."""

  def convolve(x: jax.Array, kernel: jax.Array, *_: Any, **choices: Any) -> jax.Array:
    assert choices['feature_group_count'] == 1
    assert choices['precision'] is None
    assert set(choices['rhs_dilation']) == {1}
    return convolution(x, kernel)

  return convolve


def upsampled_conv(x: jax.Array, *, name: str, **kwargs: Any) -> jax.Array:
  """`conv` of the image of twice the size, each pixel repeated: [B h w C] -> [B 2h 2w C]."""
  return conv(x, x.shape[-1], name=name, conv_general_dilated=_alone(upsampled_conv3x3), **kwargs)


def dense(x: jax.Array, features: int, *, name: str, **kwargs: Any) -> jax.Array:
  """Linear layer on the last axis (a 1x1 convolution on images): [... C] -> [... features]."""
  bias_init = _bias_init(x.shape[-1])
  return nn.Dense(features, kernel_init=_kernel_init, bias_init=bias_init, name=name, **kwargs)(x)


def group_norm(x: jax.Array, groups: int, *, name: str, dtype: DTypeLike) -> jax.Array:
  """GroupNorm, eps 1e-6."""
  # The fast variance E[x^2] - E[x]^2 cancels where the mean is large.
  return nn.GroupNorm(groups, epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)(x)


def layer_norm(x: jax.Array, *, name: str, dtype: DTypeLike | None = None) -> jax.Array:
  """LayerNorm on the last axis, eps 1e-5 (PyTorch's default; Flax has 1e-6)."""
  return nn.LayerNorm(epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)(x)


def space_to_depth(x: Array, size: int) -> Array:
  """The pixels of each patch as channels: [B H W C] -> [B H/size W/size size*size*C]."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // size, size, width // size, size, channels)
  return x.swapaxes(2, 3).reshape(batch, height // size, width // size, -1)


def depth_to_space(x: Array, size: int) -> Array:
  """What undoes `space_to_depth`: [B h w size*size*C] -> [B h*size w*size C]."""
  batch, height, width, _ = x.shape
  x = x.reshape(batch, height, width, size, size, -1).swapaxes(2, 3)
  return x.reshape(batch, height * size, width * size, -1)


class PatchTranspose(nn.Module):
  """Transposed convolution whose stride is its size: [B h w C] -> [B h*size w*size features].

  The patches do not overlap, so it is one matrix product, which XLA runs many times faster on a CPU
  than a strided transposed convolution. `kernel` [size size features C] is PyTorch's weight
  (C, features, size, size), transposed by (2, 3, 1, 0); initialised by PyTorch's default.

  Attributes:
    features: output width.
    size: pixels a side of what one position becomes.
    kernel_init: of the kernel.
    dtype: of the computation; parameters are float32.
  """

  features: int
  size: int
  kernel_init: Callable[..., jax.Array] = _kernel_init
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    shape = (self.size, self.size, self.features, channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', _bias_init(math.prod(shape[:3])), (self.features,), jnp.float32)
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    x = jnp.einsum('bhwc,pqfc->bhpwqf', x, kernel)
    x = x.reshape(batch, height * self.size, width * self.size, self.features)
    return x + bias[None, None, None]
