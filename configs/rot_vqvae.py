r"""VQ-VAE with the rotation trick.

Fifty et al., Restructuring Vector Quantization with the Rotation Trick (ICLR 2025), Table 1:
VQ-VAE with an EMA codebook, Euclidean or cosine, trained with mean squared error, ImageNet 256.

  python train.py --config=configs/rot_vqvae.py                              # cosine, 16x16x32
  python train.py --config=configs/rot_vqvae.py:codebook=euclidean
  python train.py --config=configs/rot_vqvae.py:latent=64x64x3               # 8192 codes
  python train.py --config=configs/rot_vqvae.py:estimator=straight_through   # the baseline
  python train.py --config=configs/rot_vqvae.py:demo                         # photographs, CPU

Data: ImageNet as a folder with train/ and val/ (--config.data.path), ArrayRecord or TFDS; centre
crop of 256 without resizing, smaller images padded with zeros; no flip; the same in evaluation.

Expected: the numbers of the paper's Table 1. We have not trained this at full size; no figure of
ours stands here yet.

Hardware: published on two GPUs for the straight-through baseline, 32 images a GPU, 8 micro-batches,
bfloat16. The forward pass costs 391 GFLOP an image at 16x16x32 and 1016 at 64x64x3.

The paper's flag f=8 is a network with four downsamplings, hence the latent of 16x16x32. For 64x64x3
the number of GPUs and micro-batches is not published: 256 images a step are taken, and the
same schedule.

Deviations: training sees all of ImageNet (the original's sampler shows the same 160,000 images in
every epoch); evaluation clips before rounding to 8 bits (the original's wraps around); the
quantizer's arithmetic is float32 (the original's rotation runs in bfloat16).
"""

from configs import common
from vqjax.quantizers import presets, straight_through


def get_config(arg=''):
  """`demo`, `codebook=cosine|euclidean`, `latent=16x16x32|64x64x3`, `estimator=...`."""
  arg = common.parse_arg(
    arg,
    demo=False,
    codebook=('cosine', 'euclidean'),
    latent=('16x16x32', '64x64x3'),
    estimator=('rotation', 'straight_through'),
  )
  config = common.default()
  config.name = f'rot_vqvae_{arg.codebook}_{arg.latent}_{arg.estimator}'
  config.total_steps = 31_200

  config.data.train.resize = config.data.eval.resize = 'none'
  config.data.train.crop = config.data.eval.crop = 'center'
  config.data.train.small = config.data.eval.small = 'pad'
  # Mean and standard deviation of CLIP's training images.
  config.model.pixel_mean = (0.4815, 0.4578, 0.4082)
  config.model.pixel_std = (0.2686, 0.2613, 0.2758)

  cosine = arg.codebook == 'cosine'
  config.model.dtype = 'bfloat16'
  config.model.unit_latents = cosine
  # Counts start at 0 and unused codes are left to drift, as published; init_count=1 and hold=True
  # are the better choice for a run of your own.
  layer = presets.rotation_vqvae(1024 if arg.latent == '16x16x32' else 8192, cosine=cosine)
  if arg.estimator == 'straight_through':
    layer = layer.clone(estimator=straight_through)
  config.quantizer = common.quantizer(layer)

  config.accumulate = 8
  config.accumulate_gradients = 'sum'
  config.loss.l2 = 1.0
  config.optimizer.b2 = 0.99
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 1.0
  config.optimizer.schedule = 'cosine'
  config.optimizer.warmup_steps = 3_000
  config.optimizer.decay_steps = 50_000
  config.optimizer.final_fraction = 0.5

  if arg.latent == '16x16x32':
    config.batch_size = 512
    config.optimizer.learning_rate = 1e-4
    config.model.channel_mult = (1, 1, 2, 2, 4)
    config.model.attn_resolutions = (16,)
    config.model.z_channels = 256
    config.model.code_dim = 32
    config.model.head = 'linear_norm' if cosine else 'linear'
  else:
    config.batch_size = 256
    config.optimizer.learning_rate = 5e-5
    config.model.channel_mult = (1, 2, 4)
    config.model.z_channels = config.model.code_dim = 3
    config.model.head = 'none'

  if arg.demo:
    demo(config, arg)
  return config


def demo(config, arg):
  """The same system, small: 64-pixel photographs, few codes, short warm-up, dead codes replaced."""
  common.demo(config)
  config.quantizer.num_codes = 256
  config.quantizer.learner.decay = 0.98  # of 4 images a step, not of 512
  config.quantizer.learner.init_count = 1.0
  config.quantizer.learner.hold = True
  config.quantizer.replacement = 'rarely_used'
  common.demo_network(config, patch_size=4 if arg.latent == '16x16x32' else 2)
