"""Table 3's VQGAN and LlamaGen's transformer here and in PyTorch, on one machine, taking turns.

    python -m benchmarks.side_by_side --peer=PYTHON --out=side_by_side.json

PYTHON is an interpreter with PyTorch; the peers are `torch_peer.py` and `torch_gpt.py`. Each work
of each side is a process of its own, so that its peak memory is its own; both have compiled and
warmed up before the first turn, and while one computes the other waits. Without LPIPS, and the
transformer has two layers of size B. Seconds are medians, ratios medians of pairs, the share is
that of the rate of a bare matrix product, by the operations that the definition has.
"""

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
# Pixels a side for 64; the decoder works on what becomes so many. The GPT has cells a side.
WORKS = {
  'encode': 128,
  'decode': 128,
  'forward': 128,
  'discriminator step': 64,
  'reconstruction step': 64,
  'GAN step': 64,
  'GPT step': 16,
}
LAYERS = 2  # of the GPT
PRODUCT = 2048  # rows, columns and terms of the bare product


def ours(work, args):
  """A call that does the work once, the call of the bare product, and what is known of both."""
  import jax
  import jax.numpy as jnp

  from benchmarks import generation, train_step

  jax.config.update('jax_enable_compilation_cache', False)
  square = jnp.ones((PRODUCT, PRODUCT))
  multiply = jax.jit(jnp.matmul)
  product = lambda: multiply(square, square).block_until_ready()
  if work == 'GPT step':
    run, operations = generation.step(WORKS[work], args.batch, args.channels or 768, LAYERS)
    return run, product, {'gflop': operations / 1e9}
  size = WORKS[work] * args.scale // 64
  config = train_step.config_of('rot_vqgan', size, args.batch, 'float32', args.channels)
  config.loss.perceptual = 0.0
  if work == 'reconstruction step':
    config.gan.weight = 0.0
  made = train_step.make(config)
  tokenizer, variables = made.recipe.tokenizer, {'params': made.state.generator.params}
  images = tokenizer.normalize(made.batch['image'])
  forward = lambda v, x: tokenizer.apply(v, x)[0]
  if work.endswith(' step') and work != 'discriminator step':
    step = made.step.lower(made.state, made.batch, stage=made.recipe.stage(1), perceptual=None)
    step = step.compile()
    judged = 'GAN' in work
    operations = (4 if judged else 3) * train_step.count(forward, variables, images)
    state = made.state

    def run():
      nonlocal state
      state, _ = jax.block_until_ready(step(state, made.batch, perceptual=None))
  else:
    operations = 0
    if work == 'discriminator step':
      judge, module = made.state.discriminator, made.recipe.gan.discriminator
      look = lambda p, x: module.apply({'params': p, **judge.variables}, x, mutable=['batch_stats'])
      function = jax.grad(lambda p, x: jnp.mean(look(p, x)[0]))
      variables, operations = judge.params, 3 * train_step.count(look, judge.params, images)
    else:
      encode = lambda v, x: tokenizer.apply(v, x, method='encode').indices
      decode = functools.partial(tokenizer.apply, method='decode_tokens')
      function = {'encode': encode, 'decode': decode, 'forward': forward}[work]
      images = jax.jit(encode)(variables, images) if work == 'decode' else images
    operations = operations or train_step.count(function, variables, images)
    compiled = jax.jit(function).lower(variables, images).compile()
    run = lambda: jax.block_until_ready(compiled(variables, images))

  return run, product, {'gflop': operations / 1e9}


def theirs(work, args):
  """Likewise, in PyTorch."""
  import torch

  from benchmarks import torch_gpt, torch_peer

  torch.manual_seed(0)
  square = torch.ones(PRODUCT, PRODUCT)
  product = lambda: square @ square
  if work == 'GPT step':
    model = torch_gpt.GPT(WORKS[work], width=args.channels or 768, depth=LAYERS)
    step = torch_gpt.Step(model)
    tokens = torch.randint(16384, (args.batch, WORKS[work] ** 2))
    labels = torch.randint(1000, (args.batch,))
    return lambda: step(tokens, labels), product, {}
  zero = lambda x, y: torch.zeros(len(x))
  model, judge = torch_peer.VQGAN(channels=args.channels or 128), torch_peer.PatchGAN()
  step, last = torch_peer.Step(model, judge, zero), model.decoder.conv_out
  size = WORKS[work] * args.scale // 64
  x = torch.rand(args.batch, 3, size, size) * 2 - 1

  def reconstruct():
    h, loss, _ = model(x)
    step._update(step.optimizers[0], (x - last(h)).abs().mean() + loss)

  def discriminate():
    judge.zero_grad()
    judge(x).mean().backward()

  encode = lambda: model.quantize(model.quant_conv(model.encoder(x)))
  z = None if work != 'decode' else encode()[0].detach()
  run = {
    'GAN step': lambda: step(x),
    'reconstruction step': reconstruct,
    'discriminator step': discriminate,
    'encode': torch.no_grad()(encode),
    'decode': torch.no_grad()(lambda: last(model.decoder(model.post_quant_conv(z)))),
    'forward': torch.no_grad()(lambda: last(model(x)[0])),
  }[work]
  return run, product, {}


def serve(side, args):
  """A contestant: runs once for every line of stdin, and writes the seconds that it took."""
  start = time.perf_counter()
  run, product, found = {'ours': ours, 'theirs': theirs}[side](args.work, args)
  run()
  found['first_s'] = time.perf_counter() - start
  found['peak_mb_compiling'] = peak_mb()
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is counted anew
  run()
  calls = {'run': run, 'product': product}
  print('ready', flush=True)
  for line in sys.stdin:
    start = time.perf_counter()
    calls[line.strip()]()
    print(time.perf_counter() - start, flush=True)
  print(json.dumps(found | {'peak_mb': peak_mb()}), flush=True)


def peak_mb():
  """Most memory that this process had, in MB (Linux)."""
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.partition('VmHWM:')[2].split()[0]) * 1024 / 1e6


class Contestant:
  """The other end of `serve`."""

  def __init__(self, side, python, work, args):
    sizes = f'--batch={args.batch}', f'--channels={args.channels}', f'--scale={args.scale}'
    command = python, '-m', 'benchmarks.side_by_side', f'--side={side}', f'--work={work}', *sizes
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    self.process = subprocess.Popen(command, cwd=ROOT, **pipes)
    self.read('ready')
    self.seconds = {'run': [], 'product': []}

  def read(self, word=''):
    """The next line; with a word, that begins with it."""
    while line := self.process.stdout.readline():
      if line.startswith(word):
        return line
    raise SystemExit(f'{" ".join(self.process.args)} ended; its error is above.')

  def turn(self, what):
    """Has it run once."""
    print(what, file=self.process.stdin, flush=True)
    self.seconds[what].append(float(self.read()))

  def finish(self):
    """Ends it: what it found, with medians."""
    self.process.stdin.close()
    medians = {f'{what}_s': statistics.median(times) for what, times in self.seconds.items()}
    return json.loads(self.read('{')) | medians


def race(work, args):
  """Both sides of one work: its record."""
  pythons = {'theirs': args.peer, 'ours': sys.executable}
  sides = {side: Contestant(side, python, work, args) for side, python in pythons.items()}
  for _ in range(args.rounds):
    for what in ('run', 'product'):
      for side in sides.values():
        side.turn(what)
  pairs = zip(*(sides[side].seconds['run'] for side in ('theirs', 'ours')), strict=True)
  record = {side: contestant.finish() for side, contestant in sides.items()}
  rate = 2 * PRODUCT**3 / 1e9 / min(record[side]['product_s'] for side in record)
  record |= {
    'work': work,
    'ratio': statistics.median(a / b for a, b in pairs),
    'memory_ratio': record['ours']['peak_mb'] / record['theirs']['peak_mb'],
    'share_of_product': record['ours']['gflop'] / record['ours']['run_s'] / rate,
    'product_gflops': rate,
  }
  return record


def draw(records, path):
  """A picture of the ratios, beside the goal of one."""
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(7, 0.5 * len(records) + 1.2), layout='constrained')
  names = [record['work'] for record in records]
  bars = axes.barh(names, [record['ratio'] for record in records], color='#4878a8')
  axes.bar_label(bars, fmt='%.2f', padding=3)
  axes.axvline(1, color='black', linewidth=1)
  axes.set_xlabel("images a second / PyTorch's")
  axes.invert_yaxis()
  axes.margins(x=0.1)
  figure.savefig(path)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--peer', help='interpreter with PyTorch', required='--side' not in str(sys.argv)
  )
  parser.add_argument('--works', default=','.join(WORKS), help='comma-separated')
  parser.add_argument('--batch', type=int, default=2)
  parser.add_argument('--scale', type=int, default=64, help='pixels a side of the images of a step')
  parser.add_argument('--channels', type=int, default=0, help='narrower, for a trial; 0: published')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--out', help='JSON file; a picture is written beside it')
  parser.add_argument('--side', choices=('ours', 'theirs'), help=argparse.SUPPRESS)
  parser.add_argument('--work', choices=WORKS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.side:
    serve(args.side, args)
    return
  print('| work | PyTorch | vqjax | ratio | peak MB, both | share of a product | first call |')
  print('|---|---|---|---|---|---|---|')
  records = []
  for work in args.works.split(','):
    record = race(work, args)
    records.append(record)
    a, b = record['theirs'], record['ours']
    print(
      f'| {work} | {a["run_s"]:.2f} s | {b["run_s"]:.2f} s | {record["ratio"]:.2f} '
      f'| {a["peak_mb"]:.0f}, {b["peak_mb"]:.0f} ({record["memory_ratio"]:.2f}) '
      f'| {record["share_of_product"]:.0%} of {record["product_gflops"]:.0f} GFLOP/s '
      f'| {b["first_s"]:.0f} s |',
      flush=True,
    )
  if args.out:
    pathlib.Path(args.out).write_text(json.dumps(records, indent=1))
    draw(records, pathlib.Path(args.out).with_suffix('.svg'))


if __name__ == '__main__':
  main()
