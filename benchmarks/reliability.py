"""What becomes of runs that are killed or asked to end, and of damaged checkpoints and shards.

    python -m benchmarks.reliability [kills terminations checkpoints shards] [--times=20] [--seed=0]

Trains small VQGANs by train.py, in processes of their own, and injects into each part as many
faults as `--times` says, at moments and places drawn from the seed. Prints a table of what was
injected and what happened. It ends with status 1 if anything but what docs/reliability.md promises
happened even once. Two cores take about 15 s for a kill, a second for the rest.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from PIL import Image

from configs import rot_vqgan
from vqjax import sharding
from vqjax.data import eval_batches, make_source, prepare
from vqjax.errors import UserError
from vqjax.runs.checkpoint import Checkpoints
from vqjax.runs.folder import saved_steps
from vqjax.training.tokenizer_experiment import TokenizerExperiment

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {
  'data.image_size': 16,
  'model.channels': 8,
  'model.num_blocks': 1,
  'quantizer.num_codes': 16,
  'seed_codebook_batches': 0,
  'batch_size': 8,
  'eval_images': 8,
  'total_steps': 300,
  'log_every': 1,
  'eval_every': 100,
  'checkpoint_every': 25,
}
RESUMED = 'resumed, the same to the bit'
PASSED_OVER = 'passed over for the one before'
UNREADABLE = 'one image unreadable, the others read'
REFUSED = 'refused in one sentence'
UNHARMED = 'every image read and right'
EARLY = 'had ended before'
# Of a checkpoint: that it was saved, and when, which nobody reads.
UNREAD = ('_CHECKPOINT_METADATA', 'commit_success.txt')
PROMISED = {RESUMED, PASSED_OVER, UNREADABLE, REFUSED, UNHARMED, EARLY}


def config():
  """The run that is harmed."""
  config = rot_vqgan.get_config('demo')
  config.update_from_flattened_dict(SMALL)
  config.gan.channels, config.gan.num_layers = 4, 1
  return config


class Runs:
  """Trainings of the one config in folders of `scratch`; the first is not harmed."""

  def __init__(self, scratch):
    self.scratch = scratch
    self.whole = scratch / 'whole'
    self._abstract = TokenizerExperiment(
      config(), sharding.make_mesh({'data': 1, 'fsdp': 1})
    ).abstract_state
    self.start(self.whole).wait()  # compiles
    shutil.rmtree(self.whole)
    begun = time.perf_counter()
    self.start(self.whole).wait()
    self.seconds = time.perf_counter() - begun
    self._outcome = self.outcome(self.whole)

  def start(self, workdir):
    """The process of a training in `workdir`."""
    fields = [f'--config.{name}={value}' for name, value in SMALL.items()]
    fields += ['--config.gan.channels=4', '--config.gan.num_layers=1']
    with open(self.scratch / f'{workdir.name}.log', 'a') as log:
      return subprocess.Popen(
        [sys.executable, 'train.py', '--config=configs/rot_vqgan.py:demo', *fields]
        + [f'--workdir={workdir}'],
        cwd=ROOT,
        env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(self.scratch / 'compiled')},
        stdout=log,
        stderr=log,
      )

  def outcome(self, workdir):
    """The last state, as bytes, and what was logged on the way."""
    with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
      state, _ = checkpoints.restore(self._abstract)
    raw = lambda leaf: (
      jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    arrays = [np.asarray(raw(leaf)).tobytes() for leaf in jax.tree.leaves(state)]
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return arrays, [{k: v for k, v in line.items() if k != 'images_per_second'} for line in lines]

  def compare(self, workdir):
    """Whether a run that has ended is the one that was never harmed."""
    arrays, lines = self.outcome(workdir)
    if arrays != self._outcome[0]:
      return 'another state'
    return RESUMED if lines == self._outcome[1] else 'another log'


def interrupted(runs, times, rng, number):
  """Sends a signal at a moment of the last three quarters of a run, and goes on with it."""
  for i in range(times):
    workdir = runs.scratch / f'signal_{number}_{i}'
    process = runs.start(workdir)
    time.sleep(runs.seconds * rng.uniform(0.25, 1))
    if process.poll() is not None:
      yield EARLY
      continue
    process.send_signal(number)
    status = process.wait()
    if number == signal.SIGTERM and status not in (0, 128 + number):
      yield f'ended with {status}'
    elif runs.start(workdir).wait():
      yield 'did not go on'
    else:
      yield runs.compare(workdir)
    shutil.rmtree(workdir)


def kills(runs, times, rng):
  """SIGKILL."""
  return interrupted(runs, times, rng, signal.SIGKILL)


def terminations(runs, times, rng):
  """SIGTERM."""
  return interrupted(runs, times, rng, signal.SIGTERM)


def checkpoints(runs, times, rng):
  """A bit of a file of the newest checkpoint."""
  newest = saved_steps(runs.whole / 'checkpoints')[-1]
  folder = runs.whole / 'checkpoints' / str(newest)
  files = sorted(path for path in folder.rglob('*') if path.is_file() and path.name not in UNREAD)
  for _ in range(times):
    with flipped(files[rng.integers(len(files))], rng):
      try:
        with Checkpoints(runs.whole / 'checkpoints', read_only=True) as read:
          step = read.restore(runs._abstract)[1]['step']
        yield 'used without a word' if step == newest else PASSED_OVER
      except UserError:
        yield REFUSED


def shards(runs, times, rng):
  """A bit of one of two ArrayRecord shards of 24 images."""
  pictures, out = runs.scratch / 'pictures', runs.scratch / 'shards'
  for split, count in (('train', 24), ('val', 24)):
    (pictures / split).mkdir(parents=True)
    for i in range(count):
      noise = rng.integers(0, 256, (96, 96, 3), np.uint8)
      Image.fromarray(noise).save(pictures / split / f'{i}.png')
  with contextlib.redirect_stdout(io.StringIO()):
    prepare.prepare(pictures, out, shards=2)
  data = config().data
  data.source, data.path = 'array_record', str(out)

  def images():
    batches = eval_batches(make_source(data, 'eval'), data, batch_size=8)
    with contextlib.closing(batches):
      read = [(b['image'], b['mask']) for b in batches]
    return tuple(map(np.concatenate, zip(*read, strict=True)))

  whole, _ = images()
  files = sorted(out.glob('val*'))
  for _ in range(times):
    with flipped(files[rng.integers(len(files))], rng):
      try:
        found, readable = images()
      except UserError:
        yield REFUSED
        continue
      except Exception as error:
        yield f'a traceback, {type(error).__name__}'
        continue
      if len(found) != len(whole) or (found[readable] != whole[readable]).any():
        yield 'wrong pixels'
      else:
        missing = np.sum(~readable)
        yield {0: UNHARMED, 1: UNREADABLE}.get(missing, f'{missing} images unreadable')


@contextlib.contextmanager
def flipped(path, rng):
  """A bit of the file is another for a while."""
  content = path.read_bytes()
  place = rng.integers(len(content))
  bit = 1 << int(rng.integers(8))
  path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
  yield
  path.write_bytes(content)


PARTS = {part.__name__: part for part in (kills, terminations, checkpoints, shards)}


def main():
  """Injects what is asked for."""
  parser = argparse.ArgumentParser(usage=__doc__)
  parser.add_argument('parts', nargs='*', metavar='PART')
  parser.add_argument('--times', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  if unknown := [part for part in args.parts if part not in PARTS]:
    parser.error(f'{unknown[0]} is no part; legal: {" ".join(PARTS)}')
  logging.getLogger('vqjax').setLevel(logging.ERROR)
  broken = False
  with tempfile.TemporaryDirectory(prefix='vqjax_reliability_') as scratch:
    runs = Runs(pathlib.Path(scratch))
    print(f'a run takes {runs.seconds:.0f} s', flush=True)
    print('| injected | times | what happened |\n| --- | --- | --- |', flush=True)
    for name in args.parts or PARTS:
      rng = np.random.default_rng(args.seed)
      found = collections.Counter()
      for outcome in PARTS[name](runs, args.times, rng):
        found[outcome] += 1
      broken |= bool(found.keys() - PROMISED)
      what = ', '.join(f'{count}: {outcome}' for outcome, count in found.most_common())
      print(f'| {PARTS[name].__doc__} | {args.times} | {what} |', flush=True)
  if broken:
    sys.exit('not all of this is promised')


if __name__ == '__main__':
  main()
