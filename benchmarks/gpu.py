"""Everything that a few minutes on an NVIDIA GPU can say, the most important first.

    python -m benchmarks.gpu --minutes=9 --out=gpu.jsonl
    python -m benchmarks.gpu --small --out=trial.jsonl       # the same programs, on a CPU

Every part is a process of its own, with its own memory, and is printed as it ends; one that fails
prints its error in full, and the next follows. A part is started if the time that it should take is
left, and ended 10 s after the time is up. Needs JAX, Flax, Optax and, for their parts, PyTorch and
pytest; from the root of the repository.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import timing

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ('vector', 'estimators', 'sinkhorn', 'lattice', 'systems')
# Of these files, what compares with the originals.
CHOSEN = 'reference or original or vqtorch or optvq or simvq or running_affine or residual_vit'
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'jax-cuda13-plugin', 'jax-cuda12-plugin')


class Part(NamedTuple):
  """A command, the seconds that it should take, and those after which it is ended."""

  name: str
  module: str
  flags: tuple[str, ...]
  seconds: float
  most: float


def parts():
  """In the order of their worth."""
  golden = tuple(f'tests/quantizers/test_{name}.py' for name in GOLDEN)
  # Without the repository's own options, which need pytest-xdist and make warnings errors.
  quiet = ('-q', '--tb=short', '-o', 'addopts=', '-o', 'filterwarnings=default')
  yield Part('limits', 'benchmarks.ceilings', ('--parts=limits',), 15, 40)
  yield Part('lookup', 'benchmarks.ceilings', ('--parts=lookup',), 45, 100)
  yield train_step('rot_vqgan', 'bfloat16', 16, 112)
  yield torch_step('rot_vqgan', 'eager', 16, 30)
  yield torch_step('rot_vqgan', 'bf16', 16, 20)
  yield torch_step('rot_vqgan', 'compile', 16, 80)
  yield train_step('rot_vitvqgan', 'bfloat16', 32, 110)
  yield torch_step('rot_vitvqgan', 'compile', 32, 60)
  yield torch_step('rot_vitvqgan', 'eager', 32, 30)
  # So far, what compares; the estimates are of eight and a half minutes.
  tests = (*quiet, '-p', 'no:cacheprovider', '-k', CHOSEN, *golden)
  yield Part('goldens', 'pytest', tests, 100, 180)
  yield torch_step('rot_vitvqgan', 'bf16', 32, 20)
  yield Part('precision', 'benchmarks.ceilings', ('--parts=precision',), 20, 60)
  yield train_step('rot_vqgan', 'bfloat16', 32, 120)
  yield train_step('rot_vqgan', 'float32', 16, 150)  # not yet compiled after 80 s
  yield train_step('rot_vitvqgan', 'float32', 32, 120)
  yield train_step('rot_vitvqgan', 'bfloat16', 16, 110)


def train_step(network, precision, batch, seconds):
  rounds = 3 if precision == 'float32' else 8
  flags = f'--networks={network}', f'--precision={precision}', f'--batch={batch}'
  name = f'{network} {precision} {batch}'
  module = 'benchmarks.train_step'
  return Part(name, module, (*flags, f'--rounds={rounds}'), seconds, 2.5 * seconds)


def torch_step(network, mode, batch, seconds):
  rounds = 3 if mode == 'eager' else 8
  flags = f'--network={network}', f'--mode={mode}', f'--batch={batch}', f'--rounds={rounds}'
  return Part(
    f'torch {network} {mode} {batch}', 'benchmarks.torch_step', flags, seconds, 2.5 * seconds
  )


def small(part):
  """The same program in a size for a CPU."""
  trial = {
    'pytest': ('-q', '-p', 'no:cacheprovider', 'tests/quantizers/test_estimators.py'),
    'benchmarks.ceilings': (*part.flags, '--small', '--rounds=1'),
  }
  size = '--image_size=32', '--batch=2', '--channels=32', '--rounds=1'
  return part._replace(flags=trial.get(part.module, (*part.flags, *size)), most=600)


def run(part, args, peaks, most):
  """Runs a part, its output going where ours goes: how it ended."""
  flags = list(part.flags)
  if part.module != 'pytest':
    flags.append(f'--out={args.out}')
  if part.module == 'benchmarks.train_step':
    dtype = 'bfloat16' if '--precision=bfloat16' in part.flags else 'float32'
    flags.append(f'--peak_tflops={peaks.get(dtype, 0)}')
  environment = os.environ | {
    'PYTHONUNBUFFERED': '1',
    'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    'VQJAX_TEST_PLATFORM': 'cpu' if args.small else 'cuda,cpu',
    **({'JAX_PLATFORMS': 'cpu'} if args.small else {}),
  }
  process = subprocess.Popen(
    [sys.executable, '-m', part.module, *flags],
    cwd=ROOT,
    env=environment,
    stderr=subprocess.STDOUT,
    start_new_session=True,  # compilers of PyTorch are processes too
  )
  try:
    code = process.wait(most)
    return 'done' if code == 0 else f'ended with {code}'
  except subprocess.TimeoutExpired:
    return f'stopped after {most:.0f} s'
  finally:  # after Ctrl-C too
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()


def peaks_in(out):
  """Rates of matrix products in TFLOP/s by dtype, as this call has measured them."""
  peaks = {}
  for record in map(json.loads, pathlib.Path(out).read_text().splitlines()):
    if record['part'] == 'surroundings':  # a call begins
      peaks = {}
    elif record['part'] == 'product':
      peaks[record['dtype']] = record['tflops']
  return peaks


def surroundings():
  """What the numbers belong to."""
  query = 'nvidia-smi', '--query-gpu=name,driver_version,memory.total', '--format=csv,noheader'
  try:
    card = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
  except (OSError, subprocess.SubprocessError) as error:
    card = f'no card: {error}'
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  now = datetime.datetime.now(datetime.UTC).isoformat(timespec='minutes')
  return {'card': card.strip(), 'date': now, 'python': platform.python_version(), **versions}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--minutes', type=float, default=5.5, help='a part starts if its time is left'
  )
  parser.add_argument('--out', default='gpu.jsonl', help='appended to, a JSON object a line')
  parser.add_argument('--small', action='store_true', help='a trial on a CPU')
  parser.add_argument('--only', default='', help='parts whose name has one of these, by commas')
  args = parser.parse_args()
  args.out = os.path.abspath(args.out)
  start = time.monotonic()

  keep = functools.partial(timing.keep, out=args.out)
  keep({'part': 'surroundings', 'minutes': args.minutes, **surroundings()})
  failed = []
  wanted = [word for word in args.only.split(',') if word]
  for part in map(small, parts()) if args.small else parts():
    if wanted and not any(word in part.name for word in wanted):
      continue
    left = 60 * args.minutes - (time.monotonic() - start)
    if part.seconds > left:
      keep({'part': 'run', 'name': part.name, 'end': f'not started: {left:.0f} s left'})
      continue
    print(f'\n== {part.name} ({time.monotonic() - start:.0f} s)', flush=True)
    began = time.monotonic()
    end = run(part, args, peaks_in(args.out), min(part.most, left + 10))
    keep({'part': 'run', 'name': part.name, 'end': end, 'seconds': time.monotonic() - began})
    if end != 'done':
      failed.append(part.name)
  if failed:
    raise SystemExit(f'not done: {", ".join(failed)}')


if __name__ == '__main__':
  main()
