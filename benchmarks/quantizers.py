"""Speed and memory of the quantizers on a CPU, against PyTorch and against a bare matrix product.

    python benchmarks/quantizers.py                      # everything, five to ten minutes
    python benchmarks/quantizers.py step lookup --rounds 21

Contestants take turns, A B A B ..., in one process on the same cores; a time is the median of its
rounds. The comparisons with PyTorch need `benchmarks/requirements.txt`.
"""

import argparse
import datetime
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

SHAPES = ((8192, 1024, 32), (4096, 16384, 64))  # N rows, K codes, D width
LADDER = (65536, (16384, 65536, 262144), 16)  # N, K ..., D


def main():
  parts = {run.__name__: run for run in (step, sinkhorn, lookup, memory, imports)}
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('parts', nargs='*', metavar='part', help=f'{", ".join(parts)}; default: all')
  parser.add_argument('--rounds', type=int, default=11, help='turns that each contestant takes')
  parser.add_argument('--cores', type=int, default=2, help='CPU cores to use')
  parser.add_argument('--peak', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if unknown := [part for part in args.parts if part not in parts]:
    parser.error(f'{unknown[0]!r} is no part; legal: {", ".join(parts)}.')

  # Before JAX starts its threads; child processes inherit it.
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
  if args.peak:
    print(peak(args.peak))
    return
  print(surroundings(), end='\n\n')
  for part in args.parts or parts:
    parts[part](args.rounds)


def surroundings():
  """One line: what the numbers belong to."""
  info = pathlib.Path('/proc/cpuinfo')
  lines = info.read_text().splitlines() if info.exists() else []
  names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
  machine = names[0] if names else platform.processor() or platform.machine()
  import jax

  torch = torch_or_none()
  return (
    f'{machine}, {len(os.sched_getaffinity(0))} cores; {datetime.date.today()}; '
    f'JAX {jax.__version__}, torch {torch.__version__ if torch else "not installed"}'
  )


def torch_or_none():
  try:
    import torch
    import vector_quantize_pytorch  # noqa: F401
  except ImportError:
    return None
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  return torch


def race(contestants, rounds):
  """Median seconds of each function of a dict, run in turns after two turns of warming up."""
  times = {name: [] for name in contestants}
  for i in range(rounds + 2):
    for name, run in contestants.items():
      start = time.perf_counter()
      run()
      if i >= 2:
        times[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in times.items()}


def report(title, times, under, over, goal):
  """A line for each contestant, and the ratio of two."""
  print(title)
  for name, seconds in times.items():
    print(f'  {name:38s} {1e3 * seconds:8.1f} ms')
  if over in times:
    print(f'  {over} / {under}: {times[over] / times[under]:.2f} (goal: {goal})')
  print(flush=True)


def rows_and_codes(n, k, d):
  import jax

  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((n, d), (k, d), (n, d))
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def jax_step(n, k, d):
  """A training step of the layer: forward, gradient for z, codebook update."""
  import jax
  import jax.numpy as jnp

  from vqjax.quantizers import Ema, VectorQuantizer, rotation

  z, _, g = rows_and_codes(n, k, d)
  vq = VectorQuantizer(k, estimator=rotation, learner=Ema(decay=0.99))
  state = vq.init(jax.random.key(1), z, train=True)

  @jax.jit
  def training_step(state, z, g):
    def objective(z):
      out, updated = vq.apply(state, z, train=True, mutable=['vq'])
      return out.loss + jnp.sum(out.z_q * g), (updated, out.indices)

    (_, (updated, indices)), dz = jax.value_and_grad(objective, has_aux=True)(z)
    return {**state, **updated}, dz, indices

  def run():
    nonlocal state
    state, *rest = jax.block_until_ready(training_step(state, z, g))
    return rest

  return run


def torch_step(torch, n, k, d):
  """The same step of vector-quantize-pytorch."""
  from vector_quantize_pytorch import VectorQuantize

  vq = VectorQuantize(dim=d, codebook_size=k, decay=0.99, rotation_trick=True).train()
  z, g = torch.randn(1, n, d, requires_grad=True), torch.randn(1, n, d)

  def run():
    z.grad = None
    z_q, _, loss = vq(z)
    (loss.sum() + (z_q * g).sum()).backward()

  return run


def step(rounds):
  torch = torch_or_none()
  if torch is None:
    print('step: without torch and vector-quantize-pytorch there is nothing to compare with.')
  for shape in SHAPES:
    contestants = {'vqjax': jax_step(*shape)}
    if torch:
      contestants['vector-quantize-pytorch'] = torch_step(torch, *shape)
    times = race(contestants, rounds)
    report(
      f'training step (rotation, EMA), {named(shape)}',
      times,
      'vqjax',
      'vector-quantize-pytorch',
      'at least 6',
    )


def torch_sinkhorn(torch, z, codes, epsilon=10.0, iters=5):
  """The definition, dense, as it is written."""
  with torch.no_grad():
    cost = torch.cdist(z, codes)
    cost = (cost - cost.mean()) / (cost.std() + 1e-6)
    plan = torch.exp(-epsilon * (cost - cost.min()))
    plan = plan / (plan.sum() + 1e-8)
    for _ in range(iters):
      plan = plan / (plan.sum(0, keepdim=True) + 1e-8) / len(codes)
      plan = plan / (plan.sum(1, keepdim=True) + 1e-8) / len(z)
    return plan.argmax(1)


def sinkhorn(rounds):
  import jax
  import numpy as np

  from vqjax.quantizers import Sinkhorn

  torch = torch_or_none()
  if torch is None:
    print('sinkhorn: without torch there is nothing to compare with.')
  for shape in SHAPES:
    z, codes, _ = rows_and_codes(*shape)
    kept, anew = jax.jit(Sinkhorn()), jax.jit(Sinkhorn(max_kernel=2**20))
    contestants = {
      'vqjax': lambda kept=kept, z=z, codes=codes: kept(z, codes).block_until_ready(),
      'vqjax, M computed anew in every turn': (
        lambda anew=anew, z=z, codes=codes: anew(z, codes).block_until_ready()
      ),
    }
    title = f'Sinkhorn(10, 5), {named(shape)}'
    if torch:
      tensors = [torch.tensor(np.array(x)) for x in (z, codes)]
      contestants['dense torch'] = lambda tensors=tensors: torch_sinkhorn(torch, *tensors)
      same = np.mean(np.array(kept(z, codes)) == torch_sinkhorn(torch, *tensors).numpy())
      title += f'; {same:.2%} of the indices equal'
    report(title, race(contestants, rounds), 'vqjax', 'dense torch', 'at least 2')


def lookup(rounds):
  import jax
  import jax.numpy as jnp

  from vqjax.quantizers import nearest_code

  product = jax.jit(lambda z, codes: jnp.matmul(z, codes.T, precision='highest'))
  nearest = jax.jit(nearest_code)
  for shape in SHAPES:
    z, codes, _ = rows_and_codes(*shape)
    contestants = {
      'bare product': lambda z=z, codes=codes: product(z, codes).block_until_ready(),
      'nearest_code': lambda z=z, codes=codes: nearest(z, codes).block_until_ready(),
    }
    times = race(contestants, 2 * rounds)
    report(f'nearest code, {named(shape)}', times, 'bare product', 'nearest_code', 'at most 1.5')


def peak(k):
  """Peak memory in MB of this process after two training steps with K codes."""
  run = jax_step(LADDER[0], k, LADDER[2])
  run()
  run()
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts KiB


def memory(rounds):
  del rounds
  n, ladder, d = LADDER
  print(f'peak memory of a process with two training steps, N={n} D={d}')
  for k in ladder:
    start = time.perf_counter()
    megabytes = float(child(__file__, '--peak', str(k)))
    seconds = time.perf_counter() - start
    matrix = 4e-6 * n * k
    print(f'  K={k:<8d} {megabytes:6.0f} MB, an N x K matrix {matrix:6.0f} MB, {seconds:4.0f} s')
  print('  goal: below 1500 MB\n', flush=True)


def imports(rounds):
  names = 'vqjax.quantizers', 'flax.linen'
  times = race({name: lambda name=name: child('-c', f'import {name}') for name in names}, rounds)
  report('import in a fresh process', times, 'flax.linen', 'vqjax.quantizers', 'below 1.5')


def child(*args):
  cores = str(len(os.sched_getaffinity(0)))
  more = ('--cores', cores) if args[0] == __file__ else ()
  return subprocess.run(
    [sys.executable, *args, *more], check=True, capture_output=True, text=True
  ).stdout


def named(shape):
  return 'N={} K={} D={}'.format(*shape)


if __name__ == '__main__':
  main()
