r"""The tokenizer of MaskGIT.

Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022), the VQGAN of its code.

  python train.py --config=configs/maskgit.py          # 16x16 tokens, 1024 codes
  python train.py --config=configs/maskgit.py:demo     # photographs, two CPU cores

Data: ImageNet, pixels in [0, 1]. The trainer and its augmentation were never released: a random
resized crop and flips are taken. The perceptual term needs `python -m vqjax.weights lpips` once.

Expected: the figures of the paper. The authors' checkpoint loads with `vqjax.load`, in flax's
format or as the PyTorch port of 1d-tokenizer. We have not trained this at full size; no figure of
ours stands here yet.

Hardware: batch 256, one million steps, on TPUs.

Deviations: the original's perceptual term takes features of a network that was not released, LPIPS
here; what its penalty of cost 10 is multiplied by is read as half the squared slopes in every step.
"""

from configs import common
from vqjax.quantizers import presets


def get_config(arg=''):
  """`demo`."""
  arg = common.parse_arg(arg, demo=False)
  config = common.default()
  config.name = 'maskgit'
  config.total_steps = 1_000_000
  config.batch_size = 256
  config.ema_decay = 0.999

  for split in (config.data.train, config.data.eval):
    split.filter = 'bicubic'
    split.antialias = True
  config.data.train.crop = 'random_resized'
  config.data.train.flip = True

  config.model = common.model('maskgit', code_dim=256, head='none')
  config.model.channels = 128
  config.model.channel_mult = (1, 1, 2, 2, 4)
  config.model.num_res_blocks = 2  # a level and in the middle, in encoder and decoder
  config.model.z_channels = 256
  config.model.norm_groups = 32
  config.model.remat = False
  common.normal_pixels(config, mean=0.0, std=1.0)

  config.quantizer = common.quantizer(presets.maskgit())

  config.loss.l2 = 1.0
  config.loss.perceptual = 0.1
  config.gan.weight = 0.1
  config.gan.adaptive = False
  config.gan.discriminator = 'maskgit'
  config.gan.discriminator_loss = 'softplus'
  config.gan.discriminator_weight = 2.0  # the sum of both terms, where `softplus` is their mean
  config.gan.generator_loss = 'softplus'
  config.gan.r1 = 10.0
  config.gan.r1_every = 1

  config.optimizer.learning_rate = 1e-4
  config.optimizer.b1 = 0.0
  config.optimizer.b2 = 0.99

  if arg.demo:
    demo(config)
  return config


def demo(config):
  """The same system, small: 64-pixel photographs, 256 codes.

  With l1 for l2, and a quarter of the weight for the terms of the quantizer: of pixels in [0, 1]
  squared errors are small, and so short a run would end below k-means on patches.
  """
  common.demo(config)
  common.demo_network(config, patch_size=4)
  config.quantizer.num_codes = 256
  config.loss.l1, config.loss.l2 = 1.0, 0.0
  config.loss.quantizer = 0.25
  config.gan.weight = 0.002  # nothing scales it: gan.adaptive is False
