r"""LlamaGen's image tokenizer.

Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation
(arXiv 2406.06525).

  python train.py --config=configs/llamagen.py                # VQ-16: 16x16 tokens, 16384 codes
  python train.py --config=configs/llamagen.py:model=vq8      # VQ-8: 32x32 tokens
  python train.py --config=configs/llamagen.py:demo           # photographs, two CPU cores
  python train.py --config=configs/llamagen.py:demo,data=digits  # for the generators' demos

Data: ImageNet; shorter side to a random size between 256 and 320 (box filter by halves, then
bicubic), random crop of 256, flip; centre crop in evaluation. The perceptual term needs
`python -m vqjax.weights lpips` once.

Expected: the figures of the paper. The authors' checkpoints load with `vqjax.load`. We have not
trained this at full size; no figure of ours stands here yet.

Hardware: published at batch 128 on 8 GPUs, 40 epochs, bfloat16.

Codes and latents have length one. The discriminator is trained on the reconstructions that the
generator was judged by, not on fresh ones, as in the original.

Deviations: the average of the weights, which is optional there, is kept here; LPIPS runs without
dropout; the original's "non-saturating" loss, whose arguments are exchanged, is not offered.
"""

from configs import common
from vqjax.quantizers import presets

CHANNEL_MULT = {'vq16': (1, 1, 2, 2, 4), 'vq8': (1, 2, 2, 4)}
DEEPEST = {'vq16': 16, 'vq8': 32}  # pixels at the level that has attention


def get_config(arg=''):
  """`demo`, `data=photos|digits` of the demo, `model=vq16|vq8`."""
  arg = common.parse_arg(arg, demo=False, data=('photos', 'digits'), model=('vq16', 'vq8'))
  config = common.default()
  config.name = f'llamagen_{arg.model}'
  common.epochs(config, 40)
  config.batch_size = 128
  config.ema_decay = 0.9999

  for split in (config.data.train, config.data.eval):
    split.filter = 'box_bicubic'
    split.antialias = True
  config.data.train.resize_up_to = 320
  config.data.train.flip = True

  config.model.channel_mult = CHANNEL_MULT[arg.model]
  config.model.attn_resolutions = (DEEPEST[arg.model],)
  config.model.z_channels = 256
  config.model.code_dim = 8
  config.model.dtype = 'bfloat16'

  config.quantizer = common.quantizer(presets.llamagen())

  config.loss.l2 = 1.0
  config.loss.perceptual = 1.0
  config.gan.weight = 0.5
  config.gan.adaptive = False
  config.gan.start_steps = 20_000
  config.gan.discriminator_weight = 0.5
  config.gan.fresh_reconstructions = False

  config.optimizer.learning_rate = 1e-4
  config.optimizer.b2 = 0.95
  config.optimizer.clip_norm = 1.0

  if arg.demo and arg.data == 'digits':
    digits(config)
  elif arg.demo:
    demo(config, arg.model)
  return config


def demo(config, model):
  """The same system, small: 64-pixel photographs, 256 codes.

  l1 in place of l2, and dead codes are replaced: with the published loss and no replacement so
  short a run uses a third of its codes and ends below k-means on patches.
  """
  common.demo(config)
  common.demo_network(config, patch_size=4 if model == 'vq16' else 2)
  config.quantizer.num_codes = 256
  config.quantizer.replacement = 'rarely_used'
  config.loss.l1, config.loss.l2 = 1.0, 0.0
  config.gan.weight = 0.002  # nothing scales it: gan.adaptive is False


def digits(config):
  """A tokenizer of handwritten digits: 8 x 8 pixels are 4 x 4 tokens of 256 codes, without a GAN.

  A generator has few images to learn from, so that their tokens should be few.
  """
  config.name += '_digits'
  common.demo(config, image_size=8)
  config.name = config.name.removesuffix('_demo')
  common.digits(config)
  config.data.train.flip, config.data.train.resize_up_to = False, 0
  common.steps(config, 800)
  config.batch_size = 64
  common.demo_network(config, patch_size=2)
  config.quantizer.num_codes = 256
  config.quantizer.replacement = 'rarely_used'
  config.loss.l1, config.loss.l2 = 1.0, 0.0
  config.gan.weight = 0.0
