"""A config made concrete, and which parts of the GAN take part in a step."""

import pytest

from configs import rot_vqgan
from vqjax import networks
from vqjax.errors import UserError
from vqjax.quantizers import VectorQuantizer
from vqjax.tokenizer import Tokenizer
from vqjax.training import recipe as recipes
from vqjax.training.recipe import Gan, Recipe, Stage


def adversary(**fields):
  """A GAN of which nothing but its timing is there."""
  nothing = dict.fromkeys(('discriminator', 'optimizer', 'discriminator_loss', 'generator_loss'))
  return Gan(**nothing, weight=0.5, **fields)


def staged(gan=None):
  nothing = dict.fromkeys(('tokenizer', 'optimizer', 'schedule'))
  return Recipe(**nothing, loss_weights={}, quantizer_weight=1.0, gan=gan)


def test_stages():
  recipe = staged(adversary(start=6, discriminator_start=2, r1=1.0, r1_every=3))
  expected = [Stage()] * 2 + [Stage(discriminator=True)] * 4 + [Stage(True, True)] * 4
  expected = [stage._replace(r1=t in (3, 6, 9)) for t, stage in enumerate(expected)]
  assert [recipe.stage(t) for t in range(10)] == expected
  assert not staged(adversary(r1=0.0)).stage(0).r1
  assert staged().stage(100) == Stage()


def config(**fields):
  changed = rot_vqgan.get_config('demo')
  for name, value in fields.items():
    part, name = name.split('__')
    changed[part][name] = value
  return changed


def test_a_config_is_made_a_recipe():
  del (one := config(gan__discriminator='stylegan2', gan__r1=10.0)).gan.start_percent
  one.gan.start_steps, one.gan.discriminator_lead_steps = 100, 30
  one.loss.perceptual, one.loss.perceptual_net = 0.5, 'alex'
  recipe = recipes.build(one)
  assert recipe.gan.discriminator == networks.StyleGAN2Discriminator((16, 32, 64, 64, 64))
  assert (recipe.gan.start, recipe.gan.discriminator_start) == (100, 70)
  assert (recipe.gan.r1, recipe.gan.r1_every) == (10.0, 16)
  assert recipe.perceptual == networks.LPIPS('alex')
  assert recipe.perceptual_weight == 0.5
  one.gan.discriminator_lead_steps = 200
  assert recipes.build(one).gan.discriminator_start == 0


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'loss__cross_entropy': 1.0},
      r"loss\.cross_entropy is 1\.0, but .* 'edsr', no classifier; set",
    ),
    (
      {'loss__l1': 0.0, 'gan__weight': 0.5},
      r'loss compares nothing; set one of loss\.l1, loss\.l2',
    ),
    ({'gan__discriminator': 'patch'}, r"discriminator is 'patch'; legal: patchgan, stylegan2, mas"),
    (
      {'gan__generator_loss': 'hinge'},
      r"generator_loss is 'hinge'; legal: linear, softplus, least",
    ),
    ({'gan__r1_every': 0}, r'config\.gan\.r1_every is 0; legal: at least 1\.'),
    (
      {'gan__discriminator': 'maskgit', 'data__image_size': 48},
      'images of 48 pixels; legal: a pow',
    ),
  ],
)
def test_a_loss_that_makes_no_sense_is_named(fields, message):
  with pytest.raises(UserError, match=message):
    recipes.build(config(**fields))


@pytest.mark.parametrize('name', ['loss.l1', 'loss.perceptual', 'gan.weight'])
def test_a_classifier_has_no_images_to_compare(name):
  terms = {'loss.l1': 0.0, 'gan.weight': 0.0, 'loss.cross_entropy': 1.0, name: 0.5}
  changed = config(**{key.replace('.', '__'): value for key, value in terms.items()})
  model = Tokenizer(
    encoder=networks.VQTorchEncoder(),
    quantizer=VectorQuantizer(8),
    decoder=networks.VQTorchClassifier(),
  )
  with pytest.raises(
    UserError, match=rf'config\.{name} is 0\.5, but .*, a classifier; set it to 0'
  ):
    recipes._check_loss(changed, model)
