"""A config made concrete: the networks, optimizers and constants that a training step needs."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import optax

from vqjax import durations, losses, networks, optimizer, tokenizer
from vqjax.errors import UserError

MAX_CODES = 2**22  # a token, whose use every training step counts


@dataclasses.dataclass(frozen=True)
class Gan:
  """The adversarial half; see `configs/common.py` for the fields' meaning."""

  discriminator: networks.PatchGAN
  discriminator_loss: Callable
  generator_loss: Callable
  weight: float
  adaptive: bool
  cap: float
  start: int  # step at which the term and the discriminator's own training begin
  fresh_reconstructions: bool


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything static that a training step needs."""

  tokenizer: tokenizer.Tokenizer
  optimizer: optax.GradientTransformation  # of generator and discriminator, each with its state
  schedule: Callable  # step -> learning rate
  pixel_weights: dict[str, float]  # by name in losses.PIXELS
  quantizer_weight: float
  gan: Gan | None
  accumulate: int
  sum_gradients: bool
  ema_decay: float

  @property
  def num_codes(self):
    return self.tokenizer.quantizer.num_codes


def total_steps(config, num_examples=None):
  """Length of the run in steps.

  Raises:
    UserError: the config names no length.
  """
  units = {'batch_size': config.batch_size, 'num_examples': num_examples}
  steps = durations.steps(config, 'total', where='config', **units)
  if steps is None:
    raise UserError('config has no length; set total_steps, total_epochs or total_examples.')
  return steps


def build(config, num_examples=None) -> Recipe:
  """Builds the recipe of a config; `num_examples` is the size of the training set.

  Raises:
    UserError: a field with a value outside the legal ones.
  """
  units = {
    'batch_size': config.batch_size,
    'num_examples': num_examples,
    'total_steps': total_steps(config, num_examples),
  }
  transformation, schedule = optimizer.build(config.optimizer, **units)
  if config.accumulate < 1:
    raise UserError(f'config.accumulate is {config.accumulate}; legal: at least 1.')
  if config.accumulate_gradients not in ('mean', 'sum'):
    raise UserError(
      f'config.accumulate_gradients is {config.accumulate_gradients!r}; legal: mean, sum.'
    )
  if not 0 <= config.ema_decay < 1:
    raise UserError(f'config.ema_decay is {config.ema_decay}; legal: 0 (none) to below 1.')
  if config.seed_codebook_batches < 0:
    raise UserError(
      f'config.seed_codebook_batches is {config.seed_codebook_batches}; legal: 0 (none) or more.'
    )
  if config.loss.perceptual:
    raise UserError(
      f'config.loss.perceptual is {config.loss.perceptual} and needs the LPIPS network with its '
      'VGG16 weights, which are not here; train without the term by --config.loss.perceptual=0.'
    )
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  if model.quantizer.num_codes > MAX_CODES:
    raise UserError(
      f'config.quantizer has {model.quantizer.num_codes} codes a token; legal: at most 2^22, whose '
      'use is counted in every step: write a row as more tokens (lfq and bsq: tokens, or grouped).'
    )
  if config.seed_codebook_batches and not hasattr(model.quantizer.core, 'learner'):
    kind = type(model.quantizer.core).__name__
    raise UserError(
      f'config.seed_codebook_batches is {config.seed_codebook_batches}, but {kind} has no '
      'codebook; set it to 0.'
    )
  return Recipe(
    tokenizer=model,
    optimizer=transformation,
    schedule=schedule,
    pixel_weights={name: config.loss[name] for name in losses.PIXELS if config.loss[name]},
    quantizer_weight=config.loss.quantizer,
    gan=_gan(config, units) if config.gan.weight else None,
    accumulate=config.accumulate,
    sum_gradients=config.accumulate_gradients == 'sum',
    ema_decay=config.ema_decay,
  )


def _gan(config, units):
  gan = config.gan
  for field, legal in (
    ('discriminator_loss', losses.DISCRIMINATOR),
    ('generator_loss', losses.GENERATOR),
  ):
    if gan[field] not in legal:
      raise UserError(f'config.gan.{field} is {gan[field]!r}; legal: {", ".join(legal)}.')
  return Gan(
    discriminator=networks.PatchGAN(
      channels=gan.channels, num_layers=gan.num_layers, dtype=jnp.dtype(config.model.dtype)
    ),
    discriminator_loss=losses.DISCRIMINATOR[gan.discriminator_loss],
    generator_loss=losses.GENERATOR[gan.generator_loss],
    weight=gan.weight,
    adaptive=gan.adaptive,
    cap=gan.adaptive_cap,
    start=durations.steps(gan, 'start', where='config.gan', **units) or 0,
    fresh_reconstructions=gan.fresh_reconstructions,
  )
