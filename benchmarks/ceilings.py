"""What a device can do at most, and how near to it the search for codes comes.

    python -m benchmarks.ceilings                # products, copy, lookup, Sinkhorn
    JAX_PLATFORMS=cpu python -m benchmarks.ceilings --small

float32 products are of full precision: TF32 is off.
"""

import argparse
import functools
import os

import jax
import jax.numpy as jnp

from benchmarks import timing
from vqjax.quantizers import Sinkhorn, nearest_code

SHAPES = ((65_536, 16_384, 64), (65_536, 262_144, 16), (8_192, 1_024, 32))  # N rows, K codes, D
MOST_SCORES = 2**31  # float32 numbers that the bare product may write: 8 GiB


def product(dtype, args):
  """Rate of a square matrix product; in bfloat16 the sums are float32."""
  n = args.side // (1 if dtype == 'bfloat16' else 2)
  a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.float32).astype(dtype) for i in (0, 1))
  precision = 'highest' if dtype == 'float32' else 'default'
  multiply = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
  seconds = median(lambda: multiply(a, b), args)
  return {'dtype': dtype, 'side': n, 'seconds': seconds, 'tflops': 2e-12 * n**3 / seconds}


def copy(args):
  """Bytes read and written a second."""
  x = jnp.ones((args.side // 64, 2**20), jnp.float32)
  step = jax.jit(lambda x: x + 1)
  seconds = median(lambda: step(x), args)
  return {'mb': x.nbytes / 1e6, 'seconds': seconds, 'gb_per_s': 2e-9 * x.nbytes / seconds}


def lookup(shape, args):
  """Time of `nearest_code` over that of the bare product, which writes N x K scores."""
  n, k, d = shape
  z, codes = rows_and_codes(shape)
  # A product that does not fit is taken of a share of the codes, as often.
  times = max(n * k // MOST_SCORES, 1)
  part = codes[: k // times]
  multiply = jax.jit(lambda z, codes: jnp.matmul(z, codes.T, precision='highest'))
  bare = times * median(lambda: multiply(z, part), args)
  nearest = jax.jit(nearest_code).lower(z, codes).compile()
  seconds = median(lambda: nearest(z, codes), args)
  return {
    'shape': shape,
    'product_s': bare,
    'nearest_code_s': seconds,
    'over_product': seconds / bare,
    'tflops': 2e-12 * n * k * d / seconds,
    'temporaries_mb': nearest.memory_analysis().temp_size_in_bytes / 1e6,
  }


def sinkhorn(args):
  """Time of Sinkhorn(10, 5) at the first shape, and memory beside its arguments."""
  z, codes = rows_and_codes(args.shapes[0])
  assign = jax.jit(Sinkhorn(10.0, 5)).lower(z, codes).compile()
  return {
    'shape': args.shapes[0],
    'seconds': median(lambda: assign(z, codes), args),
    'temporaries_mb': assign.memory_analysis().temp_size_in_bytes / 1e6,
  }


def rows_and_codes(shape):
  n, k, d = shape
  keys = jax.random.split(jax.random.key(0))
  return jax.random.normal(keys[0], (n, d)), jax.random.normal(keys[1], (k, d))


def median(run, args):
  """Median seconds of a call, ten a round: one alone is as long as its launch."""
  calls = 1 if args.small else 10

  def many():
    for _ in range(calls):
      result = run()  # the one before is let go of: ten matrices of scores would not fit
    jax.block_until_ready(result)

  return timing.median_seconds(many, args.rounds) / calls


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', default='limits,lookup', help='limits, lookup or both')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--small', action='store_true', help='shapes for a trial on a CPU')
  parser.add_argument('--out', help='file to append results to')
  args = parser.parse_args()
  jax.config.update('jax_enable_compilation_cache', False)
  args.side = 512 if args.small else 8_192
  args.shapes = tuple((n // 64, k // 64, d) for n, k, d in SHAPES) if args.small else SHAPES
  print(f'JAX {jax.__version__}, {jax.devices()[0].device_kind}', flush=True)
  parts = {
    'limits': (
      ('product', lambda: product('bfloat16', args)),
      ('product', lambda: product('float32', args)),
      ('copy', lambda: copy(args)),
    ),
    'lookup': (
      *(('lookup', lambda shape=shape: lookup(shape, args)) for shape in args.shapes),
      ('sinkhorn', lambda: sinkhorn(args)),
    ),
  }
  named = lambda name, run: {'part': name, 'framework': f'jax {jax.__version__}'} | run()
  chosen = [measurement for part in args.parts.split(',') for measurement in parts[part]]
  timing.keep_each((functools.partial(named, *measurement) for measurement in chosen), args.out)


if __name__ == '__main__':
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  main()
