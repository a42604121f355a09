"""The training step's parts and their order, on networks that compile in seconds."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqjax import networks
from vqjax.evaluation.step import eval_step
from vqjax.quantizers import VectorQuantizer
from vqjax.tokenizer import Tokenizer
from vqjax.training import losses, objective, state
from vqjax.training import step as steps
from vqjax.training.recipe import Gan, Recipe, Stage

RATE = 0.05
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
BATCH = {'image': IMAGES, 'label': np.arange(8, dtype=np.int32) % 3}
LPIPS = networks.LPIPS(widths=(2, 2, 2, 2, 2))


class Judge(nn.Module):
  """The smallest discriminator."""

  @nn.compact
  def __call__(self, x):
    return 0.2 * nn.Dense(1)(jnp.tanh(nn.Conv(2, (4, 4), 4)(x)))


def tiny(decoder=None, **fields):
  """A recipe for grey images of 16 pixels, without any norm."""
  return Recipe(
    tokenizer=Tokenizer(
      encoder=networks.VQTorchEncoder(channels=2),
      quantizer=VectorQuantizer(8, codebook_init=jax.nn.initializers.normal(0.3)),
      decoder=decoder or networks.VQTorchDecoder(channels=2),
      pixel_mean=(0.5,),
      pixel_std=(0.5,),
    ),
    optimizer=optax.sgd(RATE),
    schedule=lambda step: RATE,
    **{'loss_weights': {'l1': 1.0}, 'quantizer_weight': 1.0, **fields},
  )


def adversary(**fields):
  fields = {
    'discriminator': Judge(),
    'discriminator_loss': losses.hinge_discriminator,
    'generator_loss': losses.linear_generator,
    'weight': 0.5,
    **fields,
  }
  return Gan(optimizer=optax.sgd(RATE), **fields)


@functools.cache
def perceptual():
  images = jnp.zeros((1, 16, 16, 3))
  return jax.jit(LPIPS.init)(jax.random.key(1), images, images)['params']


def create(recipe):
  make = functools.partial(state.create, recipe, image_shape=IMAGES.shape)
  return jax.jit(make)(jax.random.key(0))


def trainer(recipe, stage=None):
  step = functools.partial(steps.train_step, recipe, stage=stage or Stage())
  return jax.jit(step)


def train(recipe, now, stage=None):
  return trainer(recipe, stage)(now, BATCH)


def same(a, b):
  equal = jax.tree.map(np.array_equal, a, b)
  return all(jax.tree.leaves(equal))


def test_what_the_discriminator_is_shown():
  """Reconstructions of the updated generator, or those from before."""
  gan = adversary(r1=10.0, r1_every=4, lecam=0.1, lecam_decay=0.9)
  recipe = tiny(gan=gan)
  start = create(recipe)

  @jax.jit
  def judged(generator):
    x = recipe.tokenizer.normalize(IMAGES)
    y, _ = recipe.tokenizer.apply({'params': generator.params, **generator.variables}, x)
    return objective.discriminator_gradient(recipe, start.discriminator, x, y, r1=True)

  before = judged(start.generator)
  for fresh in (True, False):
    gan = dataclasses.replace(gan, fresh_reconstructions=fresh)
    now, got = train(dataclasses.replace(recipe, gan=gan), start, Stage(True, True, True))
    assert not same(now.generator.params, start.generator.params)
    after = judged(now.generator)
    assert abs(before[2]['logits_fake'] - after[2]['logits_fake']) > 1e-4
    gradient, _, expected = after if fresh else before
    for name, value in expected.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    moved = jax.tree.map(lambda p, g: p - RATE * g, start.discriminator.params, gradient)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), now.discriminator.params, moved
    )
    for kind in ('real', 'fake'):  # averages start at 0
      average = now.discriminator.variables['lecam'][kind]
      np.testing.assert_allclose(average, 0.1 * got[f'logits_{kind}'], rtol=1e-4)
  # The loss alone, without R1 for four steps at once and LeCam.
  loss = got['discriminator'] - 10 / 2 * 4 * got['r1'] - 0.1 * got['lecam']
  hinge = (1 - got['logits_real'] + 1 + got['logits_fake']) / 2  # all logits lie between -1 and 1
  np.testing.assert_allclose(loss, hinge, rtol=1e-3)


def test_the_discriminator_may_begin_before_the_generator_is_judged():
  recipe = tiny(gan=adversary())
  start = create(recipe)
  now, got = train(recipe, start, Stage(discriminator=True))
  alone, without = train(dataclasses.replace(recipe, gan=None), start.replace(discriminator=None))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
    now.generator.params,
    alone.generator.params,
  )
  np.testing.assert_allclose(got['loss'], without['loss'], rtol=1e-6)
  assert not same(now.discriminator.params, start.discriminator.params)
  assert {'discriminator', 'logits_fake'} <= set(got)
  assert {'generator', 'gan_weight', 'r1', 'lecam'}.isdisjoint(got)


def test_lpips_is_an_argument_and_may_be_accumulated():
  recipe = tiny(loss_weights={}, perceptual=LPIPS, perceptual_weight=2.0, quantizer_weight=0.0)
  start = create(recipe)
  step = trainer(recipe)
  now, got = step(start, BATCH, perceptual=perceptual())
  np.testing.assert_allclose(got['loss'], 2 * got['perceptual'], rtol=1e-6)
  assert got['perceptual'] > 1e-3
  assert got['grad_norm'] > 1e-3
  twice = dataclasses.replace(recipe, accumulate=2)
  parts, accumulated = trainer(twice)(start, BATCH, perceptual=perceptual())
  np.testing.assert_allclose(accumulated['perceptual'], got['perceptual'], rtol=1e-5)
  np.testing.assert_allclose(accumulated['grad_norm'], got['grad_norm'], rtol=1e-4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
    now.generator.params,
    parts.generator.params,
  )
  assert jax.tree.structure(now) == jax.tree.structure(start)  # it did not come into the state
  none = jax.tree.map(jnp.zeros_like, perceptual())
  _, blind = step(start, BATCH, perceptual=none)
  assert blind['loss'] == 0


@pytest.mark.parametrize(
  ('mean', 'std'),
  [((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3), ((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))],
)
def test_lpips_sees_minus_one_to_one_whatever_the_model_sees(mean, std):
  model = tiny().tokenizer.clone(pixel_mean=mean, pixel_std=std)
  recipe = dataclasses.replace(tiny(), tokenizer=model)
  pixels = jnp.linspace(0, 1, 16 * 16 * 3).reshape(1, 16, 16, 3)
  seen = objective._symmetric(recipe, model.normalize(pixels))
  np.testing.assert_allclose(seen, 2 * pixels - 1, atol=1e-6)
  # Nothing is clipped, or the gradient would stop there.
  assert objective._symmetric(recipe, model.normalize(pixels) + 9).min() > 2


def test_a_classifier_learns_labels():
  recipe = tiny(
    networks.VQTorchClassifier(channels=2, num_classes=3), loss_weights={'cross_entropy': 2.0}
  )
  now = create(recipe)
  now, got = train(recipe, now)
  np.testing.assert_allclose(got['loss'], 2 * got['cross_entropy'] + got['quantizer'], rtol=1e-5)
  assert 0 <= got['accuracy'] <= 1
  evaluate = jax.jit(functools.partial(eval_step, recipe.tokenizer, recipe.loss_weights))
  batch = BATCH | {'mask': np.arange(8) < 5}
  images, y, values, tokens = evaluate(now.generator.params, now.generator.variables, batch)
  assert images is y is None
  assert values.keys() == {'rec_loss', 'accuracy'}
  assert values['rec_loss'].shape == (8,)
  assert set(np.unique(values['accuracy'])) <= {0, 1}
  assert tokens.shape == (8, 4 * 4)
