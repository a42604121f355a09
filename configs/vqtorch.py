r"""vqtorch's examples: an autoencoder and a classifier of digits, and the ladder of its cures.

Huh et al., Straightening Out the Straight-Through Estimator: Overcoming Optimization Challenges in
Vector Quantized Networks (ICML 2023); the examples of its library.

  python train.py --config=configs/vqtorch.py                      # autoencoder, MNIST, affine
  python train.py --config=configs/vqtorch.py:step=baseline        # ... kmeans, sync, affine,
                                                                   # replacement, alternating
  python train.py --config=configs/vqtorch.py:task=classifier
  python train.py --config=configs/vqtorch.py:demo                 # scikit-learn's digits, CPU

Data: MNIST through TFDS (--config.data.path is its data_dir), 28 x 28 pixels in [-1, 1].

Expected: the examples print no table. Ours, of 382 held-out digits, by
`:demo,step=STEP --config.batch_size=64 --config.total_steps=300 --config.seed=SEED`, seeds 1, 2 and
1234, lowest and highest (two cores of a shared x86-64 machine, JAX 0.10.2, 2026-11-21):

  step         PSNR, dB         usage
  baseline     15.25 to 15.48   1% to 3%
  kmeans       18.19 to 19.01   25% to 39%
  sync         18.38 to 19.09   28% to 41%   (against kmeans -0.1 to +0.2 dB: no clear gain here)
  affine       18.58 to 19.31   31% to 45%
  replacement  20.54 to 20.76   90% to 93%

A test holds the order, without sync.

Each step has the ones before it: kmeans seeds the codebook from the first batches, sync adds what
the code's gradient lacks, affine moves all codes together, replacement revives codes unused for 20
steps. alternating stands by itself: the codebook takes an SGD step of its own in place of a
gradient, 300 steps in all.

Deviations: batches are drawn without replacement within an epoch (the original draws the first
batch of a new permutation in every step); distances are float32 (the original's are half
precision on GPUs).
"""

from configs import common
from vqjax.quantizers import presets

STEPS = ('affine', 'baseline', 'kmeans', 'sync', 'replacement', 'alternating')


def get_config(arg=''):
  """`demo`, `task=autoencoder|classifier`, `step=...`."""
  arg = common.parse_arg(arg, demo=False, task=('autoencoder', 'classifier'), step=STEPS)
  config = common.default()
  config.name = f'vqtorch_{arg.task}_{arg.step}'
  config.seed = 1234
  config.total_steps = 300 if arg.step == 'alternating' else 1_000
  config.batch_size = 256
  config.log_every = 50
  config.eval_every = config.checkpoint_every = config.total_steps // 2
  config.eval_images = 10_000
  config.data.source = 'tfds'
  config.data.tfds_name = 'mnist'
  config.data.eval_split = 'test'
  config.data.image_size = 28
  for split in (config.data.train, config.data.eval):
    split.resize, split.crop = 'none', 'center'

  network = {'autoencoder': 'vqtorch', 'classifier': 'vqtorch_classifier'}[arg.task]
  config.model = common.model(network, code_dim=32, head='none')
  config.model.channels = 16
  if arg.task == 'autoencoder':
    config.model.out_channels = 1
    config.loss.l1 = 1.0
  else:
    config.model.num_classes = 10
    config.loss.cross_entropy = 1.0
  common.normal_pixels(config, channels=1)

  config.quantizer = common.quantizer(presets.vqtorch(step=arg.step, task=arg.task))
  if arg.step not in ('baseline', 'alternating'):
    config.seed_codebook_batches = 4

  config.optimizer.learning_rate = 3e-4
  config.optimizer.weight_decay = 1e-2

  if arg.demo:
    common.digits(config)
    config.data.image_size = 16
    config.eval_images = 382
  return config
