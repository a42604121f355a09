"""A study for tests: the demo's system at a size that nothing takes long for."""

from configs import common, rot_vqgan
from studies.sizes import SIZES
from studies.study import Axes, Study, grid


def get_config(arg=''):
  """`width=2|4`, `size=small|gpu`."""
  arg = common.parse_arg(arg, width=('2', '4'), size=SIZES)
  config = rot_vqgan.get_config('demo')
  config.name = f'toy_{arg.width}'
  config.total_steps, config.batch_size, config.data.image_size = 4, 2, 16
  config.log_every = config.eval_every = config.checkpoint_every = 2
  config.model.channels, config.model.num_blocks, config.seed_codebook_batches = 4, 1, 0
  config.model.z_channels = config.model.code_dim = int(arg.width)
  config.quantizer.num_codes = 16
  config.gan.weight = 0.0
  return config


STUDY = Study(
  question='Does width help?',
  setting='A toy.',
  claims=('It does (Nobody, 1900).',),
  config='tests/toy_study.py',
  points=grid(width=(2, 4)),
  numbers={'psnr': 'PSNR, dB', 'train/usage': 'usage in training', 'nothing': 'of nothing'},
  axes=Axes(x='width', lines='width', panels=('psnr', 'nothing')),
  options=('--quick',),
)
