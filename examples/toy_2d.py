"""Codebook collapse in the plane, and what helps: features, codes and assignments while they train.

    python -m pip install -e '.[examples]'
    python examples/toy_2d.py [--out=docs/toy] [--steps=1000] [--frames=40]

draws `toy.gif` and `still.png` and prints a table. 256 features start in one blob away from 32
codes, which start around the origin, and move to targets of their own in five clusters: the encoder
moves while the codebook learns. Each step is one Adam update of both, through the real layer, of
`mean |z_q - target|^2` (the decoder is the identity) and the layer's loss with weights 1 and 1, at
which features without rounding come to rest on their targets. Data, seed and step size are those of
all eight panels; only the named fields differ. After experiments of vqtorch (Huh et al., ICML 2023)
and OptVQ (arXiv 2412.15195) on their project pages; nothing here repeats their numbers.

What one sees: the few codes nearest to the blob win every feature, and the others never get a
gradient. Rotation changes what the encoder sees, alternating steps when the codes move; neither is
a cure of collapse, nor meant as one. (Alternating walks the baseline's very path here: with these
weights straight-through sends a feature to its target whatever its code.) A learned affine map that
all codes share takes a part of them along. Running statistics in its place (vqtorch has both),
Sinkhorn's balanced assignment (OptVQ), replacement of codes unused for 20 steps, and k-means
seeding use all of them.
"""

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import optax
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from PIL import Image

from vqjax import quantizers as vq

FEATURES, CODES, SPREAD, LEARNING_RATE = 256, 32, 0.2, 0.02
CENTRES = ((2.0, 0.6), (3.2, 1.0), (2.2, 2.0), (3.4, 2.6), (1.4, 3.0))

# Blue and vermillion differ for every kind of colour vision, and full and hollow in grey too.
USED, UNUSED, FEATURE, LINE = '#0072B2', '#D55E00', '0.45', '0.75'


def methods():
  """What the panels compare: their titles, and the fields in which they differ."""
  synced = vq.Sync(vq.straight_through, 2.0)
  return {
    'nearest\nstraight-through': {},
    'nearest\nrotation': {'estimator': vq.rotation},
    'nearest\nalternating': {'learner': vq.Alternating(optax.adam(LEARNING_RATE))},
    'nearest\nsync + affine': {'estimator': synced, 'transform': vq.Affine(2.0)},
    'nearest\nsync + running affine': {'estimator': synced, 'transform': vq.RunningAffine()},
    'Sinkhorn\nstraight-through': {'assign': vq.Sinkhorn()},
    'nearest\n+ replacement': {'replacement': vq.LeastRecent(20)},
    'nearest\n+ k-means start': {},
  }


class History(NamedTuple):
  """What a run was before each of its T - 1 updates, and after the last."""

  features: np.ndarray  # [T N 2]
  codes: np.ndarray  # [T K 2]
  indices: np.ndarray  # [T N]  the assignment that training uses

  def used(self, t):
    """Which codes training takes at `t`: [K] bool."""
    return np.isin(np.arange(CODES), self.indices[t])

  def nearest_used(self, t):
    """Which codes are nearest to some feature, as in tokenizing: [K] bool."""
    apart = np.linalg.norm(self.features[t][:, None] - self.codes[t][None], axis=-1)
    return np.isin(np.arange(CODES), apart.argmin(axis=1))

  def error(self, t):
    """Mean distance of a feature to its code."""
    taken = self.codes[t][self.indices[t]]
    return float(np.linalg.norm(self.features[t] - taken, axis=-1).mean())


def data(seed=0):
  """(features at the start, targets), both [N 2]."""
  blob, cloud = jax.random.split(jax.random.key(seed))
  start = jnp.asarray((3.0, 2.0))[None] + 0.5 * jax.random.normal(blob, (FEATURES, 2))
  centres = jnp.asarray(CENTRES)[jnp.arange(FEATURES) % len(CENTRES)]
  return start, centres + 0.3 * jax.random.normal(cloud, (FEATURES, 2))


def simulate(fields, steps, *, seeded=False, seed=0) -> History:
  """Trains features and codes together for `steps` updates."""
  start, targets = data(seed)
  optimizer = optax.adam(LEARNING_RATE)
  quantizer = vq.VectorQuantizer(
    CODES, commitment_weight=1.0, codebook_init=vq.NormalCodebook(SPREAD), **fields
  )
  init_key, seed_key, steps_key = jax.random.split(jax.random.key(seed + 1), 3)
  own = quantizer.init(init_key, start, train=True)
  if seeded:
    own = vq.seed_codebooks(quantizer, own, start, seed_key)
  variables = {
    'params': {'features': start, 'quantizer': own.get('params', {})},
    'vq': {'quantizer': own.get('vq', {})},
  }

  def objective(params, state, key):
    out, updated = quantizer.apply(
      {'params': params['quantizer'], 'vq': state['quantizer']},
      params['features'],
      train=True,
      mutable=['vq'],
      rngs={'vq': key},
    )
    loss = jnp.mean(jnp.square(out.z_q - targets)) + out.loss
    return loss, {'quantizer': updated.get('vq', {})}

  def step(carry, key):
    variables, opt_state = carry
    own = {name: tree['quantizer'] for name, tree in variables.items()}
    features = variables['params']['features']
    codes = quantizer.apply(own, jnp.arange(CODES), method='lookup')
    indices = quantizer.assign(features, codes, key=key, mask=None, step=None)

    params = variables['params']
    gradient, state = jax.grad(objective, has_aux=True)(params, variables['vq'], key)
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes
      updates, opt_state = optimizer.update(gradient, opt_state, params)
    moved = {'params': optax.apply_updates(params, updates), 'vq': state}
    if quantizer.replacement is not None:
      moved, opt_state = vq.replace_dead_codes(quantizer, moved, key, opt_state=opt_state)
    return (moved, opt_state), History(features, codes, indices)

  carry = variables, optimizer.init(variables['params'])
  keys = jax.random.split(steps_key, steps + 1)
  _, history = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))(carry)
  return jax.tree.map(np.asarray, history)


def simulate_all(steps) -> dict[str, History]:
  return {
    name: simulate(fields, steps, seeded='k-means' in name) for name, fields in methods().items()
  }


def frame_steps(steps, frames):
  """Steps to draw, 0 to `steps`, all different: denser at the start, where most of it happens."""
  return [max(i, round(steps * (i / (frames - 1)) ** 2)) for i in range(frames)]


class Panel:
  """One run in one set of axes; `show(t)` moves what is drawn."""

  def __init__(self, axes, history):
    self.axes, self.history = axes, history
    axes.set(xlim=(-0.7, 4.8), ylim=(-0.7, 4.0), aspect='equal', xticks=[], yticks=[])
    for side in axes.spines.values():
      side.set(color='0.8')
    self.lines = axes.add_collection(LineCollection([], colors=LINE, linewidths=0.5, zorder=1))
    style = {'linestyle': '', 'markeredgewidth': 1.0}
    (self.features,) = axes.plot([], [], '.', color=FEATURE, markersize=2, zorder=2)
    (self.unused,) = axes.plot([], [], 'o', mec=UNUSED, mfc='none', ms=4.5, zorder=3, **style)
    (self.used,) = axes.plot([], [], 'o', mec='white', mfc=USED, ms=6.5, zorder=4, **style)

  def show(self, t):
    history, used = self.history, self.history.used(t)
    features, codes = history.features[t], history.codes[t]
    self.lines.set_segments(np.stack([features, codes[history.indices[t]]], axis=1))
    self.features.set_data(*features.T)
    self.unused.set_data(*codes[~used].T)
    self.used.set_data(*codes[used].T)
    self.axes.set_xlabel(f'{used.mean():.0%} used, error {history.error(t):.2f}', fontsize=10)


def legend(figure):
  handles = [
    Line2D([], [], marker='.', linestyle='', color=FEATURE, label='feature'),
    Line2D([], [], marker='o', linestyle='', mfc=USED, mec='white', ms=8, label='code in use'),
    Line2D([], [], marker='o', linestyle='', mfc='none', mec=UNUSED, label='code not in use'),
    Line2D([], [], color=LINE, label='its assignment'),
  ]
  figure.legend(handles=handles, loc='lower right', ncols=4, frameon=False, fontsize=10)


def draw_gif(runs, shown, path):
  """All runs in one grid, a frame for each step in `shown`; the last one stands for two seconds."""
  figure = matplotlib.figure.Figure(figsize=(9.6, 6.3), dpi=90)
  grid = figure.subplots(2, 4)
  panels = [Panel(axes, run) for axes, run in zip(grid.flat, runs.values(), strict=True)]
  for panel, name in zip(panels, runs, strict=True):
    panel.axes.set_title(name, fontsize=10)
  figure.subplots_adjust(left=0.01, right=0.99, bottom=0.11, top=0.92, wspace=0.04, hspace=0.36)
  legend(figure)
  clock = figure.text(0.012, 0.022, '', fontsize=10)
  images = []
  for t in shown:
    for panel in panels:
      panel.show(t)
    clock.set_text(f'step {t} of {shown[-1]}')
    images.append(_image(figure))
  durations = [120] * (len(images) - 1) + [2000]
  images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)


def draw_still(runs, shown, path):
  """Columns of runs, rows of the steps in `shown`."""
  figure = matplotlib.figure.Figure(figsize=(16, 2.3 * len(shown) + 0.9), dpi=90)
  grid = figure.subplots(len(shown), len(runs))
  for row, t in zip(grid, shown, strict=True):
    for axes, run in zip(row, runs.values(), strict=True):
      Panel(axes, run).show(t)
    row[0].set_ylabel(f'step {t}', fontsize=11)
  for axes, name in zip(grid[0], runs, strict=True):
    axes.set_title(name, fontsize=10)
  figure.subplots_adjust(left=0.02, right=0.995, bottom=0.1, top=0.93, wspace=0.04, hspace=0.16)
  legend(figure)
  _image(figure).save(path, optimize=True)


def _image(figure):
  """The figure as pixels; 64 colours without dithering keep thin lines clean and files small."""
  canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
  return image.quantize(64, dither=Image.Dither.NONE)


def main(argv=None):
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--out', type=pathlib.Path, default='docs/toy', help='folder for the pictures'
  )
  parser.add_argument('--steps', type=int, default=1000, help='updates of each run')
  parser.add_argument('--frames', type=int, default=40, help='frames of the GIF')
  args = parser.parse_args(argv)
  if args.frames < 3:
    parser.error(f'--frames is {args.frames}; legal: at least 3.')
  if args.steps < args.frames - 1:
    parser.error(f'--steps is {args.steps}; legal: at least {args.frames - 1}, one a frame.')

  runs = simulate_all(args.steps)
  shown = frame_steps(args.steps, args.frames)
  args.out.mkdir(parents=True, exist_ok=True)
  draw_gif(runs, shown, args.out / 'toy.gif')
  draw_still(runs, (0, args.steps // 8, args.steps), args.out / 'still.png')

  print(f'after {args.steps} steps: codes in use, of them nearest to a feature; mean |z - code|')
  for name, run in runs.items():
    usage, nearest = run.used(-1).mean(), run.nearest_used(-1).mean()
    print(f'{name.replace(chr(10), ", "):34}{usage:5.0%}{nearest:6.0%}{run.error(-1):8.3f}')


if __name__ == '__main__':
  main()
