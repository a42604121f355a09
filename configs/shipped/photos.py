"""The tokenizer that ships in the package: `vqjax.load('photos')`.

Photographs to one of 4096 tokens for every 4 x 4 pixels, 0.75 bits a pixel, by a network that is
small enough to ride along and fast on a CPU. No publication stands behind it: the network of the
demos (vqjax/networks/edsr.py), codes of width 8 learned by gradient with the rotation trick,
started by k-means and kept in use by replacing those that are hardly chosen.

  python -m vqjax.weights lpips
  python -m studies.photographs runs/photographs --shorter=256
  python train.py --config=configs/shipped/photos.py --config.data.path=runs/photographs
  vqjax export runs/photos --step=7000 --format=vqjax --dtype=float16 --out=photos.safetensors

Data: random crops of 64 pixels, flipped at random, of 240 photographs whose shorter side is scaled
to 128 to 256 pixels. Held out are 25 others, their middle 64 pixels at a shorter side of 128.
"""

from configs import common
from vqjax.quantizers import RarelyUsed, VectorQuantizer, rotation


def get_config():
  """No arguments."""
  config = common.default()
  config.name = 'photos'
  config.total_steps = 7_000
  config.batch_size = 8
  config.log_every = 100
  config.eval_every = config.checkpoint_every = 1_000
  config.keep_checkpoints = 1
  config.seed_codebook_batches = 16
  config.ema_decay = 0.995

  config.data.source = 'folder'
  config.data.image_size = 64
  for split in (config.data.train, config.data.eval):
    split.resize, split.antialias = 'shorter', True
    split.resize_size = 128
  config.data.train.resize_up_to = 256
  config.data.train.crop = 'random'
  config.data.train.flip = True

  config.model = common.model('edsr', head='none', code_dim=8)
  config.model.channels = 64
  config.model.num_blocks = 5  # on each side
  config.model.patch_size = 4
  config.model.z_channels = 8
  common.normal_pixels(config)

  config.quantizer = common.quantizer(
    VectorQuantizer(
      4096,
      estimator=rotation,
      commitment_weight=1.0,
      codebook_weight=0.25,
      replacement=RarelyUsed(),
    )
  )

  config.loss.l1 = 1.0
  config.loss.perceptual = 0.2
  config.loss.perceptual_net = 'alex'  # that of VGG would take four fifths of the time

  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.99
  config.optimizer.clip_norm = 1.0
  common.cosine(config.optimizer, warmup_steps=100, final_fraction=0.01)
  return config
