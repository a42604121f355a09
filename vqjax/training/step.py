"""The training step: a pure function, and how it is compiled.

Order of a training step, as taming-transformers has it: the generator's update; then the
discriminator's. Gradient accumulation runs the micro-batches of a phase one after the other: an EMA
codebook (and BatchNorm) therefore moves once per micro-batch, from that micro-batch's tokens, as in
the originals; parameters move once.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vqjax import sharding
from vqjax.quantizers import code_counts, replace_dead_codes
from vqjax.quantizers import seed_codebooks as seed_quantizer
from vqjax.training import guard, objective
from vqjax.training.recipe import Recipe, Stage
from vqjax.training.state import Network, TrainState


def train_step(
  recipe: Recipe,
  state: TrainState,
  batch: Mapping[str, jax.Array],
  *,
  stage: Stage,
  perceptual: Any = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimizer step on {'image': uint8 [B H W 3], 'label': int32 [B]}: (state, metrics).

  Labels are looked at by a classifier only.

  `stage` is `recipe.stage(state.step)`. It is static: a `lax.cond` on the step would keep the
  discriminator in every program, and XLA runs convolutions inside branches and loops without its
  fast kernels on a CPU. `perceptual` are the parameters of LPIPS, where the recipe has it.

  Metrics are float32 scalars, means over the micro-batches, and `code_counts` [K], their sum.
  """
  generator, discriminator, gan = state.generator, state.discriminator, recipe.gan
  opponent = discriminator if stage.generator else None
  assert opponent is not None or not stage.generator  # a stage asks for what is there
  batches = _micro_batches(recipe, batch)
  step_key = jax.random.fold_in(state.rng, state.step)
  keys = jax.random.split(step_key, recipe.accumulate)

  def generator_phase(variables, xs):
    now = generator.replace(variables=variables[0])
    judge = None if opponent is None else opponent.replace(variables=variables[1])
    return _generator_gradient(recipe, now, judge, perceptual, *xs)

  variables = generator.variables, None if opponent is None else opponent.variables
  gradient, variables, (scalars, fakes) = _accumulate(
    recipe, generator_phase, variables, (batches, keys)
  )
  generator, scalars['grad_norm'] = _update(recipe.optimizer, generator, gradient)
  generator = generator.replace(variables=variables[0])
  if opponent is not None:
    discriminator = opponent.replace(variables=variables[1])
  if recipe.tokenizer.quantizer.replaces_codes:
    generator = _replace_dead_codes(
      recipe, generator, jax.random.fold_in(step_key, recipe.accumulate)
    )

  if stage.discriminator:
    assert discriminator is not None
    assert gan is not None
    judge = discriminator

    def discriminator_phase(variables, xs):
      batch, key, fake = xs
      if gan.fresh_reconstructions:
        # Those of the updated generator, as taming-transformers and all that follow it have them:
        # a second forward pass, of which nothing else is kept. Otherwise, as in LlamaGen, those
        # that the generator's phase was judged by: one pass less, and one update behind.
        (fake, _), _ = _reconstruct(recipe, generator.params, generator.variables, batch, key)
      now = judge.replace(variables=variables)
      real = recipe.tokenizer.normalize(batch['image'])
      gradient, variables, scalars = objective.discriminator_gradient(
        recipe, now, real, fake, r1=stage.r1
      )
      return gradient, variables, (scalars,)

    gradient, variables, (more,) = _accumulate(
      recipe, discriminator_phase, discriminator.variables, (batches, keys, fakes)
    )
    discriminator, more['discriminator_grad_norm'] = _update(gan.optimizer, discriminator, gradient)
    discriminator = discriminator.replace(variables=variables)
    scalars |= more
  elif discriminator is not None:
    assert gan is not None  # as there is a discriminator
    # As in the originals: until it begins, the optimizer steps on zeros and counts on.
    zeros = jax.tree.map(jnp.zeros_like, discriminator.params)
    discriminator, _ = _update(gan.optimizer, discriminator, zeros)

  with jax.numpy_dtype_promotion('standard'):
    scalars['learning_rate'] = jnp.asarray(recipe.schedule(state.step), jnp.float32)
  average = state.ema
  if average is not None:
    average = optax.incremental_update(generator.params, average, 1 - recipe.ema_decay)
  return TrainState(state.step + 1, state.rng, generator, discriminator, average), scalars


def make_train_step(
  recipe: Recipe, mesh: Mesh, shardings: Any, *, skip_nonfinite: bool = False
) -> Any:
  """`train_step` of a recipe, compiled for a mesh: (state, batch, *, stage, perceptual).

  `shardings` are those of the state, whose buffers are donated; metrics are on every device. With
  `skip_nonfinite` it is `guard.leaving_out` of it.
  """
  step: guard.Step = functools.partial(train_step, recipe)
  return jax.jit(
    guard.leaving_out(step) if skip_nonfinite else step,
    static_argnames='stage',
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
  )


def latents(recipe: Recipe, state: TrainState, images: jax.Array) -> jax.Array:
  """What the quantizer gets of images, uint8 [B H W 3]: [B h w D]."""
  model, generator = recipe.tokenizer, state.generator
  variables = {'params': generator.params, **generator.variables}
  z: Any = model.apply(variables, model.normalize(images), method='latents')
  return z


def seed_codebooks(recipe: Recipe, state: TrainState, z: Sequence[jax.Array]) -> TrainState:
  """Seeds the codebooks by k-means on the latents of batches, [B h w D] each."""
  model, generator = recipe.tokenizer, state.generator
  variables = {'params': generator.params, **generator.variables}
  key = jax.random.fold_in(state.rng, 0)
  variables = dict(seed_quantizer(model.quantizer, variables, jnp.stack(z), key))
  params = variables.pop('params')
  return state.replace(
    generator=generator.replace(params=params, variables=variables),
    ema=None if state.ema is None else jax.tree.map(jnp.copy, params),
  )


def _generator_gradient(recipe, generator, opponent, perceptual, batch, key):
  """Gradient of one micro-batch: (gradient, variables of both networks, (metrics, images))."""

  def forward(params):
    (y, quantized), variables = _reconstruct(recipe, params, generator.variables, batch, key)
    return (y, quantized.loss), (quantized, variables)

  gradient, y, (quantized, variables), opponent_variables, scalars = objective.generator_gradient(
    recipe,
    forward,
    generator.params,
    recipe.task.target(recipe.tokenizer, batch),
    last_kernel=lambda tree: _last_kernel(recipe, tree),
    opponent=opponent,
    perceptual=perceptual,
  )
  scalars |= {
    # Usage and perplexity are computed from the counts of all steps between two log lines.
    **{n: v for n, v in quantized.metrics.items() if n not in ('usage', 'perplexity', 'codebook')},
    'code_counts': code_counts(quantized.indices.reshape(-1), recipe.tokenizer.quantizer.num_codes),
  }
  return gradient, (variables, opponent_variables), (scalars, y)


def _reconstruct(recipe, params, variables, batch, key):
  """A batch -> ((reconstructions in the model's range, Quantized), variables)."""
  return recipe.tokenizer.apply(
    {'params': params, **variables},
    recipe.tokenizer.normalize(batch['image']),
    train=True,
    mutable=list(variables),
    rngs=dict(zip(('vq', 'dropout'), jax.random.split(key), strict=True)),
  )


def _last_kernel(recipe, tree):
  for name in recipe.tokenizer.last_kernel:
    tree = tree[name]
  return tree


def _update(
  optimizer: optax.GradientTransformation, network: Network, gradient: Any
) -> tuple[Network, jax.Array]:
  """Steps the optimizer: (network, global norm of the gradient before clipping)."""
  with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes: decay ** count
    updates, opt_state = optimizer.update(gradient, network.opt_state, network.params)
  params = optax.apply_updates(network.params, updates)
  return network.replace(params=params, opt_state=opt_state), optax.tree.norm(gradient)


def _replace_dead_codes(recipe: Recipe, network: Network, key: jax.Array) -> Network:
  """Revives dead codes after the optimizer's step, and starts their moments anew."""
  variables, opt_state = replace_dead_codes(
    recipe.tokenizer.quantizer,
    {'params': network.params, **network.variables},
    key,
    opt_state=network.opt_state,
  )
  params = variables.pop('params')
  return network.replace(params=params, variables=variables, opt_state=opt_state)


def _micro_batches(recipe, batch):
  """[B ...] -> [A B/A ...]; every micro-batch takes from all devices, so none moves data."""
  split = lambda x: x.reshape(-1, recipe.accumulate, *x.shape[1:]).swapaxes(0, 1)
  return jax.tree.map(split, batch)


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
  # Unrolled, there is no loop on a CPU: see train_step on convolutions inside loops.
  unroll = jax.default_backend() == 'cpu'
  (total, carry), (scalars, *arrays) = jax.lax.scan(body, (zeros, carry), xs, unroll=unroll)
  if not recipe.sum_gradients:
    total = jax.tree.map(lambda g: g / recipe.accumulate, total)
  join = lambda name, x: x.sum(0) if name == 'code_counts' else x.mean(0)
  return total, carry, ({name: join(name, x) for name, x in scalars.items()}, *arrays)
