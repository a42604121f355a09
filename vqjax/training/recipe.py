"""A config made concrete: the networks, optimizers and constants that a training step needs."""

import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.typing import ArrayLike

from vqjax import networks, tokenizer
from vqjax.errors import UserError
from vqjax.networks import stylegan
from vqjax.task import CLASSIFICATION, RECONSTRUCTION, Task, task_of
from vqjax.training import durations, losses, optimizer

log = logging.getLogger('vqjax')

MAX_CODES = 2**22  # a token, whose use every training step counts


class Stage(NamedTuple):
  """Which parts of the GAN take part in a step."""

  generator: bool = False  # its term in the tokenizer's objective
  discriminator: bool = False  # its own training
  r1: bool = False  # its penalty, within that


@dataclasses.dataclass(frozen=True)
class Gan:
  """The adversarial half; see `configs/common.py` for the fields' meaning."""

  discriminator: nn.Module
  optimizer: optax.GradientTransformation
  discriminator_loss: Callable[[jax.Array, jax.Array], jax.Array]  # (real, fake) -> []
  generator_loss: Callable[[jax.Array], jax.Array]  # fake -> []
  weight: float
  discriminator_weight: float = 1.0
  adaptive: bool = True
  cap: float = 1e4
  start: int = 0  # steps before the generator's term begins
  discriminator_start: int = 0  # steps before the discriminator's own training begins
  r1: float = 0.0
  r1_every: int = 1
  lecam: float = 0.0
  lecam_decay: float = 0.999
  fresh_reconstructions: bool = True


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything static that a training step needs."""

  tokenizer: tokenizer.Tokenizer
  optimizer: optax.GradientTransformation
  schedule: Callable[[jax.Array], ArrayLike]  # step -> learning rate
  loss_weights: dict[str, float]  # of the losses of `task`
  quantizer_weight: float
  perceptual: networks.LPIPS | None = None
  perceptual_weight: float = 0.0
  gan: Gan | None = None
  accumulate: int = 1
  sum_gradients: bool = False
  ema_decay: float = 0.0

  @property
  def task(self) -> Task:
    """What the tokenizer's output is compared with."""
    return task_of(self.tokenizer)

  def stage(self, step: int) -> Stage:
    """What of the GAN takes part in the step that follows `step` steps."""
    gan = self.gan
    if gan is None:
      return Stage()
    discriminator = step >= gan.discriminator_start
    return Stage(
      generator=step >= gan.start,
      discriminator=discriminator,
      r1=discriminator and gan.r1 > 0 and step % gan.r1_every == 0,
    )


def total_steps(config: ml_collections.ConfigDict, num_examples: int | None = None) -> int:
  """Length of the run in steps.

  Raises:
    UserError: the config names no length.
  """
  units = {'batch_size': config.batch_size, 'num_examples': num_examples}
  steps = durations.steps(config, 'total', where='config', **units)
  if steps is None:
    raise UserError('config has no length; set total_steps, total_epochs or total_examples.')
  return steps


def check_updates(config: ml_collections.ConfigDict) -> None:
  """Checks how a step moves the parameters, which all runs say alike.

  Raises:
    UserError: a field with a value outside the legal ones.
  """
  if config.accumulate < 1:
    raise UserError(f'config.accumulate is {config.accumulate}; legal: at least 1.')
  if config.accumulate_gradients not in ('mean', 'sum'):
    raise UserError(
      f'config.accumulate_gradients is {config.accumulate_gradients!r}; legal: mean, sum.'
    )
  if not 0 <= config.ema_decay < 1:
    raise UserError(f'config.ema_decay is {config.ema_decay}; legal: 0 (none) to below 1.')


def warn_of_slow_average(config: ml_collections.ConfigDict, total_steps: int) -> None:
  """Says so where the moving average will still be that of the initial weights."""
  if config.ema_decay and (left := config.ema_decay**total_steps) > 0.01:
    log.warning(
      'config.ema_decay is %s, too near 1 for %d steps: the averaged weights, which evaluation '
      'takes, are still to %.0f%% those of the start; lower it, or train longer',
      *(config.ema_decay, total_steps, 100 * left),
    )


def build(config: ml_collections.ConfigDict, num_examples: int | None = None) -> Recipe:
  """Builds the recipe of a config; `num_examples` is the size of the training set.

  Raises:
    UserError: a field with a value outside the legal ones.
  """
  units = {
    'batch_size': config.batch_size,
    'num_examples': num_examples,
    'total_steps': total_steps(config, num_examples),
  }
  transformation, schedule = optimizer.build(
    config.optimizer, freeze=config.optimizer.freeze, **units
  )
  check_updates(config)
  if config.seed_codebook_batches < 0:
    raise UserError(
      f'config.seed_codebook_batches is {config.seed_codebook_batches}; legal: 0 (none) or more.'
    )
  if config.seed_codebook_batches and config.init_from:
    raise UserError(
      f'config.seed_codebook_batches is {config.seed_codebook_batches} and config.init_from '
      f'{config.init_from!r}, which brings its own codebook; set the first to 0.'
    )
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  unit, size = model.downsample, config.data.image_size
  if size < unit or size % unit:
    raise UserError(
      f'config.data.image_size is {size}; legal: multiples of {unit}, the pixels of a token '
      f'of config.model, for example {max(size // unit, 1) * unit}.'
    )
  if model.quantizer.num_codes > MAX_CODES:
    raise UserError(
      f'config.quantizer has {model.quantizer.num_codes} codes a token; legal: at most 2^22, whose '
      'use is counted in every step: write a row as more tokens (lfq and bsq: tokens, or grouped).'
    )
  if config.seed_codebook_batches and not model.quantizer.has_codebook:
    kind = type(model.quantizer.core).__name__
    raise UserError(
      f'config.seed_codebook_batches is {config.seed_codebook_batches}, but {kind} has no '
      'codebook; set it to 0.'
    )
  _check_loss(config, model)
  return Recipe(
    tokenizer=model,
    optimizer=transformation,
    schedule=schedule,
    loss_weights=task_of(model).weights(config.loss),
    quantizer_weight=config.loss.quantizer,
    perceptual=networks.LPIPS(config.loss.perceptual_net, dtype=jnp.dtype(config.model.dtype))
    if config.loss.perceptual
    else None,
    perceptual_weight=config.loss.perceptual,
    gan=_gan(config, units) if config.gan.weight else None,
    accumulate=config.accumulate,
    sum_gradients=config.accumulate_gradients == 'sum',
    ema_decay=config.ema_decay,
  )


def _check_loss(config, model):
  """Refuses losses of another task, and an objective without any."""
  task, every = task_of(model), (*RECONSTRUCTION.losses, *CLASSIFICATION.losses)
  terms = {f'loss.{name}': config.loss[name] for name in (*every, 'perceptual')}
  terms['gan.weight'] = config.gan.weight
  of_images = ('loss.perceptual', 'gan.weight') if task.makes_images else ()
  right = [*(f'loss.{name}' for name in task.losses), *of_images]
  if wrong := [name for name in terms if terms[name] and name not in right]:
    kind = 'no classifier' if task.makes_images else 'a classifier'
    raise UserError(
      f'config.{wrong[0]} is {terms[wrong[0]]}, but config.model.network is '
      f'{config.model.network!r}, {kind}; set it to 0 and use {", ".join(right)}.'
    )
  if not any(terms[name] for name in right if name != 'gan.weight'):
    raise UserError(f'config.loss compares nothing; set one of {", ".join(right)} above 0.')


def _gan(config, units):
  gan = config.gan
  for field, legal in (
    ('discriminator', DISCRIMINATORS),
    ('discriminator_loss', losses.DISCRIMINATOR),
    ('generator_loss', losses.GENERATOR),
  ):
    if gan[field] not in legal:
      raise UserError(f'config.gan.{field} is {gan[field]!r}; legal: {", ".join(legal)}.')
  if gan.r1_every < 1:
    raise UserError(f'config.gan.r1_every is {gan.r1_every}; legal: at least 1.')
  start, lead = (
    durations.steps(gan, key, where='config.gan', **units) or 0
    for key in ('start', 'discriminator_lead')
  )
  return Gan(
    discriminator=DISCRIMINATORS[gan.discriminator](config),
    optimizer=optimizer.build(config.optimizer, **units)[0],
    discriminator_loss=losses.DISCRIMINATOR[gan.discriminator_loss],
    generator_loss=losses.GENERATOR[gan.generator_loss],
    weight=gan.weight,
    discriminator_weight=gan.discriminator_weight,
    adaptive=gan.adaptive,
    cap=gan.adaptive_cap,
    start=start,
    discriminator_start=max(start - lead, 0),
    r1=gan.r1,
    r1_every=gan.r1_every,
    lecam=gan.lecam,
    lecam_decay=gan.lecam_decay,
    fresh_reconstructions=gan.fresh_reconstructions,
  )


def _patchgan(config):
  gan = config.gan
  return networks.PatchGAN(
    gan.channels, gan.num_layers, norm=gan.norm, dtype=jnp.dtype(config.model.dtype)
  )


def _whole_image(module):
  return lambda config: module(
    stylegan.pyramid(config.data.image_size, config.gan.channels, config.gan.max_channels),
    dtype=jnp.dtype(config.model.dtype),
  )


DISCRIMINATORS = {
  'patchgan': _patchgan,
  'stylegan2': _whole_image(networks.StyleGAN2Discriminator),
  'maskgit': _whole_image(networks.MaskGITDiscriminator),
}
