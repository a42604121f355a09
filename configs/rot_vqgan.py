r"""VQGAN with the rotation trick.

Fifty et al., Restructuring Vector Quantization with the Rotation Trick (ICLR 2025), Table 3:
latent-diffusion's VQGAN with the rotation trick, ImageNet 256 x 256.

  python train.py --config=configs/rot_vqgan.py                       # 64x64x3 latents, 8192 codes
  python train.py --config=configs/rot_vqgan.py:latent=32x32x4        # 32x32x4 latents, 16384 codes
  python train.py --config=configs/rot_vqgan.py:demo                  # photographs, two CPU cores
  --config.quantizer.estimator=straight_through                       # the baseline of the table

Data: ImageNet as a folder with train/ and val/ (--config.data.path), ArrayRecord or TFDS; shorter
side to 256 (bilinear without antialiasing), random crop, no flip; centre crop in evaluation.

Expected: the paper reports rFID 1.6 where the straight-through baseline has 5.0, and codebook usage
9% for 2%, on ImageNet validation (its Table 3; protocol of its code: 8-bit images without
clipping). We have not trained this at full size; no figure of ours stands here yet.

Hardware: published on one GPU, batch 16, float32. The forward pass costs 1016 GFLOP an image at
64x64x3 and 698 at 32x32x4 (256 x 256 pixels).

Deviations: the value of the rotated code is exactly the code, and degenerate rows have finite
gradients; adaptive weight and BatchNorm statistics are those of the whole batch on all devices;
LPIPS runs without dropout; the length of the run is not published: latent-diffusion's are taken,
533,066 steps for vq-f4 and 971,043 for vq-f8.
"""

from configs import common
from vqjax.quantizers import presets


def get_config(arg=''):
  """`demo`, `latent=64x64x3|32x32x4`."""
  arg = common.parse_arg(arg, demo=False, latent=('64x64x3', '32x32x4'))
  config = common.default()
  config.name = 'rot_vqgan' if arg.latent == '64x64x3' else 'rot_vqgan_32x32x4'
  config.seed = 23
  config.batch_size = 16

  config.loss.l1 = 1.0
  config.loss.perceptual = 1.0

  # 4.5e-6 times the batch of 16, constant.
  config.optimizer.learning_rate = 7.2e-5
  config.optimizer.b1 = 0.5
  config.optimizer.b2 = 0.9

  if arg.latent == '64x64x3':
    config.total_steps = 533_066
    config.model.channel_mult = (1, 2, 4)
    config.model.z_channels = config.model.code_dim = 3
    config.quantizer = common.quantizer(presets.rotation_vqgan(8192))
    config.gan.weight = 0.75
    config.gan.start_steps = 0
    config.gan.num_layers = 3
  else:
    config.total_steps = 971_043
    config.model.channel_mult = (1, 2, 2, 4)
    config.model.attn_resolutions = (32,)
    config.model.z_channels = config.model.code_dim = 4
    config.quantizer = common.quantizer(presets.rotation_vqgan(16384))
    config.gan.weight = 0.6
    config.gan.start_steps = 1
    config.gan.num_layers = 2

  if arg.demo:
    demo(config)
  return config


def demo(config):
  """The same system, small: 64-pixel photographs to 32x32 tokens, without a perceptual term.

  With the whole rotation, as in Table 1: without the radial part of the gradient, as in Table 3,
  so short a run ends 3 dB lower. Straight-through ends a decibel higher (docs/evidence.md).
  """
  common.demo(config)
  common.demo_network(config, patch_size=2)
  config.quantizer.estimator = 'rotation'
  config.ema_decay = 0.98
  config.quantizer.num_codes = 256
  config.gan.weight = 0.02
