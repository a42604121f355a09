"""What a device can do at most, and how near to it the search for codes comes.

    python -m benchmarks.ceilings                # products, copy, lookup, Sinkhorn
    python -m benchmarks.ceilings --parts=precision
    JAX_PLATFORMS=cpu python -m benchmarks.ceilings --small

float32 products are of full precision: TF32 is off. The search is timed as a scan and, on NVIDIA
GPUs, as a kernel; elsewhere both are the scan.
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


def lookup(shape, kernel, args):
  """Time of `nearest_code` over that of the bare product, which writes N x K scores."""
  n, k, d = shape
  z, codes = rows_and_codes(shape)
  # A product that does not fit is taken of a share of the codes, as often.
  times = max(n * k // MOST_SCORES, 1)
  part = codes[: k // times]
  multiply = jax.jit(lambda z, codes: jnp.matmul(z, codes.T, precision='highest'))
  bare = times * median(lambda: multiply(z, part), args)
  search = functools.partial(nearest_code, kernel=kernel)
  nearest = jax.jit(search).lower(z, codes).compile()
  seconds = median(lambda: nearest(z, codes), args)
  record = {
    'shape': shape,
    'search': 'kernel' if kernel else 'scan',
    'product_s': bare,
    'nearest_code_s': seconds,
    'over_product': seconds / bare,
    'tflops': 2e-12 * n * k * d / seconds,
    'temporaries_mb': nearest.memory_analysis().temp_size_in_bytes / 1e6,
  }
  if kernel:  # by rounding a few rows of a million may differ
    record['rows_unlike_scan'] = int(jnp.sum(nearest(z, codes) != jax.jit(nearest_code)(z, codes)))
  return record


def precision(shape, args):
  """Rows whose nearest code is another one by fewer passes in bfloat16 than float32 takes.

  A pass is a product of bfloat16 parts with float32 sums: 3 of the two leading parts of each
  number, 6 of three. The passes are made of float32 products here, and so are no measure of time.
  """
  z, codes = rows_and_codes(shape)
  z = z[:1024]

  @functools.partial(jax.jit, static_argnums=0)
  def nearest(parts, z, codes):
    rows, columns = split(z, parts), split(codes, parts)
    pairs = ((i, j) for i in range(parts) for j in range(parts) if i + j < parts)
    smallest_first = sorted(pairs, key=sum, reverse=True)
    products = sum(
      jnp.matmul(rows[i], columns[j].T, precision='highest') for i, j in smallest_first
    )
    return jnp.argmax(products - jnp.sum(codes * codes, axis=1) / 2, axis=1)

  exact = nearest_code(z, codes)
  unlike = lambda parts: int(jnp.sum(nearest(parts, z, codes) != exact))
  passes = {f'unlike_{name}': unlike(parts) for name, parts in (('3', 2), ('6', 3))}
  return {'shape': shape, 'rows': len(z), **passes}


def split(x, parts):
  """Numbers in bfloat16 whose sum is x, the largest first."""
  found = []
  for _ in range(parts):
    found.append(jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7))
    x = x - found[-1]
  return found


def sinkhorn(max_kernel, args):
  """Time of Sinkhorn(10, 5) at the first shape, and memory beside its arguments."""
  z, codes = rows_and_codes(args.shapes[0])
  assign = jax.jit(Sinkhorn(10.0, 5, max_kernel=max_kernel)).lower(z, codes).compile()
  return {
    'shape': args.shapes[0],
    'max_kernel': max_kernel,
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
  parser.add_argument(
    '--parts', default='limits,lookup', help='of limits, lookup, precision, by commas'
  )
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
      *(
        ('lookup', functools.partial(lookup, shape, kernel, args))
        for shape in args.shapes
        for kernel in (False, True)
      ),
      # As it is by default, and with the matrix kept: 4 GiB.
      *(('sinkhorn', functools.partial(sinkhorn, most, args)) for most in (2**26, 2**30)),
    ),
    'precision': [
      ('precision', functools.partial(precision, shape, args)) for shape in args.shapes
    ],
  }
  named = lambda name, run: {'part': name, 'framework': f'jax {jax.__version__}'} | run()
  chosen = [measurement for part in args.parts.split(',') for measurement in parts[part]]
  timing.keep_each((functools.partial(named, *measurement) for measurement in chosen), args.out)


if __name__ == '__main__':
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  main()
