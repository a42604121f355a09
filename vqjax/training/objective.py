"""What a training step minimises: the tokenizer's objective and the discriminator's, once each.

Both take given images, so that they can be held to the losses of other implementations.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vqjax.training import losses
from vqjax.training.recipe import Recipe
from vqjax.training.state import Network


def generator_gradient(
  recipe: Recipe,
  forward: Callable[[Any], tuple[tuple[jax.Array, jax.Array], Any]],
  params: Any,
  target: jax.Array,
  *,
  last_kernel: Callable[[Any], jax.Array],
  opponent: Network | None = None,
  perceptual: Any = None,
) -> tuple[Any, jax.Array, Any, Any, dict[str, jax.Array]]:
  """Gradient of the tokenizer's objective `nll + w_q quantizer + w_g w GAN`.

  nll are the terms that compare with the target, LPIPS among them, w is the adaptive weight or 1.

  Args:
    recipe: weights and choices of the terms.
    forward: params -> ((y, the quantizer's loss []), anything).
    params: what to differentiate by.
    target: what y is compared with, see `Task.compare`.
    last_kernel: gradient -> the part of it that the adaptive weight looks at.
    opponent: the discriminator; None without the GAN term.
    perceptual: parameters of `recipe.perceptual`, where the recipe has it.

  Returns:
    (gradient, y, what forward returned beside it, variables of the opponent, metrics [] by name).
  """
  (y, quantizer_loss), pull, rest = jax.vjp(forward, params, has_aux=True)
  (nll, scalars), dy = jax.value_and_grad(
    lambda y: _nll(recipe, target, y, perceptual), has_aux=True
  )(y)
  loss = nll + recipe.quantizer_weight * quantizer_loss
  variables = None
  if opponent is not None:
    gan = recipe.gan
    assert gan is not None  # as there is an opponent

    def fool(y):
      logits, variables = judge(recipe, opponent, opponent.params, y)
      return gan.generator_loss(logits), variables

    (gan_loss, variables), dy_gan = jax.value_and_grad(fool, has_aux=True)(y)
    weight = jnp.asarray(gan.weight, jnp.float32)
    if gan.adaptive:
      # Each is a pull-back through the whole tokenizer of which only the last kernel's gradient is
      # used: the compiler drops the rest, so no second backward pass is left.
      last = lambda dy: last_kernel(pull((dy, jnp.zeros_like(quantizer_loss)))[0])
      weight = weight * losses.adaptive_weight(last(dy), last(dy_gan), gan.cap)
    dy = dy + weight * dy_gan
    loss = loss + weight * gan_loss
    scalars |= {'generator': gan_loss, 'gan_weight': weight}
  (gradient,) = pull((dy, jnp.full_like(quantizer_loss, recipe.quantizer_weight)))
  return gradient, y, rest, variables, scalars | {'loss': loss, 'quantizer': quantizer_loss}


def discriminator_gradient(
  recipe: Recipe, discriminator: Network, real: jax.Array, fake: jax.Array, *, r1: bool
) -> tuple[Any, dict[str, Any], dict[str, jax.Array]]:
  """Gradient of the discriminator's objective on images in the model's range [B H W C].

  `w_d loss + gamma / 2 every R1 + w_l LeCam`; R1 is taken every so many steps, hence the factor,
  and `r1` says whether in this one (Karras et al. 2020, section 3.1: lazy regularization).

  Returns:
    (gradient, variables, metrics [] by name).
  """
  gan = recipe.gan
  assert gan is not None  # as there is a discriminator

  def objective(params):
    # Real before fake, in separate calls: each has its own batch statistics.
    logits_real, pull, variables = jax.vjp(
      lambda real: judge(recipe, discriminator, params, real), real, has_aux=True
    )
    now = discriminator.replace(variables=variables)
    logits_fake, variables = judge(recipe, now, params, fake)
    right = jnp.concatenate([logits_real > 0, logits_fake < 0])
    loss = gan.discriminator_weight * gan.discriminator_loss(logits_real, logits_fake)
    scalars = {
      'logits_real': jnp.mean(logits_real),
      'logits_fake': jnp.mean(logits_fake),
      'discriminator_accuracy': jnp.mean(right, dtype=jnp.float32),
    }
    if r1:
      (slopes,) = pull(jnp.ones_like(logits_real))
      scalars['r1'] = losses.r1(slopes)
      loss = loss + gan.r1 / 2 * gan.r1_every * scalars['r1']
    if gan.lecam:
      average = discriminator.variables['lecam']
      scalars['lecam'] = losses.lecam(logits_real, logits_fake, average['real'], average['fake'])
      loss = loss + gan.lecam * scalars['lecam']
      move = lambda name, value: average[name] + (1 - gan.lecam_decay) * (value - average[name])
      moved = {name: move(name, scalars[f'logits_{name}']) for name in average}
      variables = variables | {'lecam': moved}
    return loss, (variables, scalars | {'discriminator': loss})

  gradient, (variables, scalars) = jax.grad(objective, has_aux=True)(discriminator.params)
  return gradient, variables, scalars


def judge(
  recipe: Recipe, discriminator: Network, params: Any, images: jax.Array
) -> tuple[jax.Array, dict[str, Any]]:
  """Images in the model's range -> (logits, the discriminator's variables after them)."""
  assert recipe.gan is not None  # as there is a discriminator
  module, variables = recipe.gan.discriminator, discriminator.variables
  judged: Any = module.apply({'params': params, **variables}, images, mutable=list(variables))
  return judged


def _nll(recipe, target, y, perceptual):
  """The terms that compare with the target: (weighted sum [], metrics [] by name)."""
  terms, total = recipe.task.compare(recipe.loss_weights, target, y)
  if recipe.perceptual is not None:
    # A constant: as an argument of the step it is neither in the program nor in a checkpoint.
    perceptual = {'params': jax.lax.stop_gradient(perceptual)}
    pair = _symmetric(recipe, target), _symmetric(recipe, y)
    terms['perceptual'] = recipe.perceptual.apply(perceptual, *pair)
    total = total + recipe.perceptual_weight * terms['perceptual']
  return jnp.mean(total), {name: jnp.mean(term) for name, term in terms.items()}


def _symmetric(recipe, images):
  """The model's range -> [-1, 1] in RGB, not clipped: a pixel outside gets a gradient too."""
  # One product and one sum with exact constants: most models have [-1, 1] already, bit for bit.
  scale, shift = (
    jnp.asarray(values, jnp.float32)[None, None, None]
    for values in (
      [2 * std for std in recipe.tokenizer.pixel_std],
      [2 * mean - 1 for mean in recipe.tokenizer.pixel_mean],
    )
  )
  images = images * scale + shift
  return images.repeat(3, axis=-1) if images.shape[-1] == 1 else images
