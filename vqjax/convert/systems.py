"""The published systems: a network's config read off its tensors, and what its keys are called."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vqjax.convert import names
from vqjax.errors import UserError
from vqjax.networks import vit
from vqjax.quantizers import presets, spec, straight_through
from vqjax.tensor_files import Record

_Tensors = Mapping[str, np.ndarray]  # by their keys
_Config = dict[str, Any]  # a part of a config


@dataclasses.dataclass(frozen=True)
class Format:
  """One family of checkpoints.

  Attributes:
    marks: patterns of keys. A checkpoint is of the first family in `FORMATS` of which every pattern
      fits one of its keys.
    describe: function (tensors, the file's other content) -> (model, quantizer).
    names: function (model) -> their keys for our paths.
    skip: pattern of the keys that are no part of the tokenizer or its discriminator.
    buffers: function (model, image size) -> {key: array} that the originals keep beside weights.
  """

  marks: tuple[str, ...]
  describe: Callable[[_Tensors, Mapping[str, Any]], tuple[_Config, _Config]]
  names: Callable[[_Config], names.Names]
  skip: str = '$^'
  buffers: Callable[[_Config, int], dict[str, np.ndarray]] = lambda model, size: {}


_HALF = {'pixel_mean': (0.5, 0.5, 0.5), 'pixel_std': (0.5, 0.5, 0.5)}  # pixels in [-1, 1]
_UNIT = {'pixel_mean': (0.0, 0.0, 0.0), 'pixel_std': (1.0, 1.0, 1.0)}  # pixels in [0, 1]
_CLIP = {'pixel_mean': (0.4815, 0.4578, 0.4082), 'pixel_std': (0.2686, 0.2613, 0.2758)}


def _indices(tensors, pattern):
  """Values that the group of a pattern takes in the keys, ascending."""
  return sorted({int(match[1]) for key in tensors if (match := re.match(pattern, key))})


def _cnn(tensors, level='down', block='block', middle='mid.attn_1'):
  """Fields of the convolutional autoencoder; where attention sits is counted from 256 pixels."""
  channels = tensors['encoder.conv_in.weight'].shape[0]
  levels = _indices(tensors, rf'encoder\.{level}\.(\d+)\.')
  width = lambda i: tensors[f'encoder.{level}.{i}.{block}.0.conv1.weight'].shape[0]
  attention = _indices(tensors, rf'encoder\.{level}\.(\d+)\.attn\.')
  return {
    'network': 'cnn',
    'channels': channels,
    'channel_mult': tuple(width(i) // channels for i in levels),
    'num_res_blocks': len(_indices(tensors, rf'encoder\.{level}\.0\.{block}\.(\d+)\.')),
    'attn_resolutions': tuple(256 >> i for i in attention),
    'resolution': 256,
    'mid_attention': f'encoder.{middle}.q.weight' in tensors,
    'z_channels': tensors['encoder.conv_out.weight'].shape[0],
    'out_channels': tensors['decoder.conv_out.weight'].shape[0],
    'dtype': 'float32',
    'unit_latents': False,
    **_HALF,
  }


def _vqgan(tensors, _):
  num_codes, code_dim = tensors['quantize.embedding.weight'].shape
  model = _cnn(tensors) | {'code_dim': code_dim, 'head': 'linear'}
  return model, spec(presets.taming(num_codes))


def _rotation_vqvae(tensors, content):
  arguments = content.get('args')
  arguments = arguments.state if isinstance(arguments, Record) else None
  arguments = arguments if isinstance(arguments, dict) else {}
  _, num_codes, code_dim = tensors['vq._codebook.embed'].shape
  length = np.linalg.norm(np.asarray(tensors['vq._codebook.embed'][0], np.float32), axis=-1)
  # The arguments of the run say it; without them, codes of length one do.
  cosine = arguments.get('codebook', 'cosine' if np.allclose(length, 1, atol=1e-3) else 'euclidean')
  cosine = cosine == 'cosine'
  head = 'none'
  if 'pre_quant_proj.0.weight' in tensors:
    head = 'linear_norm' if 'pre_quant_proj.1.weight' in tensors else 'linear'
  model = _cnn(tensors) | _CLIP | {'code_dim': code_dim, 'head': head, 'unit_latents': cosine}
  rotated = arguments.get('model', 'rot_vqvae') == 'rot_vqvae'
  layer = presets.rotation_vqvae(num_codes, cosine=cosine)
  return model, spec(layer if rotated else layer.clone(estimator=straight_through))


def _optvq(tensors, _):
  num_codes, width = tensors['quantize.embedding.weight'].shape
  code_dim = tensors['quant_conv.weight'].shape[0]
  groups, rest = divmod(code_dim, width)
  if rest:
    raise UserError(
      f'the latents are {code_dim} wide and the codes {width}, which does not divide them; legal '
      'for OptVQ: equal heads.'
    )
  # Its tokens by the nearest code: the authors' own depend on the rest of the batch.
  quantizer = spec(presets.optvq(num_codes, groups))
  if 'encoder.in_fc.weight' not in tensors:
    return _cnn(tensors) | {'code_dim': code_dim, 'head': 'linear'}, quantizer
  channels = tensors['decoder.out_fc.weight'].shape[0]
  model = {
    'network': 'optvq_small',
    'out_channels': channels,
    'channels': tensors['encoder.in_fc.weight'].shape[0],
    'code_dim': code_dim,
    'head': 'linear',
    'dtype': 'float32',
    'unit_latents': False,
    'pixel_mean': (0.5,) * channels,
    'pixel_std': (0.5,) * channels,
  }
  return model, quantizer


def _llamagen(tensors, _):
  num_codes, code_dim = tensors['quantize.embedding.weight'].shape
  model = _cnn(tensors, 'conv_blocks', 'res', 'mid.1')
  model |= {'code_dim': code_dim, 'head': 'linear'}
  return model, spec(presets.llamagen(num_codes))


def _vit_vqgan(tensors, _):
  num_codes, code_dim = tensors['quantizer.embedding.weight'].shape
  sides = {}
  for side, position in (('encoder', 'en_pos_embedding'), ('decoder', 'de_pos_embedding')):
    key, stack = f'{side}.{position}', rf'{side}\.transformer\.layers\.(\d+)\.'
    _, count, dim = tensors[key].shape
    grid = math.isqrt(count)
    fixed = vit.positions(grid, grid, dim).reshape(-1, dim)
    if len(fixed) != count or not np.allclose(tensors[key][0], fixed, atol=1e-5):
      raise UserError(
        f'{key} holds positions of its own; legal: the fixed two-dimensional sines that the '
        'published models have.'
      )
    layer = f'{side}.transformer.layers.0'
    sides[side] = {
      'dim': dim,
      'depth': len(_indices(tensors, stack)),
      'heads': tensors[f'{layer}.0.fn.to_qkv.weight'].shape[0] // (3 * vit.HEAD_DIM),
      'mlp_dim': tensors[f'{layer}.1.fn.net.0.weight'].shape[0],
    }
  model = {
    'network': 'vit',
    **sides,
    'patch_size': tensors['encoder.to_patch_embedding.0.weight'].shape[-1],
    'out_channels': tensors['decoder.to_pixel.1.weight'].shape[1],
    'code_dim': code_dim,
    'head': 'linear',
    'dtype': 'float32',
    'unit_latents': False,
    **_UNIT,
  }
  return model, spec(presets.vit_vqgan(num_codes))


def _maskgit(tensors, _):
  kernel = lambda key: tensors[f'{key}.weight'].shape
  levels = _indices(tensors, r'encoder\.down\.(\d+)\.')
  widths = [kernel(f'encoder.down.{i}.block.0.conv1')[0] for i in levels]
  blocks = len(_indices(tensors, r'encoder\.down\.0\.block\.(\d+)\.'))
  channels, z_channels = kernel('encoder.conv_in')[0], kernel('encoder.conv_out')[0]
  num_codes = kernel('quantize.embedding')[0]
  return _maskgit_config(channels, widths, blocks, z_channels, num_codes)


def _maskgit_flax(tensors, _):
  kernel = lambda key: tensors[f'params/encoder/{key}/kernel'].shape
  levels = len(_indices(tensors, r'params/decoder/Conv_(\d+)/')) - 1
  # As many in the middle as on every level.
  blocks = len(_indices(tensors, r'params/encoder/ResBlock_(\d+)/')) // (levels + 1)
  widths = [kernel(f'ResBlock_{i * blocks}/Conv_0')[-1] for i in range(levels)]
  channels, z_channels = kernel('Conv_0')[-1], kernel('Conv_1')[-1]
  num_codes = tensors['params/quantizer/codebook'].shape[0]
  return _maskgit_config(channels, widths, blocks, z_channels, num_codes)


def _maskgit_config(channels, widths, blocks, z_channels, num_codes):
  model = {
    'network': 'maskgit',
    'channels': channels,
    'channel_mult': tuple(width // channels for width in widths),
    'num_res_blocks': blocks,
    'z_channels': z_channels,
    'code_dim': z_channels,
    'head': 'none',
    'dtype': 'float32',
    'unit_latents': False,
    **_UNIT,
  }
  return model, spec(presets.maskgit(num_codes))


def _positions(model, image_size):
  grid = image_size // model['patch_size']
  return {
    f'{side}.{key}': vit.positions(grid, grid, model[side]['dim']).reshape(1, grid**2, -1)
    for side, key in (('encoder', 'en_pos_embedding'), ('decoder', 'de_pos_embedding'))
  }


def _own(tensors, content):
  config = json.loads(content['metadata']['config'])
  return config['model'], config['quantizer']


# Our own files: they hold the config, and their keys are our own paths.
OWN = 'vqjax'

# In the order in which they are tried.
FORMATS = {
  'rotation_vqvae': Format(
    marks=(r'vq\._codebook\.embed$',),
    describe=_rotation_vqvae,
    names=lambda model: names.ROTATION_VQVAE,
    skip=r'^vq\._codebook\.initted$',
    buffers=lambda model, size: {'vq._codebook.initted': np.ones(1, np.float32)},
  ),
  'llamagen': Format(
    marks=(r'encoder\.conv_blocks\.0\.',),
    describe=_llamagen,
    names=lambda model: names.llamagen(len(model['channel_mult'])),
    skip=r'^quantize\.codebook_used$',
    buffers=lambda model, size: {'quantize.codebook_used': np.zeros(65536, np.float32)},
  ),
  'vit_vqgan': Format(
    marks=(r'encoder\.to_patch_embedding\.',),
    describe=_vit_vqgan,
    names=lambda model: names.VIT_VQGAN,
    skip=r'^loss\.perceptual_loss\.|^(en|de)coder\.(en|de)_pos_embedding$',
    buffers=_positions,
  ),
  'optvq': Format(
    marks=(r'quantize\.proj\.', r'quant_conv\.weight$'),
    describe=_optvq,
    names=lambda model: names.OPTVQ,
    skip=r'^loss\.perceptual_loss\.',
  ),
  'vqgan': Format(
    marks=(r'quantize\.embedding\.weight$', r'quant_conv\.weight$', r'encoder\.down\.0\.'),
    describe=_vqgan,
    names=lambda model: names.VQGAN,
    skip=r'^(loss\.perceptual_loss|model_ema)\.|^quantize\.used$|^colorize$',
  ),
  'maskgit': Format(
    marks=(r'encoder\.mid\.0\.', r'decoder\.up\.0\.block\.0\.'),
    describe=_maskgit,
    names=lambda model: names.MASKGIT,
  ),
  'maskgit_flax': Format(
    marks=(r'params/encoder/ResBlock_0/',),
    describe=_maskgit_flax,
    names=lambda model: names.maskgit_flax(len(model['channel_mult']), model['num_res_blocks']),
  ),
  OWN: Format(
    marks=(r'encoder/', r'decoder/'),
    describe=_own,
    names=lambda model: names.OWN,
  ),
}
