r"""VQGAN of taming-transformers, and the first stages of latent-diffusion.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (CVPR 2021), and Rombach et
al., High-Resolution Image Synthesis with Latent Diffusion Models (CVPR 2022).

  python train.py --config=configs/vqgan.py                      # imagenet_f16_1024
  python train.py --config=configs/vqgan.py:model=NAME
  python train.py --config=configs/vqgan.py:demo                 # photographs, two CPU cores

| NAME               | latent (256 px) | codes | rFID (validation) reported |
| ------------------ | --------------- | ----- | -------------------------- |
| imagenet_f16_1024  | 16x16x256       | 1024  | 7.94                       |
| imagenet_f16_16384 | 16x16x256       | 16384 | 4.98                       |
| f4                 | 64x64x3         | 8192  | 0.58                       |
| f4_noattn          | 64x64x3         | 8192  | 1.06                       |
| f8                 | 32x32x4         | 16384 | 1.14                       |
| f8_n256            | 32x32x4         | 256   | 1.49                       |
| f16                | 16x16x8         | 16384 | 5.15                       |

Those are the authors' figures, each on its own data, of their checkpoints, which `vqjax.load`
loads; we have trained none at full size. The perceptual term needs `python -m vqjax.weights lpips`
once.

Data: shorter side to 256 (bilinear without antialiasing), random crop, no flip; centre crop in
evaluation. latent-diffusion trained on OpenImages, of which it never released the class: f8,
f8_n256 and f16 resize to 384 and crop 256, f4 and f4_noattn crop without resizing.

Hardware: batches of 8 to 14 a GPU, float32; the numbers of GPUs are not published. Learning rates
are 4.5e-6 for each image of a batch, on one GPU here: multiply both by yours. Steps of the taming
models are not published: 500,000 here.

Deviations: the adaptive weight and BatchNorm statistics are of the whole batch on all devices;
LPIPS runs without dropout, which the originals leave active by accident.
"""

from configs import common
from vqjax.quantizers import presets

# latent: (channel_mult, attn_resolutions, z_channels and code_dim); then codes, discriminator's
# layers, weight and start of the GAN term, batch, steps.
MODELS = {
  'imagenet_f16_1024': ((1, 1, 2, 2, 4), (16,), 256, 1024, 3, 0.8, 0, 12, 500_000),
  'imagenet_f16_16384': ((1, 1, 2, 2, 4), (16,), 256, 16384, 2, 0.75, 0, 12, 500_000),
  'f4': ((1, 2, 4), (), 3, 8192, 3, 0.75, 0, 8, 533_066),
  'f4_noattn': ((1, 2, 4), (), 3, 8192, 3, 0.75, 11, 8, 658_131),
  'f8': ((1, 2, 2, 4), (32,), 4, 16384, 2, 0.6, 1, 10, 971_043),
  'f8_n256': ((1, 2, 2, 4), (32,), 4, 256, 3, 0.75, 250_001, 10, 1_608_649),
  'f16': ((1, 1, 2, 2, 4), (16,), 8, 16384, 2, 0.75, 250_001, 14, 1_101_166),
}


def get_config(arg=''):
  """`demo`, `model=NAME`."""
  arg = common.parse_arg(arg, demo=False, model=tuple(MODELS))
  config = common.default()
  config.name = f'vqgan_{arg.model}'
  config.seed = 23
  mult, attention, width, codes, layers, weight, start, batch, steps = MODELS[arg.model]
  config.batch_size = batch
  config.total_steps = steps

  config.model.channel_mult = mult
  config.model.attn_resolutions = attention
  config.model.mid_attention = arg.model != 'f4_noattn'
  config.model.z_channels = config.model.code_dim = width

  config.quantizer = common.quantizer(presets.taming(codes))

  config.loss.l1 = 1.0
  config.loss.perceptual = 1.0
  config.gan.weight = weight
  config.gan.start_steps = start
  config.gan.num_layers = layers

  config.optimizer.learning_rate = 4.5e-6 * batch
  config.optimizer.b1 = 0.5
  config.optimizer.b2 = 0.9

  if arg.model in ('f8', 'f8_n256', 'f16'):
    config.data.train.resize_size = config.data.eval.resize_size = 384
  elif arg.model in ('f4', 'f4_noattn'):
    config.data.train.resize = config.data.eval.resize = 'none'
    config.data.train.small = config.data.eval.small = 'upscale'

  if arg.demo:
    demo(config, arg.model)
  return config


def demo(config, model):
  """The same system, small: 64-pixel photographs, 256 codes."""
  common.demo(config)
  common.demo_network(config, patch_size=2 if model.startswith('f4') else 4)
  config.quantizer.num_codes = 256
  config.gan.weight = 0.02
