"""Causal decoding: with a cache beside re-running the forward, and what the sampler adds to it.

    python -m benchmarks.generation                      # LlamaGen's B at 256 tokens
    python -m benchmarks.generation --depth=2 --batch=4  # a trial

Times are medians of contestants that take turns in one process, weights are random. The training
step beside PyTorch's is `python -m benchmarks.side_by_side --works='GPT step'`.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import optax

from benchmarks import timing, train_step
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT

CLASSES = 1000
SAMPLERS = {
  'plain': CausalSampler(),
  'guided': CausalSampler(guidance=2.0),
  'guided, filtered': CausalSampler(guidance=2.0, top_k=2000, top_p=0.95),
}


def turns(contestants, rounds):
  """Median seconds of each, after a first call that compiles."""
  seconds = {name: [] for name in contestants}
  for i in range(1 + rounds):
    for name, run in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(run())
      if i:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(times) for name, times in seconds.items()}


def rerun(model, params, labels):
  """Takes the most probable symbol at every place, from a forward over the whole image."""

  def step(symbols, place):
    logits = jax.lax.dynamic_index_in_dim(
      model.apply({'params': params}, symbols, labels), place, axis=1, keepdims=False
    )
    drawn = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.lax.dynamic_update_index_in_dim(symbols, drawn, place, axis=1), None

  symbols = jnp.zeros((len(labels), model.layout.length), jnp.int32)
  return jax.lax.scan(step, symbols, jnp.arange(model.layout.length))[0]


def passes(model, params, labels):
  """The same passes as a sampler's, without drawing: what no sampler can do without."""
  logits, cache = model.apply({'params': params}, labels, method='start')

  def step(carry, index):
    total, cache = carry
    symbols = jnp.broadcast_to(index, labels.shape)
    logits, cache = model.apply({'params': params}, symbols, index, cache, method='step')
    return (total + logits, cache), None

  places = jnp.arange(model.layout.length - 1, dtype=jnp.int32)
  return jax.lax.scan(step, (logits, cache), places)[0][0]


def step(side, batch, width, depth):
  """A call that trains once, as `torch_gpt.Step` does, and the operations of it."""
  model = GPT(Layout((side, side), 16384), CLASSES, width, depth, width // 64)
  keys = jax.random.split(jax.random.key(0), 3)
  symbols = jax.random.randint(keys[0], (batch, side * side), 0, 16384)
  labels = jax.random.randint(keys[1], (batch,), 0, CLASSES)
  state = [jax.jit(model.init)(keys[2], symbols, labels)]
  optimizer = optax.adamw(1e-4, b1=0.9, b2=0.95, weight_decay=0.05)
  state.append(jax.jit(optimizer.init)(state[0]))

  def loss(variables):
    logits = model.apply(variables, symbols, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, symbols).mean()

  def update(variables, moments):
    value, gradient = jax.value_and_grad(loss)(variables)
    updates, moments = optimizer.update(gradient, moments, variables)
    return optax.apply_updates(variables, updates), moments, value

  compiled = jax.jit(update, donate_argnums=(0, 1)).lower(*state).compile()

  def run():
    state[0], state[1], value = compiled(*state)
    value.block_until_ready()

  forward = lambda variables: model.apply(variables, symbols, labels)
  return run, 3 * train_step.count(forward, state[0])


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--side', type=int, default=16, help='cells a side')
  parser.add_argument('--codes', type=int, default=16384)
  parser.add_argument('--width', type=int, default=768)
  parser.add_argument('--depth', type=int, default=12)
  parser.add_argument('--heads', type=int, default=12)
  parser.add_argument('--batch', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--parts', default='cache,overhead')
  parser.add_argument('--out', help='file to append results to')
  args = parser.parse_args()
  layout = Layout((args.side, args.side), args.codes)
  model = GPT(layout, CLASSES, args.width, args.depth, args.heads)
  labels = jnp.arange(args.batch, dtype=jnp.int32)
  symbols = jnp.zeros((1, layout.length), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), symbols, labels[:1])['params']
  keys = jax.random.split(jax.random.key(1), args.batch)
  size = {'tokens': layout.length, 'depth': args.depth, 'batch': args.batch}

  cold = CausalSampler(temperature=0)
  decode = jax.jit(lambda p, labels: cold(model, p, labels, keys))
  again = jax.jit(lambda p, labels: rerun(model, p, labels))
  if 'cache' in args.parts:
    found = turns(
      {'cached': lambda: decode(params, labels), 'rerun': lambda: again(params, labels)},
      args.rounds,
    )
    record = {'part': 'cache', **size, **{f'{name}_s': s for name, s in found.items()}}
    timing.keep(record | {'ratio': found['rerun'] / found['cached']}, args.out)
  if 'overhead' in args.parts:
    bare = jax.jit(lambda p, labels: passes(model, p, labels))
    for name, sampler in SAMPLERS.items():
      draw = jax.jit(lambda p, labels, s=sampler: s(model, p, labels, keys))
      rows = jnp.concatenate([labels, labels]) if sampler.guidance else labels
      contestants = {
        'sampler': lambda draw=draw: draw(params, labels),
        'passes': lambda rows=rows: bare(params, rows),
      }
      found = turns(contestants, args.rounds)
      record = {'part': 'overhead', 'sampler': name, **size}
      record |= {f'{name}_s': s for name, s in found.items()}
      timing.keep(record | {'share': found['sampler'] / found['passes'] - 1}, args.out)


if __name__ == '__main__':
  main()
