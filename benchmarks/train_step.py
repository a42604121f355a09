"""A whole training step of a config: GAN and LPIPS from step 0, images made on the device.

    python -m benchmarks.train_step --networks=rot_vqgan,rot_vitvqgan --batch=16
    JAX_PLATFORMS=cpu python -m benchmarks.train_step --image_size=64 --batch=2 --channels=32

The step is the one that train.py compiles, without data behind it. LPIPS has random weights, which
cost what the published ones do. Peak memory is that of the process: ask for one network at a time.
"""

import argparse
import functools
import importlib
import os
import time
import traceback
import types

import jax
import jax.numpy as jnp

from benchmarks import timing
from vqjax import sharding
from vqjax.training import recipe as recipes
from vqjax.training import state as states
from vqjax.training.step import make_train_step

NETWORKS = ('rot_vqgan', 'rot_vitvqgan')


def config_of(network, image_size, batch, precision, channels):
  """The config of `network` at a size, its GAN on from the first step; narrower for a trial."""
  config = importlib.import_module(f'configs.{network}').get_config()
  config.data.image_size = image_size
  config.batch_size = batch
  config.model.dtype = precision
  config.gan.start_steps = 0
  if 'total_epochs' in config:
    del config.total_epochs
  config.total_steps = 1_000
  if channels and network == 'rot_vqgan':
    config.model.channels = channels
  elif channels:
    for side in ('encoder', 'decoder'):
      config.model[side] = {'dim': channels, 'depth': 2, 'heads': 2, 'mlp_dim': 2 * channels}
  return config


def make(config):
  """What a step of a config needs, with images that are drawn: recipe, state, batch and step."""
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  recipe = recipes.build(config, num_examples=1_000_000)
  image_key, lpips_key, state_key = jax.random.split(jax.random.key(0), 3)
  size = config.data.image_size
  shape = (config.batch_size, size, size, 3)
  images = jax.random.randint(image_key, shape, 0, 256, jnp.int32).astype(jnp.uint8)
  images = jax.device_put(images, sharding.batch(mesh))
  labels = jax.device_put(jnp.zeros(config.batch_size, jnp.int32), sharding.batch(mesh))
  perceptual = None
  if recipe.perceptual is not None:
    small = jnp.zeros((1, 64, 64, 3))
    perceptual = jax.jit(recipe.perceptual.init)(lpips_key, small, small)['params']
    perceptual = jax.device_put(perceptual, sharding.replicated(mesh))
  create = functools.partial(states.create, recipe, image_shape=(1, *shape[1:]))
  shardings = sharding.state(mesh, jax.eval_shape(create, state_key))
  return types.SimpleNamespace(
    recipe=recipe,
    state=jax.jit(create, out_shardings=shardings)(state_key),
    batch={'image': images, 'label': labels},
    perceptual=perceptual,
    step=make_train_step(recipe, mesh, shardings),
  )


def measure(network, args):
  """Compiles and times the step of one network: its record."""
  config = config_of(network, args.image_size, args.batch, args.precision, args.channels)
  made = make(config)
  recipe, state, batch, perceptual = made.recipe, made.state, made.batch, made.perceptual
  start = time.perf_counter()
  lowered = made.step.lower(state, batch, stage=recipe.stage(1), perceptual=perceptual)
  traced = time.perf_counter()
  compiled = lowered.compile()
  done = time.perf_counter()
  metrics = {}

  def run():
    nonlocal state, metrics
    state, metrics = jax.block_until_ready(compiled(state, batch, perceptual=perceptual))

  record = {
    'part': 'train_step',
    'framework': f'jax {jax.__version__}',
    'network': network,
    'image_size': args.image_size,
    'batch': args.batch,
    'precision': args.precision,
    'trace_s': traced - start,
    'compile_s': done - traced,
  }
  run()
  loss = float(metrics['loss'])
  seconds = timing.median_seconds(run, args.rounds, warm_up=1)
  stats = jax.devices()[0].memory_stats() or {}
  record |= {
    'loss_of_step_1': loss,
    'step_s': seconds,
    'images_per_s': args.batch / seconds,
    'peak_mb': timing.peak_memory_mb(stats.get('peak_bytes_in_use')),
  }
  record |= attempt('memory', lambda: {'temporaries_mb': temporaries(compiled)})
  record |= attempt(
    'quantizer', lambda: quantizer_share(recipe, state, batch['image'], args, seconds)
  )
  record |= attempt('operations', lambda: operations(recipe, state, perceptual, args))
  if 'model_tflop' in record and args.peak_tflops:
    record['share_of_peak'] = record['model_tflop'] / seconds / args.peak_tflops
  return record


def attempt(name, find):
  """What `find` returns, or nothing and the error's text: the time is worth having without it."""
  try:
    return find()
  except Exception:
    print(f'  {name}: not found', flush=True)
    traceback.print_exc()
    return {}


def temporaries(compiled):
  return compiled.memory_analysis().temp_size_in_bytes / 1e6


def quantizer_share(recipe, state, images, args, step_seconds):
  """Time of the layer alone, forward and gradient, at the shape that it has in the step."""
  model, variables = recipe.tokenizer.quantizer, {'params': state.generator.params}
  variables |= state.generator.variables
  z = jax.eval_shape(
    lambda v, x: recipe.tokenizer.apply(v, recipe.tokenizer.normalize(x), method='latents'),
    variables,
    images,
  )
  own = {name: tree['quantizer'] for name, tree in variables.items() if 'quantizer' in tree}
  z, pull = (jax.random.normal(jax.random.key(i), z.shape) for i in (1, 2))
  draw = jax.random.key(3)

  @jax.jit
  def gradient(params, z, pull):
    rest = {name: tree for name, tree in own.items() if name != 'params'}

    def objective(params, z):
      out, _ = model.apply(
        {'params': params, **rest}, z, train=True, mutable=list(rest), rngs={'vq': draw}
      )
      return out.loss + jnp.sum(out.z_q * pull)

    return jax.grad(objective, argnums=(0, 1))(params, z)

  run = lambda: jax.block_until_ready(gradient(own.get('params', {}), z, pull))
  seconds = timing.median_seconds(run, max(args.rounds, 5))
  return {'quantizer_s': seconds, 'quantizer_share': seconds / step_seconds}


def operations(recipe, state, perceptual, args):
  """Operations in TFLOP that a step needs; the compiler's count leaves out what cuDNN does.

  In forward passes: of the tokenizer 4 (its update, and a second forward pass for the
  discriminator); of LPIPS 1.5 pairs (both images forward, the reconstruction backward, no gradient
  for parameters); of the discriminator 8: 2 for the tokenizer, 3 for each of two images.
  """
  image = jnp.zeros((args.batch, args.image_size, args.image_size, recipe.tokenizer.channels))
  generator, judge = state.generator, state.discriminator
  own = {'params': generator.params, **generator.variables}
  forward = lambda v, x: recipe.tokenizer.apply(v, x)[0]
  total = (4 if recipe.gan is None or recipe.gan.fresh_reconstructions else 3) * count(
    forward, own, image
  )
  if recipe.perceptual is not None:
    total += 1.5 * count(recipe.perceptual.apply, {'params': perceptual}, image, image)
  if recipe.gan is not None:
    own = {'params': judge.params, **judge.variables}
    look = lambda v, x: recipe.gan.discriminator.apply(v, x, mutable=list(judge.variables))[0]
    total += 8 * count(look, own, image)
  return {'model_tflop': total / 1e12}


def count(function, *args):
  """Operations of the matrix products and convolutions of a function."""
  return sum(map(_operations, _equations(jax.make_jaxpr(function)(*args).jaxpr)))


def _equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    # Of the branches by platform or condition the last one counts: the default, the definition.
    values = equation.params | {'branches': equation.params.get('branches', ())[-1:]}
    for value in values.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          yield from _equations(inner)


def _operations(equation):
  """2 x multiply-adds; loops are counted once, so a codebook's search is not in it in full."""
  name = equation.primitive.name
  if name not in ('dot_general', 'conv_general_dilated'):
    return 0
  left, right = (variable.aval.shape for variable in equation.invars[:2])
  size = functools.reduce(lambda a, b: a * b, equation.outvars[0].aval.shape, 1)
  if name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    return 2 * size * functools.reduce(lambda a, i: a * left[i], contracted, 1)
  kernel = equation.params['dimension_numbers'].rhs_spec
  return 2 * size * functools.reduce(lambda a, i: a * right[i], kernel[1:], 1)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--networks', default=','.join(NETWORKS), help='comma-separated')
  parser.add_argument('--image_size', type=int, default=256)
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--channels', type=int, default=0, help='narrower, for a trial; 0: published')
  parser.add_argument('--peak_tflops', type=float, default=0, help='that benchmarks.ceilings found')
  parser.add_argument('--out', help='file to append results to')
  args = parser.parse_args()
  jax.config.update('jax_enable_compilation_cache', False)
  if args.precision == 'float32':
    # Without it a GPU multiplies in TF32, of 10 bits.
    jax.config.update('jax_default_matmul_precision', 'highest')
  print(f'JAX {jax.__version__}, {jax.devices()[0].device_kind}', flush=True)
  networks = args.networks.split(',')
  timing.keep_each((functools.partial(measure, network, args) for network in networks), args.out)


if __name__ == '__main__':
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # so that peaks can be read
  main()
