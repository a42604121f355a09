"""What keeps colours back: the demos' network, with a GroupNorm, and a small one of VQGAN.

python train.py --config=studies/network.py:network=edsr,size=small
"""

from configs import common, rot_vqgan
from studies.sizes import SIZES, resize
from studies.study import Axes, Study, grid

NETWORKS = ('edsr', 'edsr_group_norm', 'cnn')


def get_config(arg=''):
  """`network=...`, `size=small|gpu`."""
  arg = common.parse_arg(arg, network=NETWORKS, size=SIZES)
  config = rot_vqgan.get_config('demo')
  config.name = f'network_{arg.network}'
  if arg.network == 'edsr_group_norm':
    config.model.norm_groups = 8
  elif arg.network == 'cnn':
    old, config.model = config.model, common.default().model
    config.model.update({'channels': 8, 'channel_mult': (1, 2), 'num_res_blocks': 1})
    config.model.update({'norm_groups': 2, 'mid_attention': False})
    config.model.update({name: old[name] for name in ('z_channels', 'code_dim')})
  resize(config, arg.size)
  return config


STUDY = Study(
  question='Which network learns colours in minutes?',
  setting=(
    "The quantizer of configs/rot_vqgan.py:demo, no GAN. `edsr`: the demo's network. "
    '`edsr_group_norm`: the same with a GroupNorm of 8 groups and swish before the last convolution'
    ' of encoder and decoder, where the networks of VQGAN have one. `cnn`: the network of '
    'configs/rot_vqgan.py with 8 channels, two levels and one block a level.'
  ),
  claims=(),
  config='studies/network.py',
  points=grid(network=NETWORKS),
  numbers={
    'psnr': 'PSNR, dB',
    'usage': 'usage',
    'train/l1': 'l1 in training',
    'train/images_per_second': 'images/s',
  },
  axes=Axes(x='train/images_per_second', lines='network', panels=('psnr', 'usage')),
  options=('--quick', '--nobaselines'),
)
