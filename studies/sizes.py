"""How much a run of a study is: what two cores do overnight, or a GPU in minutes."""

from ml_collections import ConfigDict

SIZES = ('small', 'gpu')


def resize(config: ConfigDict, size: str) -> None:
  """Makes a demo one of a study's runs, of that size, on any folder of photographs.

  Training sees crops of photographs whose shorter side is once to twice the crop's, so that
  nothing is enlarged; held-out ones are shrunk to the shorter side and cropped in the middle. No
  GAN: it trades PSNR for looks, and no study is about that.

  Args:
    config: of a demo.
    size: `small`: 64 pixels and the demo's network. `gpu`: 128 pixels, and a network of four times
      the width; refuses to train on anything but a GPU.
  """
  small = size == 'small'
  config.total_steps = 1_000 if small else 6_000
  config.batch_size = 4 if small else 32
  config.data.image_size = 64 if small else 128
  if not small:
    config.require_backend = 'gpu'
    _widen(config.model, 4)
    config.optimizer.learning_rate /= 3  # of a wider network, and of less noisy gradients

  config.data.train.resize_up_to = 2 * config.data.image_size
  config.gan.weight = 0.0
  # Numbers of training are those of the last quarter: enough tokens to count how many codes occur.
  config.log_every = config.checkpoint_every = config.total_steps // 4
  config.eval_every = config.total_steps
  config.keep_checkpoints = 1


def _widen(model, factor):
  if model.network == 'vit':
    for side in (model.encoder, model.decoder):
      for field in ('dim', 'heads', 'mlp_dim'):
        side[field] *= factor
  else:
    model.channels *= factor
