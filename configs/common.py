"""Every field of a config, with its default, and the arguments behind the colon of --config."""

from ml_collections import ConfigDict

from vqjax import quantizers
from vqjax.data import default_data
from vqjax.errors import UserError

# What a config says of a quantizer even where it is the default, besides the fields of `default`:
# what is there, the command line can change.
SHOWN = {
  'grouped': ('groups', 'share'),
  'sinkhorn': ('epsilon', 'iters'),
  'sync': ('base', 'nu'),
  'entropy': ('weight', 'temperature'),
}


def default():
  """The config that all others start from; fields without a sensible default are filled there."""
  config = ConfigDict()
  config.name = ''  # of the run folder: runs/NAME
  config.seed = 0  # of initialisation, data order and everything drawn while training
  config.require_backend = ''  # 'gpu' or 'tpu': stop rather than train on anything else

  # Durations: a plain number, or KEY_steps, is in steps; KEY_epochs, KEY_examples and KEY_percent
  # (of the run) may stand in a config file in its place.
  config.total_steps = 0
  config.log_every = 50
  config.eval_every = 5_000
  config.checkpoint_every = 5_000
  # Also so many minutes after the last one, whatever the step: what a crash may cost of a run whose
  # 5,000 steps take hours; 0: never. It is no occasion to look at held-out images.
  config.checkpoint_minutes = 30.0
  config.keep_checkpoints = 3  # the newest; the one with the best held-out PSNR is kept too
  config.eval_images = 1_000  # held-out images looked at while training; eval.py takes all
  config.sample_images = 8  # in every picture under samples/

  config.batch_size = 0  # global: all devices, all micro-batches
  config.accumulate = 1  # micro-batches per optimizer step; an EMA codebook moves in each
  config.accumulate_gradients = 'mean'  # or 'sum', as PyTorch's loss.backward() in a loop
  config.seed_codebook_batches = 0  # k-means on the latents of these first batches; 0: none
  config.init_from = ''  # fine-tune: a run folder or a published checkpoint to start from
  config.init_discriminator = False  # from there too
  # Moving average of the weights, taken by evaluation; 0: none. After n steps ema_decay**n of it is
  # still the initial weights.
  config.ema_decay = 0.0
  # Where a loss or a gradient is not finite: stop; or skip, and parameters, optimizer, averages and
  # codes stay as they were before that step.
  config.on_nonfinite = 'stop'
  config.max_nonfinite_steps = 10  # that are skipped in the whole run; one more stops it

  # Devices: the batch is split over data x fsdp, parameters and optimizer state over fsdp.
  config.mesh = ConfigDict({'data': -1, 'fsdp': 1})

  config.data = ConfigDict(default_data())  # see vqjax/data/defaults.py

  config.model = ConfigDict()
  config.model.network = 'cnn'  # the autoencoder of taming-transformers and latent-diffusion
  config.model.channels = 128
  config.model.channel_mult = (1, 2, 4)  # per level; each but the last halves the resolution
  config.model.num_res_blocks = 2
  config.model.attn_resolutions = ()  # in pixels of the feature map at `resolution`
  config.model.resolution = 256  # that attn_resolutions refer to
  config.model.mid_attention = True
  config.model.z_channels = 3  # of the encoder's output
  config.model.code_dim = 3
  config.model.head = 'linear'  # between z_channels and code_dim: none, linear, linear_norm
  config.model.unit_latents = False  # latents and codes normalised around the quantizer
  config.model.dropout = 0.0
  config.model.norm_groups = 32
  config.model.remat = False  # recompute activations in the backward pass: less memory, more time
  config.model.dtype = 'float32'  # or bfloat16; parameters, quantizer and losses stay float32
  config.model.pixel_mean = (0.5, 0.5, 0.5)  # the model sees (pixel - mean) / std, pixel in [0, 1]
  config.model.pixel_std = (0.5, 0.5, 0.5)

  # Fields of vqjax.quantizers.VectorQuantizer; a choice with settings is {'name': ..., **settings},
  # or as a text, on the command line too, 'ema(decay=0.99)'.
  # Other quantizers stand in its place as a whole: {'name': 'fsq', 'levels': (8, 5, 5, 5)},
  # {'name': 'residual', 'depth': 4, 'base': {...}}.
  config.quantizer = ConfigDict()
  config.quantizer.num_codes = 8192
  config.quantizer.assign = 'nearest'
  config.quantizer.eval_assign = 'nearest'  # what tokenizing and evaluation use
  config.quantizer.estimator = 'straight_through'
  config.quantizer.transform = 'none'  # or linear, affine, running_affine
  config.quantizer.learner = 'gradient'  # or {'name': 'ema', 'decay': 0.99}, alternating, frozen
  config.quantizer.replacement = 'none'  # of dead codes: or least_recent, rarely_used
  config.quantizer.sphere = False  # cosine codebook
  config.quantizer.commitment_weight = 0.25  # pulls the encoder to the code
  config.quantizer.codebook_weight = 1.0  # pulls the code to the encoder
  config.quantizer.codebook_init = 'uniform'  # +-1/K; or normal, kaiming

  config.loss = ConfigDict()
  config.loss.l1 = 0.0
  config.loss.l2 = 0.0
  config.loss.perceptual = 0.0  # LPIPS
  config.loss.perceptual_net = 'vgg'  # or alex
  config.loss.cross_entropy = 0.0  # of a classifier, in place of the others
  config.loss.quantizer = 1.0

  config.gan = ConfigDict()
  config.gan.weight = 0.0  # of the generator's term; 0: no discriminator at all
  config.gan.adaptive = True  # times |d reconstruction / dW| / |d gan / dW|, W the last kernel
  config.gan.adaptive_cap = 1e4
  config.gan.start_steps = 0  # or start_percent: when term and discriminator begin
  config.gan.discriminator_lead_steps = 0  # how much before that the discriminator begins
  config.gan.discriminator_weight = 1.0  # of its loss
  config.gan.discriminator_loss = 'hinge'  # or softplus, least_squares
  config.gan.generator_loss = 'linear'  # or softplus (non-saturating), least_squares
  config.gan.r1 = 0.0  # weight of the discriminator's squared slopes at real images, halved
  config.gan.r1_every = 16  # steps, and a factor that makes up for those in between
  config.gan.lecam = 0.0  # weight of the LeCam regularisation of the discriminator
  config.gan.lecam_decay = 0.999  # of its moving averages of logits
  # The discriminator sees the updated generator's images; False: those its term was computed on,
  # which saves a forward pass.
  config.gan.fresh_reconstructions = True
  config.gan.discriminator = 'patchgan'  # or stylegan2, maskgit, for sides of a power of two
  config.gan.channels = 64  # width at full resolution; doubles as the resolution halves
  config.gan.max_channels = 512  # of stylegan2 and maskgit
  config.gan.num_layers = 3  # of patchgan, like norm: batch or actnorm
  config.gan.norm = 'batch'

  config.optimizer = ConfigDict()  # Adam, of the tokenizer, and likewise of the discriminator
  config.optimizer.learning_rate = 0.0  # the number used, whatever the batch size
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.eps = 1e-8
  config.optimizer.weight_decay = 0.0  # decoupled
  # Or kernels: no biases, norms, codebooks; or matrices, all that has two axes or more.
  config.optimizer.weight_decay_on = 'all'
  config.optimizer.clip_norm = 0.0  # global norm; 0: none
  # Or cosine, down to final_fraction at decay_steps; or wsd, likewise in the last decay_steps of
  # the run alone; or onecycle, PyTorch's OneCycleLR over the run: up to learning_rate in 1% of it,
  # down to nothing, and b1 from 0.95 to 0.85 and back.
  config.optimizer.schedule = 'constant'
  config.optimizer.warmup_steps = 0
  config.optimizer.decay_steps = 0
  config.optimizer.final_fraction = 0.0
  config.optimizer.freeze = ()  # of the tokenizer: patterns such as 'encoder/*', 'decoder/up_0_*'
  return config


def parse_arg(arg, **options):
  """Parses what stands behind the colon of `--config=configs/NAME.py:ARG`.

  `options` maps each name to False (a flag such as `demo`) or to the tuple of its legal values,
  the first of which is the default. Returns a ConfigDict of the choices.

  Raises:
    UserError: an unknown name or value; the message lists the legal ones.
  """
  legal = ', '.join(
    name if values is False else f'{name}={"|".join(values)}' for name, values in options.items()
  )
  chosen = {n: values if values is False else values[0] for n, values in options.items()}
  for part in filter(None, (arg or '').split(',')):
    name, equals, value = part.partition('=')
    values = options.get(name)
    if values is False and not equals:
      chosen[name] = True
    elif values and value in values:
      chosen[name] = value
    else:
      raise UserError(f'config argument {part!r} is unknown; legal, joined by commas: {legal}.')
  return ConfigDict(chosen)


def model(network, **fields):
  """A `model` section for another network than the cnn, with what every network needs."""
  pixels = {'pixel_mean': (0.5,) * 3, 'pixel_std': (0.5,) * 3}
  return ConfigDict(
    {'network': network, 'dtype': 'float32', 'unit_latents': False, **pixels, **fields}
  )


def quantizer(layer):
  """The `quantizer` section of a layer, such as one of `vqjax.quantizers.presets`."""
  fields = tuple(default().quantizer)
  return ConfigDict(quantizers.spec(layer, shown={'vector': fields, **SHOWN}))


def normal_pixels(config, mean=0.5, std=0.5, channels=3):
  """Pixels as the model sees them: (pixel - mean) / std, pixel in [0, 1]."""
  config.model.pixel_mean = (mean,) * channels
  config.model.pixel_std = (std,) * channels


def demo(config, image_size=64):
  """The same system in minutes on two cores: photographs that come with the packages, few steps.

  Small batches: many steps matter more than large ones. The network is for the config to choose,
  see `demo_network`. Without a perceptual term, whose weights are a download.
  """
  config.name += '_demo'
  config.data.source = 'photos'
  config.data.image_size = image_size
  for split in ('train', 'eval'):
    section = config.data[split]
    section.resize, section.antialias = 'shorter', True
    section.filter, section.resize_size, section.resize_up_to = 'bilinear', 0, 0
  # Crops of photographs whose shorter side is once to twice theirs. Not `random_resized`: of
  # photographs as small as that it enlarges, and a network that was shown blurred images is judged
  # by sharp ones.
  config.data.train.resize_up_to = 2 * image_size
  config.data.train.crop = 'random'
  config.data.train.flip = True
  config.data.train.color_jitter = (0.0,) * 5
  config.data.train.blur = 0.0
  config.data.eval.crop = 'center'
  _steps(config, 1_600)
  config.batch_size = 4
  config.seed_codebook_batches = 16
  config.accumulate = 1
  config.model.dtype = 'float32'
  config.ema_decay = 0.98 if config.ema_decay else 0.0
  config.loss.perceptual = 0.0
  optimizer = config.optimizer
  optimizer.learning_rate = 3e-3
  optimizer.b1, optimizer.b2 = 0.9, 0.99  # those for a GAN are too noisy for batches of 4
  optimizer.clip_norm = 1.0
  if optimizer.schedule != 'onecycle':
    cosine(optimizer, warmup_steps=20, final_fraction=0.02)
  if config.gan.weight:
    config.gan.channels = 16
    config.gan.max_channels = 64
    config.gan.num_layers = 2
    del config.gan.start_steps
    config.gan.start_percent = 85
    config.gan.discriminator_lead_steps = 0


def digits(config):
  """The data of a demo: scikit-learn's handwritten digits, 8 x 8 pixels, at the config's size."""
  config.name += '_demo'
  config.data.source = 'digits'
  for split in ('train', 'eval'):
    config.data[split].resize = 'exact'
    config.data[split].antialias = True


def demo_network(config, patch_size, code_dim=8):
  """The network of a demo: one token of `patch_size` pixels a side, all work at that resolution.

  Not a shrunk copy of the published one, whose GroupNorm before the last convolution takes the
  brightness and contrast of an image away: to bring them back takes longer than minutes
  (docs/evidence.md).
  """
  old = config.model
  config.model = model('edsr', head=old.head, code_dim=code_dim, unit_latents=old.unit_latents)
  config.model.channels = 16 * patch_size  # fewer positions pay for it
  config.model.num_blocks = 3  # on each side
  config.model.patch_size = patch_size
  config.model.z_channels = code_dim
  config.model.pixel_mean, config.model.pixel_std = old.pixel_mean, old.pixel_std


def _steps(config, total):
  for key in ('total_epochs', 'total_examples'):
    if key in config:
      del config[key]
  config.total_steps = total
  config.log_every = 50
  config.eval_every = config.checkpoint_every = total // 4


def cosine(optimizer, warmup_steps, final_fraction):
  """Makes the learning rate a cosine over the whole run."""
  optimizer.schedule = 'cosine'
  optimizer.warmup_steps = warmup_steps
  del optimizer.decay_steps
  optimizer.decay_percent = 100
  optimizer.final_fraction = final_fraction


def epochs(config, total):
  """Makes the run so many epochs long."""
  del config.total_steps
  config.total_epochs = total
