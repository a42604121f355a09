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
from vqjax.quantizers import code_counts, replace_dead_codes
from vqjax.quantizers import seed_codebooks as seed_quantizer
from vqjax.recipe import Recipe
from vqjax.state import Network, TrainState
from vqjax.tokenizer import to_uint8


def train_step(recipe: Recipe, state: TrainState, images, *, adversarial: bool):
  """One optimizer step on uint8 images [B H W 3]; returns (state, metrics).

  `adversarial` says whether the GAN has begun, `state.step >= recipe.gan.start`. It is static: a
  `lax.cond` on the step would keep the discriminator in every program, and XLA runs convolutions
  inside branches and loops without its fast kernels on a CPU.

  Metrics are float32 scalars, means over the micro-batches, and `code_counts` [K], their sum.
  """
  generator, discriminator = state.generator, state.discriminator
  batches = _micro_batches(recipe, images)
  step_key = jax.random.fold_in(state.rng, state.step)
  keys = jax.random.split(step_key, recipe.accumulate)

  def generator_phase(variables, xs):
    now = generator.replace(variables=variables[0])
    opponent = discriminator.replace(variables=variables[1]) if adversarial else None
    return _generator_gradient(recipe, now, opponent, *xs)

  variables = generator.variables, discriminator.variables if adversarial else None
  gradient, variables, (scalars, fakes) = _accumulate(
    recipe, generator_phase, variables, (batches, keys)
  )
  generator, scalars['grad_norm'] = _update(recipe, generator, gradient)
  generator = generator.replace(variables=variables[0])
  if getattr(recipe.tokenizer.quantizer.core, 'replacement', None) is not None:
    generator = _replace_dead_codes(
      recipe, generator, jax.random.fold_in(step_key, recipe.accumulate)
    )

  if adversarial:
    discriminator = discriminator.replace(variables=variables[1])

    def discriminator_phase(variables, xs):
      real, key, fake = xs
      if recipe.gan.fresh_reconstructions:
        (fake, _), _ = _reconstruct(recipe, generator.params, generator.variables, real, key)
      now = discriminator.replace(variables=variables)
      return _discriminator_gradient(recipe, now, recipe.tokenizer.normalize(real), fake)

    gradient, variables, (more,) = _accumulate(
      recipe, discriminator_phase, discriminator.variables, (batches, keys, fakes)
    )
    discriminator, more['discriminator_grad_norm'] = _update(recipe, discriminator, gradient)
    discriminator = discriminator.replace(variables=variables)
    scalars |= more
  elif discriminator is not None:
    # As in the originals: until it begins, the optimizer steps on zeros and counts on.
    zeros = jax.tree.map(jnp.zeros_like, discriminator.params)
    discriminator, _ = _update(recipe, discriminator, zeros)

  with jax.numpy_dtype_promotion('standard'):
    scalars['learning_rate'] = jnp.asarray(recipe.schedule(state.step), jnp.float32)
  average = state.ema
  if average is not None:
    average = optax.incremental_update(generator.params, average, 1 - recipe.ema_decay)
  return TrainState(state.step + 1, state.rng, generator, discriminator, average), scalars


def seed_codebooks(recipe: Recipe, state: TrainState, images) -> TrainState:
  """Seeds the codebooks by k-means on what the encoder makes of `images`, uint8 [B H W 3] each."""
  model, generator = recipe.tokenizer, state.generator
  variables = {'params': generator.params, **generator.variables}
  latents = jnp.stack(
    [model.apply(variables, model.normalize(batch), method='latents') for batch in images]
  )
  own = {name: tree['quantizer'] for name, tree in variables.items() if 'quantizer' in tree}
  seeded = seed_quantizer(model.quantizer, own, latents, jax.random.fold_in(state.rng, 0))
  variables |= {name: variables[name] | {'quantizer': tree} for name, tree in seeded.items()}
  params = variables.pop('params')
  return state.replace(
    generator=generator.replace(params=params, variables=variables),
    ema=None if state.ema is None else jax.tree.map(jnp.copy, params),
  )


def eval_step(recipe: Recipe, params, variables, images, mask):
  """Evaluates uint8 images [B H W 3], those where `mask` [B] holds.

  Returns:
    (reconstructions uint8 [B H W 3], images, per-image values float32 [B] by name, mask,
    code_counts [K]). PSNR and SSIM compare 8-bit images; `rec_loss` is the objective's pixel
    term, in the model's range before rounding. Values of masked images are to be ignored.
  """
  model = recipe.tokenizer
  x = model.normalize(images)
  y, quantized = model.apply({'params': params, **variables}, x, train=False, mask=mask)
  pixels = to_uint8(model.denormalize(y))
  mean_color = jnp.mean(images.astype(jnp.float32) / 255, axis=(1, 2), keepdims=True)
  values = {
    'psnr': metrics.psnr(images, pixels),
    'ssim': metrics.ssim(images, pixels),
    'rec_loss': jax.vmap(lambda x, y: _pixel_loss(recipe, x, y)[0])(x, y),
    'psnr_mean_color': metrics.psnr(images, jnp.broadcast_to(to_uint8(mean_color), images.shape)),
  }
  tokens = quantized.indices.reshape(images.shape[0], -1)
  counted = jnp.broadcast_to(mask[:, None], tokens.shape).reshape(-1)
  counts = code_counts(tokens.reshape(-1), recipe.num_codes, counted)
  return pixels, images, values, mask, counts


def _generator_gradient(recipe, generator, discriminator, images, key):
  """Gradient of one micro-batch: (gradient, variables of both networks, (metrics, images))."""
  x = recipe.tokenizer.normalize(images)

  def forward(params):
    (y, quantized), variables = _reconstruct(recipe, params, generator.variables, images, key)
    return (y, quantized.loss), (quantized, variables)

  (y, quantizer_loss), pull, (quantized, variables) = jax.vjp(
    forward, generator.params, has_aux=True
  )
  (nll, scalars), dy = jax.value_and_grad(lambda y: _pixel_loss(recipe, x, y), has_aux=True)(y)
  loss = nll + recipe.quantizer_weight * quantizer_loss
  opponent_variables = None
  if discriminator is not None:

    def fool(y):
      logits, variables = _discriminate(recipe, discriminator, discriminator.params, y)
      return recipe.gan.generator_loss(logits), variables

    (gan_loss, opponent_variables), dy_gan = jax.value_and_grad(fool, has_aux=True)(y)
    weight = jnp.asarray(recipe.gan.weight, jnp.float32)
    if recipe.gan.adaptive:
      # Each is a pull-back through the whole tokenizer of which only the last kernel's gradient is
      # used: the compiler drops the rest, so no second backward pass is left.
      last = lambda dy: _last_kernel(recipe, pull((dy, jnp.zeros_like(quantizer_loss)))[0])
      weight = weight * losses.adaptive_weight(last(dy), last(dy_gan), recipe.gan.cap)
    dy = dy + weight * dy_gan
    loss = loss + weight * gan_loss
    scalars |= {'generator': gan_loss, 'gan_weight': weight}
  (gradient,) = pull((dy, jnp.full_like(quantizer_loss, recipe.quantizer_weight)))
  scalars |= {
    'loss': loss,
    'quantizer': quantizer_loss,
    # Usage and perplexity are computed from the counts of all steps between two log lines.
    **{n: v for n, v in quantized.metrics.items() if n not in ('usage', 'perplexity', 'codebook')},
    'code_counts': code_counts(quantized.indices.reshape(-1), recipe.num_codes),
  }
  return gradient, (variables, opponent_variables), (scalars, y)


def _discriminator_gradient(recipe, discriminator, real, fake):
  """Gradient of one micro-batch: (gradient, variables, (metrics,))."""

  def tell_apart(params):
    # Real before fake, in separate calls: each has its own batch statistics.
    logits_real, variables = _discriminate(recipe, discriminator, params, real)
    now = discriminator.replace(variables=variables)
    logits_fake, variables = _discriminate(recipe, now, params, fake)
    right = jnp.concatenate([logits_real > 0, logits_fake < 0])
    loss = recipe.gan.discriminator_loss(logits_real, logits_fake)
    return loss, (
      variables,
      {
        'discriminator': loss,
        'logits_real': jnp.mean(logits_real),
        'logits_fake': jnp.mean(logits_fake),
        'discriminator_accuracy': jnp.mean(right, dtype=jnp.float32),
      },
    )

  gradient, (variables, scalars) = jax.grad(tell_apart, has_aux=True)(discriminator.params)
  return gradient, variables, (scalars,)


def _reconstruct(recipe, params, variables, images, key):
  """uint8 images -> ((reconstructions in the model's range, Quantized), variables)."""
  return recipe.tokenizer.apply(
    {'params': params, **variables},
    recipe.tokenizer.normalize(images),
    train=True,
    mutable=list(variables),
    rngs=dict(zip(('vq', 'dropout'), jax.random.split(key), strict=True)),
  )


def _discriminate(recipe, discriminator, params, images):
  return recipe.gan.discriminator.apply(
    {'params': params, **discriminator.variables}, images, mutable=list(discriminator.variables)
  )


def _pixel_loss(recipe, x, y):
  """Weighted sum of the pixel terms, and their unweighted values by name."""
  terms = {name: losses.PIXELS[name](x, y) for name in recipe.pixel_weights}
  return sum(recipe.pixel_weights[name] * term for name, term in terms.items()), terms


def _last_kernel(recipe, tree):
  for name in recipe.tokenizer.last_kernel:
    tree = tree[name]
  return tree


def _update(recipe, network: Network, gradient):
  """Steps the optimizer: (network, global norm of the gradient before clipping)."""
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes: decay ** count
    updates, opt_state = recipe.optimizer.update(gradient, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return network.replace(params=params, opt_state=opt_state), optax.tree.norm(gradient)


def _replace_dead_codes(recipe, network: Network, key):
  """Revives dead codes after the optimizer's step, and starts their moments anew."""
  variables, opt_state = replace_dead_codes(
    recipe.tokenizer.quantizer,
    {'params': network.params, **network.variables},
    key,
    opt_state=network.opt_state,
  )
  params = variables.pop('params')
  return network.replace(params=params, variables=variables, opt_state=opt_state)


def _micro_batches(recipe, images):
  """[B H W 3] -> [A B/A H W 3]; every micro-batch takes from all devices, so none moves data."""
  return images.reshape(-1, recipe.accumulate, *images.shape[1:]).swapaxes(0, 1)


def _accumulate(recipe, phase, carry, xs):
  """Runs `phase(carry, x) -> (gradient, carry, (metrics, *arrays))` over micro-batches.

  Returns the summed or mean gradient, the last carry, and (metrics, *arrays): metrics averaged,
  code counts summed, arrays stacked.
  """
  if recipe.accumulate == 1:  # no loop: see train_step on convolutions inside loops
    gradient, carry, (scalars, *arrays) = phase(carry, jax.tree.map(lambda x: x[0], xs))
    return gradient, carry, (scalars, *(a[None] for a in arrays))

  def body(state, x):
    total, carry = state
    gradient, carry, outputs = phase(carry, x)
    return (jax.tree.map(jnp.add, total, gradient), carry), outputs

  gradient_like, *_ = jax.eval_shape(phase, carry, jax.tree.map(lambda x: x[0], xs))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), gradient_like)
  (total, carry), (scalars, *arrays) = jax.lax.scan(body, (zeros, carry), xs)
  if not recipe.sum_gradients:
    total = jax.tree.map(lambda g: g / recipe.accumulate, total)
  join = lambda name, x: x.sum(0) if name == 'code_counts' else x.mean(0)
  return total, carry, ({name: join(name, x) for name, x in scalars.items()}, *arrays)
