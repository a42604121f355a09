"""Every tokenizer's demo, trained and evaluated as a newcomer does, held to a quality.

python benchmarks/demo.py [DEMO ...] [--out=FOLDER] [--flags="--config.KEY=VALUE ..."]

DEMO is one of `DEMOS` below; all by default. Each is trained by train.py, which is timed from the
command to its end, and evaluated by eval.py, in processes of their own, one after the other; what
is in FOLDER already is gone on with and not timed. Prints a table, and ends with 1 where a demo is
below k-means on patches or its floor, or takes more than five minutes.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

MINUTES = 5
DEMOS = (
  'rot_vqgan.py:demo',
  'rot_vqvae.py:demo',
  'rot_vitvqgan.py:demo',
  'vqgan.py:demo',
  'optvq.py:demo',
  'optvq.py:demo,model=cifar10',
  'optvq.py:demo,model=mnist',
  'llamagen.py:demo',
  'maskgit.py:demo',
  'vqtorch.py:demo',
)
# dB of PSNR that a demo must reach: half a decibel below what docs/evidence.md has of it.
FLOORS = {
  'rot_vqgan.py:demo': 30.9,
  'rot_vqvae.py:demo': 24.8,
  'rot_vitvqgan.py:demo': 23.8,
  'llamagen.py:demo': 24.1,
  'maskgit.py:demo': 23.4,
}
COLUMNS = ('bits_per_pixel', 'psnr', 'ssim', 'usage')
BASELINES = ('kmeans_patches', 'jpeg', 'mean_color')
ROOT = pathlib.Path(__file__).parents[1]


def measure(demo, out, flags):
  """Trains and evaluates a demo: {'minutes': of training or None, metrics by name}."""
  workdir = out / demo.replace('.py:', '_').replace(',', '_')
  run = lambda *command: subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
  fresh, start = not workdir.exists(), time.perf_counter()
  run('train.py', f'--config=configs/{demo}', f'--workdir={workdir}', *flags)
  minutes = (time.perf_counter() - start) / 60 if fresh else None
  run('eval.py', f'--workdir={workdir}')
  found = json.loads((workdir / 'eval' / 'metrics.json').read_text())
  beside = {name: found['baselines'][name]['psnr'] for name in BASELINES}
  return {'minutes': minutes, **{name: found[name] for name in COLUMNS}, **beside}


def table(rows):
  """The rows as Markdown."""
  show = lambda value: 'null' if value is None else f'{value:.2f}'
  names = ('minutes', *COLUMNS, *BASELINES)
  lines = [('demo', *names), ('---',) * (1 + len(names))]
  lines += [(demo, *(show(found[name]) for name in names)) for demo, found in rows.items()]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main():
  """Measures the demos that are asked for."""
  parser = argparse.ArgumentParser(usage=__doc__)
  parser.add_argument('demos', nargs='*', metavar='DEMO')
  parser.add_argument('--out', type=pathlib.Path)
  parser.add_argument('--flags', type=shlex.split, default=[])
  args = parser.parse_args()
  if unknown := [demo for demo in args.demos if demo not in DEMOS]:
    parser.error(f'{unknown[0]} is no demo; legal: {" ".join(DEMOS)}')
  out = (args.out or pathlib.Path(tempfile.mkdtemp(prefix='vqjax_demos_'))).absolute()
  rows = {demo: measure(demo, out, args.flags) for demo in args.demos or DEMOS}
  print(table(rows))
  late = [demo for demo, found in rows.items() if (found['minutes'] or 0) > MINUTES]
  least = lambda demo: max(rows[demo]['kmeans_patches'] or 0, FLOORS.get(demo, 0))
  poor = [demo for demo, found in rows.items() if found['psnr'] < least(demo)]
  if late or poor:
    sys.exit(f'longer than {MINUTES} minutes: {late}; below k-means or their floor: {poor}')


if __name__ == '__main__':
  main()
