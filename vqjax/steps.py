"""The training and evaluation steps: pure functions, jitted by the caller.

Order of a training step, as taming-transformers has it: the generator's update; then, on
reconstructions of the updated generator, the discriminator's. Gradient accumulation runs the
micro-batches of a phase one after the other: an EMA codebook (and BatchNorm) therefore moves
once per micro-batch, from that micro-batch's tokens, as in the originals; parameters move once.
"""

import jax
import jax.numpy as jnp
import optax

from vqjax import losses, metrics
from vqjax.quantizers import code_counts
from vqjax.recipe import Recipe
from vqjax.state import Network, TrainState
from vqjax.tokenizer import to_uint8


def train_step(recipe: Recipe, state: TrainState, images):
  """One optimizer step on uint8 images [B H W 3]; returns (state, metrics).

  Metrics are float32 scalars, means over the micro-batches, and `code_counts` [K], their sum.
  """
  key = jax.random.fold_in(state.rng, state.step)
  started = state.step >= recipe.gan.start if recipe.gan else None
  batches = _micro_batches(recipe, images)
  keys = jax.random.split(key, recipe.accumulate)

  def generator_phase(carry, xs):
    generator_variables, discriminator_variables = carry
    generator = state.generator.replace(variables=generator_variables)
    discriminator = state.discriminator
    if discriminator is not None:
      discriminator = discriminator.replace(variables=discriminator_variables)
    return _generator_gradient(recipe, generator, discriminator, started, *xs)

  carry = state.generator.variables, state.discriminator and state.discriminator.variables
  gradient, carry, (scalars, reconstructions) = _accumulate(
    recipe, generator_phase, state.generator.params, carry, (batches, keys)
  )
  generator, scalars['grad_norm'] = _update(recipe, state.generator, gradient)
  generator = generator.replace(variables=carry[0])
  discriminator = state.discriminator

  if discriminator is not None:
    discriminator = discriminator.replace(variables=carry[1])

    def discriminator_phase(variables, xs):
      real, key, fake = xs
      if recipe.gan.fresh_reconstructions:
        fake = jax.lax.cond(
          started, lambda: _reconstruct(recipe, generator, real, key), lambda: fake
        )
      now = discriminator.replace(variables=variables)
      return _discriminator_gradient(recipe, now, started, recipe.tokenizer.normalize(real), fake)

    gradient, variables, more = _accumulate(
      recipe,
      discriminator_phase,
      discriminator.params,
      discriminator.variables,
      (batches, keys, reconstructions),
    )
    discriminator, more['discriminator_grad_norm'] = _update(recipe, discriminator, gradient)
    discriminator = discriminator.replace(variables=variables)
    scalars |= more

  with jax.numpy_dtype_promotion('standard'):
    scalars['learning_rate'] = jnp.asarray(recipe.schedule(state.step), jnp.float32)
  average = state.ema
  if average is not None:
    average = optax.incremental_update(generator.params, average, 1 - recipe.ema_decay)
  state = TrainState(state.step + 1, state.rng, generator, discriminator, average)
  return state, scalars


def eval_step(recipe: Recipe, params, variables, images, mask):
  """Evaluates uint8 images [B H W 3], those where `mask` [B] holds.

  Returns:
    (reconstructions uint8 [B H W 3], per-image values float32 [B] by name, code_counts [K]).
    PSNR and SSIM compare 8-bit images; `rec_loss` is the objective's pixel term, in the model's
    range before rounding. Values of masked images are to be ignored.
  """
  model = recipe.tokenizer
  x = model.normalize(images)
  y, quantized = model.apply({'params': params, **variables}, x, train=False)
  pixels = to_uint8(model.denormalize(y))
  one = jax.vmap(lambda x, y: _pixel_loss(recipe, x, y)[0])
  values = {
    'psnr': metrics.psnr(images, pixels),
    'ssim': metrics.ssim(images, pixels),
    'rec_loss': one(x, y),
  }
  tokens = quantized.indices.reshape(images.shape[0], -1)
  counted = jnp.broadcast_to(mask[:, None], tokens.shape).reshape(-1)
  return pixels, values, code_counts(tokens.reshape(-1), recipe.num_codes, counted)


def _generator_gradient(recipe, generator, discriminator, started, images, key):
  """Gradient of one micro-batch: (gradient, (variables of both networks), (metrics, images))."""
  x = recipe.tokenizer.normalize(images)
  vq_key, dropout_key = jax.random.split(key)

  def forward(params):
    (y, quantized), variables = recipe.tokenizer.apply(
      {'params': params, **generator.variables},
      x,
      train=True,
      mutable=list(generator.variables),
      rngs={'vq': vq_key, 'dropout': dropout_key},
    )
    return (y, quantized.loss), (quantized, variables)

  (y, quantizer_loss), pull, (quantized, variables) = jax.vjp(
    forward, generator.params, has_aux=True
  )
  (nll, scalars), dy = jax.value_and_grad(lambda y: _pixel_loss(recipe, x, y), has_aux=True)(y)
  loss = nll + recipe.quantizer_weight * quantizer_loss
  discriminator_variables = discriminator and discriminator.variables
  if recipe.gan:
    gan_loss, dy_gan, discriminator_variables = _generator_gan(recipe, discriminator, started, y)
    weight = recipe.gan.weight * started.astype(jnp.float32)
    if recipe.gan.adaptive:
      # One vector-Jacobian product of the whole tokenizer each, of which only the last kernel's
      # part is used: the compiler drops the rest, so no backward pass is added.
      last = lambda dy: _leaf(pull((dy, jnp.zeros_like(quantizer_loss)))[0], recipe)
      weight = weight * losses.adaptive_weight(last(dy), last(dy_gan), recipe.gan.cap)
    dy = dy + weight * dy_gan
    loss = loss + weight * gan_loss
    scalars |= {'generator': gan_loss, 'gan_weight': weight}
  (gradient,) = pull((dy, jnp.full_like(quantizer_loss, recipe.quantizer_weight)))
  scalars |= {
    'loss': loss,
    'quantizer': quantizer_loss,
    'commitment': quantized.metrics['commitment'],
    'code_counts': code_counts(quantized.indices.reshape(-1), recipe.num_codes),
  }
  return gradient, (variables, discriminator_variables), (scalars, y)


def _generator_gan(recipe, discriminator, started, y):
  """The generator's GAN loss, its gradient for `y`, and the discriminator's variables."""

  def active():
    def loss(y):
      logits, variables = _discriminate(recipe, discriminator, discriminator.params, y)
      return recipe.gan.generator_loss(logits), variables

    (value, variables), dy = jax.value_and_grad(loss, has_aux=True)(y)
    return value, dy, variables

  def idle():
    return jnp.zeros(()), jnp.zeros_like(y), discriminator.variables

  return jax.lax.cond(started, active, idle)


def _discriminator_gradient(recipe, discriminator, started, real, fake):
  """Gradient of one micro-batch: (gradient, variables, metrics); zeros before the start.

  The optimizer is stepped with those zeros, as in the originals: its bias correction counts on.
  """

  def active():
    def loss(params):
      # Real before fake, in separate calls: each has its own batch statistics.
      logits_real, variables = _discriminate(recipe, discriminator, params, real)
      now = discriminator.replace(variables=variables)
      logits_fake, variables = _discriminate(recipe, now, params, fake)
      right = (
        jnp.mean(logits_real > 0, dtype=jnp.float32) + jnp.mean(logits_fake < 0, dtype=jnp.float32)
      ) / 2
      value = recipe.gan.discriminator_loss(logits_real, logits_fake)
      return value, (variables, logits_real.mean(), logits_fake.mean(), right)

    (value, (variables, *logits)), gradient = jax.value_and_grad(loss, has_aux=True)(
      discriminator.params
    )
    return gradient, variables, (value, *logits)

  def idle():
    zeros = jax.tree.map(jnp.zeros_like, discriminator.params)
    return zeros, discriminator.variables, (jnp.zeros(()),) * 4

  gradient, variables, values = jax.lax.cond(started, active, idle)
  names = 'discriminator', 'logits_real', 'logits_fake', 'discriminator_accuracy'
  return gradient, variables, dict(zip(names, values, strict=True))


def _discriminate(recipe, discriminator, params, images):
  return recipe.gan.discriminator.apply(
    {'params': params, **discriminator.variables}, images, mutable=list(discriminator.variables)
  )


def _reconstruct(recipe, generator, images, key):
  x = recipe.tokenizer.normalize(images)
  (y, _), _ = recipe.tokenizer.apply(
    {'params': generator.params, **generator.variables},
    x,
    train=True,
    mutable=list(generator.variables),
    rngs=dict(zip(('vq', 'dropout'), jax.random.split(key), strict=True)),
  )
  return y


def _pixel_loss(recipe, x, y):
  """Weighted pixel terms and their unweighted values by name."""
  terms = {name: losses.PIXELS[name](x, y) for name in recipe.pixel_weights}
  return sum(recipe.pixel_weights[name] * term for name, term in terms.items()), terms


def _leaf(tree, recipe):
  for name in recipe.tokenizer.last_kernel:
    tree = tree[name]
  return tree


def _update(recipe, network: Network, gradient):
  """Steps the optimizer: (network, global norm of the gradient before clipping)."""
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes: decay ** count
    updates, opt_state = recipe.optimizer.update(gradient, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return network.replace(params=params, opt_state=opt_state), optax.tree.norm(gradient)


def _micro_batches(recipe, images):
  """[B H W 3] -> [A B/A H W 3]; every micro-batch takes from all devices, so none moves data."""
  return images.reshape(-1, recipe.accumulate, *images.shape[1:]).swapaxes(0, 1)


def _accumulate(recipe, phase, params, carry, xs):
  """Runs `phase(carry, x) -> (gradient, carry, outputs)` over micro-batches.

  Returns the summed or mean gradient, the last carry, and the outputs: images stacked, metrics
  averaged, counts summed.
  """

  def body(state, x):
    total, carry = state
    gradient, carry, outputs = phase(carry, x)
    return (jax.tree.map(jnp.add, total, gradient), carry), outputs

  zeros = jax.tree.map(jnp.zeros_like, params)
  # Unrolled for a single micro-batch: no loop is left of it.
  (total, carry), outputs = jax.lax.scan(body, (zeros, carry), xs, unroll=recipe.accumulate == 1)
  if not recipe.sum_gradients:
    total = jax.tree.map(lambda g: g / recipe.accumulate, total)
  return total, carry, _join(outputs)


def _join(outputs):
  scalars, *images = outputs if isinstance(outputs, tuple) else (outputs,)
  joined = {
    name: value.sum(0) if name == 'code_counts' else value.mean(0)
    for name, value in scalars.items()
  }
  return (joined, *images) if images else joined
