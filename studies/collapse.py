"""What keeps codes in use: one cure at a time, by the number of codes.

python train.py --config=studies/collapse.py:method=replacement,codes=4096,size=small
"""

from configs import common, rot_vqgan
from studies.sizes import SIZES, resize
from studies.study import Axes, Study, grid
from vqjax.quantizers import (
  Affine,
  Alternating,
  LeastRecent,
  NamedOptimizer,
  NormalCodebook,
  Quantizer,
  RarelyUsed,
  Sync,
  VectorQuantizer,
  presets,
)

CODES = (256, 4_096, 65_536)
LEVELS = {256: (8, 6, 5), 4_096: (7, 5, 5, 5, 5), 65_536: (8, 8, 8, 5, 5, 5)}  # of FSQ
METHODS = (
  'plain',
  'kmeans',
  'replacement',
  'affine',
  'sync',
  'alternating',
  'vqtorch',
  'sinkhorn',
  'simvq',
  'fsq',
  'lfq',
)
SEEDED = ('kmeans', 'vqtorch')
WIDTH = 8  # of the codes, where a method is free to choose


def layer(method: str, codes: int) -> Quantizer:
  """The quantizer of a method: the plain one with one field changed, or a published system."""
  plain = VectorQuantizer(codes, codebook_init=NormalCodebook(0.1))
  match method:
    case 'plain' | 'kmeans':
      return plain
    case 'replacement':
      return plain.clone(replacement=RarelyUsed())
    case 'affine':
      return plain.clone(transform=Affine())
    case 'sync':
      return plain.clone(estimator=Sync())
    case 'alternating':
      adam = NamedOptimizer.of('adam', learning_rate=1e-2)
      return plain.clone(learner=Alternating(adam))
    case 'vqtorch':
      return plain.clone(estimator=Sync(), transform=Affine(), replacement=LeastRecent())
    case 'sinkhorn':
      return presets.optvq(codes, heads=1).base
    case 'simvq':
      return presets.simvq(codes)
    case 'fsq':
      return presets.fsq(LEVELS[codes])
    case 'lfq':
      return presets.magvit2(codes.bit_length() - 1)
  raise AssertionError(method)


def get_config(arg=''):
  """`method=...`, `codes=256|4096|65536`, `size=small|gpu`."""
  arg = common.parse_arg(arg, method=METHODS, codes=tuple(map(str, CODES)), size=SIZES)
  codes = int(arg.codes)
  config = rot_vqgan.get_config('demo')
  config.name = f'collapse_{arg.method}_{codes}'
  config.model.patch_size = 4  # 4 pixels a token: time for large codebooks
  config.model.z_channels = config.model.code_dim = WIDTH
  if arg.method == 'fsq':
    config.model.code_dim = len(LEVELS[codes])
  elif arg.method == 'lfq':
    config.model.code_dim = codes.bit_length() - 1
  config.quantizer = common.quantizer(layer(arg.method, codes))
  config.seed_codebook_batches = 16 if arg.method in SEEDED else 0
  resize(config, arg.size)
  return config


STUDY = Study(
  question='What keeps codes in use?',
  setting=(
    'The network of configs/rot_vqgan.py:demo with one more halving, 4 x 4 pixels a token, codes '
    'of width 8, no GAN. `plain`: straight-through, the codebook by gradient, codes drawn with a '
    'standard deviation of 0.1. `kmeans` (of 16 batches), `replacement` (RarelyUsed), `affine`, '
    '`sync` and `alternating` (Adam, 0.01) are each one change to it; `vqtorch` is k-means, sync,'
    " affine and LeastRecent together. `sinkhorn` is OptVQ's layer of one head, `simvq`, `fsq` "
    'and `lfq` are those of their papers; FSQ has 240, 4375 and 64,000 codes. Evaluation takes '
    'the nearest code. `usage` and perplexity of held-out images cannot exceed the number of '
    'their tokens, which is below that of the largest codebooks; those of training are of all '
    'tokens in its last quarter, assigned as training does, which for Sinkhorn is evenly.'
  ),
  claims=(
    'Sinkhorn: 100% of 16,384 codes in use (Zhang et al., arXiv 2412.15195, ImageNet).',
    'Affine, synchronised and alternating updates each improve on what goes before '
    '(Huh et al., ICML 2023).',
    'SimVQ: 100% of 65,536 codes (Zhu et al., arXiv 2411.02038, ImageNet 128 x 128); FSQ and LFQ '
    'likewise, as SimVQ reports them.',
  ),
  config='studies/collapse.py',
  points=grid(codes=CODES, method=METHODS),
  numbers={
    'usage': 'usage',
    'train/usage': 'usage in training',
    'perplexity': 'perplexity',
    'train/perplexity': 'perplexity in training',
    'psnr': 'PSNR, dB',
    'train/images_per_second': 'images/s',
  },
  axes=Axes(
    x='codes',
    lines='method',
    panels=('train/usage', 'train/perplexity', 'psnr'),
  ),
  options=('--quick', '--nobaselines'),
)
