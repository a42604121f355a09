"""Convolutions and projections as the published networks initialise them."""

import math

import flax.linen as nn
import jax

# PyTorch's default for convolutions and linear layers: uniform in +-1/sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def _bias_init(fan_in):
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv(x, features, size=3, *, stride=1, padding='SAME', name, **kwargs):
  """Convolution with PyTorch's default initialisation, inside a compact module: [B H W C]."""
  kwargs.setdefault('kernel_init', _kernel_init)
  return nn.Conv(
    features,
    (size, size),
    stride,
    padding,
    bias_init=_bias_init(size * size * x.shape[-1]),
    name=name,
    **kwargs,
  )(x)


def dense(x, features, *, name, **kwargs):
  """Linear layer on the last axis (a 1x1 convolution on images): [... C] -> [... features]."""
  bias_init = _bias_init(x.shape[-1])
  return nn.Dense(features, kernel_init=_kernel_init, bias_init=bias_init, name=name, **kwargs)(x)
