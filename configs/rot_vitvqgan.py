r"""ViT-VQGAN with the rotation trick.

Fifty et al., Restructuring Vector Quantization with the Rotation Trick (ICLR 2025), Table 4:
ViT-VQGAN (Yu et al., arXiv 2110.04627) as enhancing-transformers has it, ImageNet 256 x 256.

  python train.py --config=configs/rot_vitvqgan.py                            # small, rotation
  python train.py --config=configs/rot_vitvqgan.py:estimator=straight_through # the baseline
  python train.py --config=configs/rot_vitvqgan.py:size=base                  # or large
  python train.py --config=configs/rot_vitvqgan.py:demo                       # photographs, CPU

Data: ImageNet, pixels in [0, 1]; shorter side to 256 (antialiased), random crop, flip; evaluation
squeezes the whole image to 256 x 256, as the original does. The perceptual term needs
`python -m vqjax.weights lpips` once.

Expected: the numbers of the paper's Table 4. We have not trained this at full size; no figure of
ours stands here yet. The authors' checkpoints load with `vqjax.load`.

Hardware: published on two GPUs for the small model, 32 images a GPU, float32, 100 epochs. The
forward pass costs 138 GFLOP an image (small), 426 (base), 1409 (large).

Published are templates of the base and large models without a run of theirs: batches of 8 and 2 a
GPU. They have the small one's recipe here.

Deviations: R1 is of the whole batch and due every 16 steps of the run, not of the epoch; positions
are computed, not stored, so other sizes than 256 run too; LPIPS runs without dropout.
"""

from configs import common
from vqjax.quantizers import presets

# dim, depth, heads, mlp_dim.
SMALL = {'dim': 512, 'depth': 8, 'heads': 8, 'mlp_dim': 2048}
BASE = {'dim': 768, 'depth': 12, 'heads': 12, 'mlp_dim': 3072}
HUGE = {'dim': 1280, 'depth': 32, 'heads': 16, 'mlp_dim': 5120}
SIDES = {'small': (SMALL, SMALL), 'base': (BASE, BASE), 'large': (SMALL, HUGE)}
BATCH = {'small': 64, 'base': 16, 'large': 4}


def get_config(arg=''):
  """`demo`, `size=small|base|large`, `estimator=rotation|straight_through`."""
  arg = common.parse_arg(
    arg,
    demo=False,
    size=('small', 'base', 'large'),
    estimator=('rotation', 'straight_through'),
  )
  config = common.default()
  config.name = f'rot_vitvqgan_{arg.size}_{arg.estimator}'
  common.epochs(config, 100)
  config.batch_size = BATCH[arg.size]

  config.data.train.antialias = config.data.eval.antialias = True
  config.data.train.flip = True
  config.data.eval.resize = 'exact'

  config.model = common.model('vit', code_dim=32, head='linear')
  config.model.encoder, config.model.decoder = map(dict, SIDES[arg.size])
  config.model.patch_size = 8
  config.model.remat = False
  common.normal_pixels(config, mean=0.0, std=1.0)

  rotated = arg.estimator == 'rotation'
  layer = presets.rotation_vit_vqgan() if rotated else presets.vit_vqgan()
  config.quantizer = common.quantizer(layer)

  config.loss.l2 = 1.0
  config.loss.perceptual = 0.1
  config.gan.weight = 0.1
  config.gan.adaptive = False
  config.gan.discriminator = 'stylegan2'
  config.gan.channels = 128
  config.gan.discriminator_loss = 'softplus'
  config.gan.generator_loss = 'softplus'
  config.gan.r1 = 10.0
  config.gan.r1_every = 16

  config.optimizer.learning_rate = 1e-4
  config.optimizer.b2 = 0.99
  config.optimizer.weight_decay = 1e-4

  if arg.demo:
    demo(config)
  return config


def demo(config):
  """The same system, small: 64-pixel photographs to 16x16 tokens of 4 pixels a side."""
  common.demo(config)
  # What images have in common pulls all latents one way while the decoder learns it. In so short a
  # run they do not recover: one code is left. So the pixels are centred, and the codes seeded.
  common.normal_pixels(config, mean=0.45, std=0.25)
  config.seed_codebook_batches = 8
  for side in ('encoder', 'decoder'):
    config.model[side] = {'dim': 64, 'depth': 2, 'heads': 2, 'mlp_dim': 128}
  config.model.patch_size = 4
  config.model.code_dim = 8
  config.quantizer.num_codes = 256
  config.quantizer.replacement = 'rarely_used'
  config.optimizer.learning_rate = 1e-3
  config.gan.weight = 0.02
