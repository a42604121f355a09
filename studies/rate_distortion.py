"""How good at how many bits: every config's demo, residual levels, and compression of old.

python train.py --config=studies/rate_distortion.py:system=residual,depth=4,size=small
"""

import importlib

from ml_collections import ConfigDict

from configs import common
from studies.sizes import SIZES, resize
from studies.study import Axes, Study, grid
from vqjax.quantizers import NormalCodebook, Residual, presets

SYSTEMS = ('rot_vqgan', 'rot_vqvae', 'vqgan', 'llamagen', 'maskgit', 'optvq', 'rot_vitvqgan')
DEPTHS = tuple(range(1, 9))


def get_config(arg=''):
  """`system=...|residual`, `depth=1|...|8` of residual alone, `size=small|gpu`."""
  depths = tuple(map(str, DEPTHS))
  arg = common.parse_arg(arg, system=(*SYSTEMS, 'residual'), depth=depths, size=SIZES)
  if arg.system == 'residual':
    config = residual(int(arg.depth))
  else:
    config = importlib.import_module(f'configs.{arg.system}').get_config('demo')
  config.name = f'rate_distortion_{arg.system}_{arg.depth}'
  resize(config, arg.size)
  return config


def residual(depth: int) -> ConfigDict:
  """The network of configs/rot_vqgan.py:demo, 4 x 4 pixels a token: half a bit a pixel a level."""
  config = importlib.import_module('configs.rot_vqgan').get_config('demo')
  config.model.patch_size = 4
  config.model.z_channels = config.model.code_dim = 16
  level = presets.taming(256).clone(codebook_init=NormalCodebook(0.1))
  config.quantizer = common.quantizer(Residual(level, depth))
  return config


STUDY = Study(
  question='How good are images at how many bits a pixel?',
  setting=(
    'The demo of each config as it is, but for the size and without its GAN, and residual '
    'quantization of 1 to 8 levels of 256 codes of width 16, 4 x 4 pixels a token, '
    'straight-through, from k-means of 16 batches. Bits are tokens times log2 of the number of '
    'codes, without entropy coding. JPEG, WebP and k-means on patches are of the same held-out '
    "images at no more than the run's bits, counted as `baselines` in its eval/metrics.json says."
  ),
  claims=(),
  config='studies/rate_distortion.py',
  points=(
    *grid(system=SYSTEMS, depth=(1,)),
    *grid(system=('residual',), depth=DEPTHS),
  ),
  numbers={
    'bits_per_pixel': 'bits/pixel',
    'psnr': 'PSNR, dB',
    'baselines/jpeg/psnr': 'JPEG PSNR',
    'baselines/webp/psnr': 'WebP PSNR',
    'baselines/kmeans_patches/psnr': 'k-means PSNR',
    'lpips': 'LPIPS',
    'baselines/jpeg/lpips': 'JPEG LPIPS',
    'baselines/webp/lpips': 'WebP LPIPS',
    'baselines/kmeans_patches/lpips': 'k-means LPIPS',
  },
  axes=Axes(x='bits_per_pixel', lines='system', panels=('psnr', 'lpips')),
)
