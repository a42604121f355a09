"""Inception-v3 as FID knows it: features of images, and the classes that they show."""

import re
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqjax.errors import UserError

_POOLS = {
  'max': lambda x: nn.max_pool(x, (3, 3), padding='SAME'),
  'max/2': lambda x: nn.max_pool(x, (3, 3), (2, 2)),
  'avg': lambda x: nn.avg_pool(x, (3, 3), padding='SAME', count_include_pad=False),
}
# Steps in a row: a pool, then convolutions. '3x3:96' has 96 channels and keeps the size; '3x3/2:96'
# has stride 2 and '3x3v:96' none, and both lose the border. 'a|b' stand side by side, as do the
# branches of a block, and their channels are joined.
_BLOCKS: dict[str, str | dict[str, str]] = {
  'Conv2d_1a_3x3': '3x3/2:32',
  'Conv2d_2a_3x3': '3x3v:32',
  'Conv2d_2b_3x3': '3x3:64',
  'Conv2d_3b_1x1': 'max/2 1x1:80',
  'Conv2d_4a_3x3': '3x3v:192',
  'MaxPool_2': 'max/2',
  **{
    f'Mixed_5{letter}': {
      'branch1x1': '1x1:64',
      'branch5x5': '1x1:48 5x5:64',
      'branch3x3dbl': '1x1:64 3x3:96 3x3:96',
      'branch_pool': f'avg 1x1:{width}',
    }
    for letter, width in (('b', 32), ('c', 64), ('d', 64))
  },
  'Mixed_6a': {
    'branch3x3': '3x3/2:384',
    'branch3x3dbl': '1x1:64 3x3:96 3x3/2:96',
    'branch_pool': 'max/2',
  },
  **{
    f'Mixed_6{letter}': {
      'branch1x1': '1x1:192',
      'branch7x7': f'1x1:{width} 1x7:{width} 7x1:192',
      'branch7x7dbl': f'1x1:{width} 7x1:{width} 1x7:{width} 7x1:{width} 1x7:192',
      'branch_pool': 'avg 1x1:192',
    }
    for letter, width in (('b', 128), ('c', 160), ('d', 160), ('e', 192))
  },
  'Mixed_7a': {
    'branch3x3': '1x1:192 3x3/2:320',
    'branch7x7x3': '1x1:192 1x7:192 7x1:192 3x3/2:192',
    'branch_pool': 'max/2',
  },
  **{
    f'Mixed_7{letter}': {
      'branch1x1': '1x1:320',
      'branch3x3': '1x1:384 1x3:384|3x1:384',
      'branch3x3dbl': '1x1:448 3x3:384 1x3:384|3x1:384',
      'branch_pool': f'{pool} 1x1:192',
    }
    for letter, pool in (('b', 'avg'), ('c', 'max'))
  },
}
_SIDE = 299  # pixels
_CLASSES = 1008
# Channels that ADM's sFID takes: the first of a branch's 192, a map of 17 x 17.
_SPATIAL_BLOCK, _SPATIAL_CHANNELS = 'Mixed_6d', 7

FEATURES = 2048
SPATIAL_FEATURES = 17 * 17 * _SPATIAL_CHANNELS

# How images are resized, and with that whose numbers compare.
Protocol = Literal['pytorch_fid', 'adm']


class Inception(nn.Module):
  """Images [B H W 3] -> features [B 2048] of Inception-v3, the mean over its last 8 x 8 positions.

  Images are uint8, or floating-point in [0, 1], of any size; `prepared` resizes them by the rule of
  `protocol`: pytorch-fid's, for rFID, or that of the ADM evaluator, for gFID. The network
  is TensorFlow's of 2015-12-05, whose features the Frechet inception distance compares (Heusel et
  al., GANs Trained by a Two Time-Scale Update Rule, NeurIPS 2017): Szegedy et al., Rethinking the
  Inception Architecture for Computer Vision (CVPR 2016), with averages that leave the padding out
  and a maximum in the place of the last of them. The pretrained parameters come from
  `vqjax.weights`; they have the names of torchvision and pytorch-fid.

  Everything is float32, products too: small differences of features are what the distance is of.
  Deviation: BatchNorm, whose statistics are constants here, is part of the kernels and biases.

  Raises:
    UserError: images of another type or shape; `probabilities` with weights that have no classes.
  """

  protocol: Protocol = 'pytorch_fid'

  def setup(self) -> None:
    # Has parameters only where it is called: features need none of them.
    self.fc = nn.Dense(_CLASSES, use_bias=False, precision=jax.lax.Precision.HIGHEST)

  def __call__(self, images: jax.Array) -> jax.Array:
    return self.pooled_and_spatial(images)[0]

  @nn.compact
  def pooled_and_spatial(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images [B H W 3] -> (features [B 2048], spatial features [B 2023] of sFID).

    Those are the first 7 channels, after the ReLU, of the 1 x 1 branch of Mixed_6d, TensorFlow's
    `mixed_6/conv`, in the order (row, column, channel): the ADM evaluator's (Dhariwal & Nichol,
    Diffusion Models Beat GANs on Image Synthesis, NeurIPS 2021; Nash et al. 2021 for sFID).
    """
    x = prepared(images, self.protocol)
    for name, block in _BLOCKS.items():
      x = _branch(name, block, x) if isinstance(block, str) else _Block(block, name=name)(x)
      if name == _SPATIAL_BLOCK:  # whose first branch that is
        spatial = x[..., :_SPATIAL_CHANNELS].reshape(len(x), -1)
    return jnp.mean(x, axis=(1, 2)), spatial

  def probabilities(self, features: jax.Array) -> jax.Array:
    """Features [B 2048], as `__call__` makes them -> probabilities of the classes [B 1008].

    softmax(features @ kernel), without the classifier's bias, is what the inception score takes
    (Salimans et al., Improved Techniques for Training GANs, NeurIPS 2016). It needs the parameters
    'fc', which not every source of the weights has.
    """
    if not (self.is_initializing() or self.has_variable('params', 'fc')):
      raise UserError(
        "these weights of Inception have no classes ('fc'), which the inception score needs; "
        'run: python -m vqjax.weights inception --file=pt_inception-2015-12-05-6726825d.pth'
      )
    return jax.nn.softmax(self.fc(features))


def prepared(images: jax.Array, protocol: Protocol = 'pytorch_fid') -> jax.Array:
  """Images [B H W 3] as `Inception` takes them -> what it looks at, [B 299 299 3] in [-1, 1].

  Both rules are bilinear, without antialiasing where they shrink. That of pytorch-fid is between
  the centres of pixels, `2 x - 1` of [0, 1]; ADM's is `resized_as_by_tensorflow_1` and then
  `(x - 128) / 128` of [0, 255]. They differ by some grey levels, which moves the distance.
  """
  legal = images.dtype == jnp.uint8 or jnp.issubdtype(images.dtype, jnp.floating)
  if not legal or images.ndim != 4 or images.shape[-1] != 3:
    raise UserError(
      f'Inception got {images.dtype} of shape {images.shape}; legal: images [B H W 3], uint8 or '
      'floating-point in [0, 1].'
    )
  x = images.astype(jnp.float32)
  if protocol == 'adm':
    levels = x if images.dtype == jnp.uint8 else 255 * x
    return (resized_as_by_tensorflow_1(levels, (_SIDE, _SIDE)) - 128) / 128
  x = x / (255 if images.dtype == jnp.uint8 else 1)
  x = jax.image.resize(x, (len(x), _SIDE, _SIDE, 3), 'linear', antialias=False)
  return 2 * x - 1


def resized_as_by_tensorflow_1(images: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Bilinear as TensorFlow 1's ResizeBilinear: float32 [B H W C] -> [B H' W' C].

  Pixel i of the result lies at `i in / out` of the image, not at `(i + 1/2) in / out - 1/2`, so
  that it is shifted up and left; between the pixels `floor` and `floor + 1`, which is the last one
  at the border. Positions and weights are float32, as the kernel computes them.
  """
  x = images
  for axis, out in ((2, size[1]), (1, size[0])):  # rows of pixels first, as there
    scale = np.float32(x.shape[axis]) / np.float32(out)
    place = np.arange(out, dtype=np.float32) * scale
    low = np.floor(place).astype(np.int32)
    weight = (place - low.astype(np.float32)).reshape([out if i == axis else 1 for i in range(4)])
    before = jnp.take(x, low, axis=axis)
    after = jnp.take(x, np.minimum(low + 1, x.shape[axis] - 1), axis=axis)
    x = before + (after - before) * weight
  return x


class _Block(nn.Module):
  branches: Mapping[str, str]

  @nn.compact
  def __call__(self, x):
    outs = [_branch(name, steps, x) for name, steps in self.branches.items()]
    return jnp.concatenate(outs, axis=-1)


def _branch(name, steps, x):
  """Takes the steps; the convolutions are `name`, or `name_1`, `name_2a` and so on if several."""
  steps = steps.split()
  if steps[0] in _POOLS:
    x = _POOLS[steps.pop(0)](x)
  for number, step in enumerate(steps, 1):
    place = f'{name}_{number}' if len(steps) > 1 else name
    sides = zip('ab' if '|' in step else [''], step.split('|'), strict=True)
    x = jnp.concatenate([_conv(place + side, kind, x) for side, kind in sides], axis=-1)
  return x


def _conv(name, kind, x):
  match = re.fullmatch(r'(\d)x(\d)(v|/2)?:(\d+)', kind)
  assert match, kind  # of the table above
  height, width, border, channels = match.groups()
  return _Conv((int(height), int(width)), border or '', int(channels), name=name)(x)


class _Conv(nn.Module):
  """A convolution, its bias and ReLU, with the parameters of `nn.Conv`."""

  window: tuple[int, int]
  border: str  # of the table above
  channels: int

  @nn.compact
  def __call__(self, x):
    if self.is_initializing():
      shape = (*self.window, x.shape[-1], self.channels)
      self.param('kernel', nn.initializers.lecun_normal(), shape)
      self.param('bias', nn.initializers.zeros, (self.channels,))
    # `param` would trace the initializers too, which takes longer than all the rest.
    kernel: jax.Array = self.get_variable('params', 'kernel')
    bias: jax.Array = self.get_variable('params', 'bias')
    precision = jax.lax.Precision.HIGHEST
    if self.window == (1, 1):
      # XLA's CPU product has twice the rate of its convolution here.
      x = jnp.matmul(x, kernel[0, 0], precision=precision)
    else:
      # Without any padding XLA's CPU convolution takes five times as long at large sizes: one more
      # column on the right, whose sums are dropped.
      more = self.border == 'v'
      x = jax.lax.conv_general_dilated(
        x,
        kernel,
        (2, 2) if self.border == '/2' else (1, 1),
        ((0, 0), (0, 1)) if more else 'VALID' if self.border else 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=precision,
      )
      x = x[:, :, :-1] if more else x
    return nn.relu(x + bias[None, None, None])
