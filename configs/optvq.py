r"""OptVQ: codes assigned by optimal transport, so that all are used.

Zhang et al., Preventing Local Pitfalls in Vector Quantization via Optimal Transport
(arXiv 2412.15195).

  python train.py --config=configs/optvq.py                               # f16_h4
  python train.py --config=configs/optvq.py:model=f16_h4|f16_h8|f32_h8|cifar10|mnist
  python train.py --config=configs/optvq.py:method=vqbase                 # the plain baseline
  python train.py --config=configs/optvq.py:method=vqgan                  # one head, no projection
  python train.py --config=configs/optvq.py:demo                          # photographs, CPU

Data: ImageNet; shorter side to 256, random resized crop, colour jitter, blur, flip; centre crop in
evaluation. cifar10 and mnist come through TFDS, resized to 32 pixels. The perceptual term of the
ImageNet models needs `python -m vqjax.weights lpips` once.

Expected, by the paper on ImageNet validation at 256 pixels: 16x16x4 SSIM 0.717, PSNR 26.59 dB,
LPIPS 0.076, rFID 1.00; 16x16x8 0.729, 27.57 dB, 0.066, 0.91. Its PSNR and SSIM are of the luma
channel, its images are not rounded to 8 bits, and its tokens depend on the rest of the batch. The
authors' checkpoints load with `vqjax.load`. We have not trained this at full size.

Hardware: published on 8 GPUs (RTX 4090), 8 images a GPU, 50 epochs, about 8 days, float32.

Evaluation and tokenizing take the nearest code; as the authors do it:
--config.quantizer.base.eval_assign=sinkhorn.

Deviations: Sinkhorn's statistics of the cost are of the whole batch on all devices; the
discriminator's step applies its own gradient alone (the original adds what the generator's loss
left there); the linear layers of LPIPS take no part in clipping; the counter that starts the GAN
does not advance in evaluation; jitter rounds where the original truncates.
"""

from configs import common
from vqjax.quantizers import presets

# channel_mult, attn_resolutions, heads.
IMAGENET = {
  'f16_h4': ((1, 1, 2, 2, 4), (16,), 4),
  'f16_h8': ((1, 1, 2, 2, 4), (16,), 8),
  'f32_h8': ((1, 1, 2, 2, 4, 4), (8,), 8),
}


def get_config(arg=''):
  """`demo`, `model=...`, `method=optvq|vqbase|vqgan`."""
  arg = common.parse_arg(
    arg,
    demo=False,
    model=(*IMAGENET, 'cifar10', 'mnist'),
    method=('optvq', 'vqbase', 'vqgan'),
  )
  config = common.default()
  config.name = f'optvq_{arg.model}' + ('' if arg.method == 'optvq' else f'_{arg.method}')
  if arg.model in IMAGENET:
    imagenet(config, arg)
  else:
    small_images(config, arg)
  config.loss.l1 = 1.0
  config.loss.l2 = 1.0
  config.optimizer.eps = 1e-7
  config.optimizer.weight_decay = 0.05
  config.optimizer.weight_decay_on = 'kernels'
  config.optimizer.clip_norm = 1.0
  config.optimizer.schedule = 'onecycle'

  if arg.demo:
    demo(config, arg)
  return config


def imagenet(config, arg):
  """The models for ImageNet."""
  channel_mult, attention, heads = IMAGENET[arg.model]
  common.epochs(config, 50)
  config.batch_size = 64
  config.data.train.crop = 'random_resized'
  config.data.train.scale = (0.2, 1.0)
  config.data.train.color_jitter = (0.4, 0.4, 0.4, 0.1, 0.8)
  config.data.train.blur = 0.5
  config.data.train.flip = True

  config.model.channel_mult = channel_mult
  config.model.attn_resolutions = attention
  config.model.z_channels = config.model.code_dim = 256
  config.quantizer = common.quantizer(layer(arg.method, 16384, heads))

  config.loss.perceptual = 3.0
  config.gan.weight = 1.0
  config.gan.start_steps = 150_000
  config.gan.discriminator_lead_steps = 150_000  # it learns from the first step on
  config.gan.num_layers = 2 if arg.method == 'vqgan' else 3
  config.optimizer.learning_rate = 1.28e-4  # 2e-6 times the batch of 64


def small_images(config, arg):
  """The models for CIFAR-10 and MNIST: no GAN, no perceptual term."""
  common.epochs(config, 100)
  config.batch_size = 1024
  config.data.source = 'tfds'
  config.data.tfds_name = arg.model
  config.data.eval_split = 'test'
  config.data.image_size = 32
  for split in (config.data.train, config.data.eval):
    split.resize, split.antialias, split.crop = 'exact', True, 'center'

  channels = 1 if arg.model == 'mnist' else 3
  config.model = common.model('optvq_small', code_dim=8, head='linear')
  config.model.channels = 16
  config.model.out_channels = channels
  common.normal_pixels(config, channels=channels)
  config.quantizer = common.quantizer(layer(arg.method, 1024, 4 if arg.method == 'optvq' else 1))
  config.optimizer.learning_rate = 4.5e-6 * 1024


def layer(method, num_codes, heads):
  """The quantizer of a method."""
  if method == 'optvq':
    return presets.optvq(num_codes, heads)
  if method == 'vqbase':
    return presets.optvq_baseline(num_codes, heads)
  return presets.optvq_baseline(num_codes, heads=1, projection=False)


def demo(config, arg):
  """The same system, small: photographs, or digits for the small models."""
  if arg.model not in IMAGENET:
    common.digits(config)
    del config.total_epochs
    config.total_steps = 600
    config.batch_size = 64
    config.eval_every = config.checkpoint_every = 200
    config.quantizer.base.num_codes = 256
    config.optimizer.learning_rate = 3e-3
    return
  common.demo(config)
  config.seed_codebook_batches = 0  # optimal transport needs none
  common.demo_network(config, patch_size=4, code_dim=16)
  config.quantizer.base.num_codes = 256
  config.gan.weight = 0.02
