"""Data sets for the tests; tensorflow_datasets wants builders to live in a module of their own."""

import io

import tensorflow_datasets as tfds
from pictures import picture, png


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Five training pictures and three held-out ones."""

  VERSION = tfds.core.Version('1.0.0')
  NAMES = ('image', 'label', 'file_name')

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'label': tfds.features.ClassLabel(num_classes=3),
      'file_name': tfds.features.Text(),
    }
    chosen = {name: features[name] for name in self.NAMES}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(chosen))

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(range(5)),
      'validation': self._generate_examples(range(5, 8)),
    }

  def _generate_examples(self, seeds):
    for seed in seeds:
      everything = {
        'image': io.BytesIO(png(picture(seed))),
        'label': seed % 3,
        'file_name': f'{seed}.png',
      }
      yield seed, {name: everything[name] for name in self.NAMES}


class TinyPlain(TinyPictures):
  """Pictures alone."""

  NAMES = ('image',)


class TinyGrey(TinyPictures):
  """What the builders of mnist make: one channel, no names, splits train and test."""

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(range(2)), 'test': self._generate_examples([7])}

  def _generate_examples(self, seeds):
    for seed in seeds:
      yield seed, {'image': io.BytesIO(png(picture(seed, 28, 28)[..., 0])), 'label': seed}


class TinyText(TinyPictures):
  """No pictures at all."""

  NAMES = ('file_name',)
