import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from vqjax import optimizer
from vqjax.errors import UserError

UNITS = {'batch_size': 16, 'num_examples': 1600, 'total_steps': 200}


def optimizer_config(**fields):
  config = common.default().optimizer
  config.update({'learning_rate': 0.1, **fields})
  return config


@pytest.mark.parametrize(
  ('clip_norm', 'weight_decay'), [(0.0, 0.0), (0.0, 0.2), (1.5, 0.0), (1.5, 0.2)]
)
def test_follows_adamw_by_hand(clip_norm, weight_decay):
  config = optimizer_config(
    b1=0.5,
    b2=0.9,
    eps=1e-3,
    clip_norm=clip_norm,
    weight_decay=weight_decay,
    schedule='cosine',
    warmup_steps=2,
    decay_steps=6,
    final_fraction=0.5,
  )
  transformation, schedule = optimizer.build(config, **UNITS)
  rng = np.random.default_rng(0)
  shapes = {'bias': (3,), 'kernel': (4, 3)}
  params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
  # Norms on both sides of clip_norm.
  gradients = [
    {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}
    for scale in (1, 0.1, 3, 0.2, 1)
  ]
  to_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
  ours = to_jax(params)
  opt_state = transformation.init(ours)
  first, second = ({name: np.zeros(shape) for name, shape in shapes.items()} for _ in range(2))
  clipped = 0
  for t, gradient in enumerate(gradients):
    with jax.numpy_dtype_promotion('standard'):  # optax mixes dtypes
      updates, opt_state = transformation.update(to_jax(gradient), opt_state, ours)
      rate = float(schedule(t))
    ours = jax.tree.map(jnp.add, ours, updates)

    norm = np.sqrt(sum(np.square(g).sum() for g in gradient.values()))
    clipped += bool(clip_norm and norm > clip_norm)
    for name, g in gradient.items():
      g = g * min(1, clip_norm / norm) if clip_norm else g
      first[name] = 0.5 * first[name] + 0.5 * g
      second[name] = 0.9 * second[name] + 0.1 * g**2
      m = first[name] / (1 - 0.5 ** (t + 1))
      v = second[name] / (1 - 0.9 ** (t + 1))
      step = m / (np.sqrt(v) + 1e-3) + weight_decay * params[name]
      params[name] = params[name] - rate * step
    for name in shapes:
      np.testing.assert_allclose(ours[name], params[name], rtol=1e-5, atol=1e-6)
  assert clipped == (3 if clip_norm else 0)


def cosine(t, start, end, final):
  return final + (1 - final) * (1 + np.cos(np.pi * (t - start) / (end - start))) / 2


@pytest.mark.parametrize(
  ('fields', 'fractions'),
  [
    ({}, {0: 1, 1: 1, 10_000: 1}),
    ({'warmup_steps': 4}, {0: 0, 1: 0.25, 3: 0.75, 4: 1, 5: 1, 10_000: 1}),
    ({'warmup_epochs': 0.04}, {0: 0, 1: 0.25, 4: 1, 10_000: 1}),
    (
      {'schedule': 'cosine', 'decay_steps': 100, 'final_fraction': 0.2},
      {0: 1, 25: cosine(25, 0, 100, 0.2), 50: 0.6, 100: 0.2, 101: 0.2, 10_000: 0.2},
    ),
    (
      {'schedule': 'cosine', 'warmup_steps': 20, 'decay_steps': 100, 'final_fraction': 0.5},
      {0: 0, 5: 0.25, 20: 1, 30: cosine(30, 20, 100, 0.5), 60: 0.75, 100: 0.5, 10_000: 0.5},
    ),
    (
      {'schedule': 'cosine', 'warmup_percent': 10, 'decay_percent': 50},
      {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0, 10_000: 0},
    ),
  ],
)
def test_schedules(fields, fractions):
  config = optimizer_config(**fields)
  for name in ('warmup', 'decay'):
    if any(f'{name}_{unit}' in fields for unit in ('epochs', 'percent')):
      del config[f'{name}_steps']
  _, schedule = optimizer.build(config, **UNITS)
  with jax.numpy_dtype_promotion('standard'):
    rates = [float(schedule(jnp.int32(step))) for step in fractions]
  np.testing.assert_allclose(rates, 0.1 * np.array([*fractions.values()]), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'name': 'lion'}, "config.optimizer.name is 'lion'; legal: adam."),
    (
      {'schedule': 'linear'},
      "config.optimizer.schedule is 'linear'; legal: constant, cosine.",
    ),
    (
      {'schedule': 'cosine'},
      'config.optimizer.decay_steps is 0; the cosine schedule needs a step at which it ends.',
    ),
    (
      {'warmup_percent': 3},
      'config.optimizer: warmup_steps and warmup_percent are the same duration twice; keep one.',
    ),
  ],
)
def test_messages(fields, message):
  with pytest.raises(UserError) as error:
    optimizer.build(optimizer_config(**fields), **UNITS)
  assert str(error.value) == message
