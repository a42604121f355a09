"""Images, from a folder, shards or installed packages, to batches of uint8 pixels.

source = make_source(config.data, 'train')
with contextlib.closing(train_batches(source, config.data, batch_size=64, seed=0)) as batches:
  batch = next(batches)  # {'image': uint8 [64 S S 3], 'label': int32 [64]}

Pixels stay uint8 up to the device, which normalizes them: a quarter of the bytes to move. The only
importer of Grain and tensorflow_datasets; TensorFlow is never imported.
"""

from vqjax.data.batches import eval_batches, train_batches, train_names
from vqjax.data.defaults import READING, default_data
from vqjax.data.sources import Source, choose_images, make_source
from vqjax.data.tokens import Tokens
from vqjax.data.transforms import make_transform
from vqjax.data.views import VIEWS, Views

__all__ = [
  'READING',
  'VIEWS',
  'Source',
  'Tokens',
  'Views',
  'choose_images',
  'default_data',
  'eval_batches',
  'make_source',
  'make_transform',
  'train_batches',
  'train_names',
]
