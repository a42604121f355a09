import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from vqjax.errors import UserError
from vqjax.training import optimizer

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
    (
      {'schedule': 'wsd', 'warmup_steps': 4, 'decay_percent': 10, 'final_fraction': 0.01},
      {0: 0, 1: 0.25, 4: 1, 180: 1, 190: cosine(190, 180, 200, 0.01), 200: 0.01, 10_000: 0.01},
    ),
    ({'schedule': 'wsd'}, {0: 1, 100: 1, 199: 1}),
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


# step: (learning rate, beta1) of torch 2.13's OneCycleLR(max_lr=0.1, pct_start=0.01) on AdamW.
ONE_CYCLE = {
  1000: {
    0: (0.004, 0.95),
    4: (0.0436648875, 0.908682409),
    8: (0.0971052458, 0.853015369),
    9: (0.1, 0.85),
    10: (0.0999997483, 0.850000252),
    250: (0.0860770833, 0.863922972),
    999: (4e-7, 0.95),
  },
  # The turn lies between two steps, or before the first.
  250: {
    0: (0.004, 0.95),
    1: (0.076, 0.875),
    2: (0.099998993, 0.850001007),
    125: (0.0501588654, 0.899841334),
    249: (4e-7, 0.95),
  },
  50: {0: (0.0999748272, 0.850025173), 25: (0.0476211137, 0.902379096), 49: (4e-7, 0.95)},
  # Not torch's: it divides by zero in a run of 100 steps, and raises behind the end.
  100: {0: (0.1, 0.85), 99: (4e-7, 0.95), 5_000: (4e-7, 0.95)},
}


@pytest.mark.parametrize('total_steps', list(ONE_CYCLE))
def test_one_cycle_follows_torch_step_by_step(total_steps):
  config = optimizer_config(schedule='onecycle')
  transformation, schedule = optimizer.build(config, **UNITS | {'total_steps': total_steps})
  beta1 = optimizer._one_cycle(0.95, 0.85, 0.95, total_steps)
  values = [(schedule(jnp.int32(t)), beta1(jnp.int32(t))) for t in ONE_CYCLE[total_steps]]
  state = transformation.init({'kernel': jnp.zeros(1)})
  np.testing.assert_allclose(values, [*ONE_CYCLE[total_steps].values()], rtol=2e-6, atol=2e-8)
  # What the optimizer itself uses, and a run can log.
  used = next(s for s in jax.tree.leaves(state, is_leaf=is_injected) if is_injected(s)).hyperparams
  first = ONE_CYCLE[total_steps][0]
  np.testing.assert_allclose([used['learning_rate'], used['b1']], first, rtol=2e-6)


def is_injected(node):
  return hasattr(node, 'hyperparams')


@pytest.mark.parametrize(
  ('fields', 'total_steps', 'want'),
  # torch 2.13's AdamW in float64 after six steps; weight decay on the kernel alone.
  [
    (
      {'schedule': 'onecycle', 'eps': 1e-7, 'weight_decay': 0.05},
      6,
      ([0.35495841, -1.2367183, 1.81091963], [0.27708162]),
    ),
    (
      {'schedule': 'onecycle', 'eps': 1e-7, 'weight_decay': 0.05},
      300,
      ([0.31776582, -0.99604141, 2.08105478], [0.4320032]),
    ),
    (
      {'b1': 0.0, 'b2': 0.99},
      300,
      ([0.4596033, -0.95791554, 2.05843368], [0.22492181]),
    ),
  ],
)
def test_follows_adamw_of_torch(fields, total_steps, want):
  config = optimizer_config(weight_decay_on='kernels', **fields)
  transformation, _ = optimizer.build(config, **UNITS | {'total_steps': total_steps})
  params = {'conv': {'kernel': jnp.float32([0.5, -1, 2]), 'bias': jnp.float32([0.25])}}
  opt_state = transformation.init(params)
  for t in range(6):
    gradient = {'kernel': np.sin(t + np.arange(3.0)), 'bias': np.sin([t + 3.0])}
    gradient = {'conv': {name: jnp.float32(g) for name, g in gradient.items()}}
    with jax.numpy_dtype_promotion('standard'):
      updates, opt_state = transformation.update(gradient, opt_state, params)
    params = jax.tree.map(jnp.add, params, updates)
  np.testing.assert_allclose(params['conv']['kernel'], want[0], rtol=1e-5)
  np.testing.assert_allclose(params['conv']['bias'], want[1], rtol=1e-5)


PARAMS = {
  'encoder': {'conv_in': {'kernel': (3, 4), 'bias': (4,)}, 'norm_out': {'scale': (4,)}},
  'decoder': {'up_0_block_1': {'kernel': (4, 4)}, 'up_1_block_0': {'kernel': (4, 4)}},
  'quantizer': {'codebook': (8, 4), 'transform': {'kernel': (4, 4), 'bias': (4,)}},
}


def tree_of(fill):
  return jax.tree.map(fill, PARAMS, is_leaf=lambda x: isinstance(x, tuple))


def updated(config, params, gradient, **kwargs):
  """Updates of one step by path, and the new state of the optimizer."""
  transformation, _ = optimizer.build(config, **kwargs, **UNITS)
  with jax.numpy_dtype_promotion('standard'):
    updates, state = transformation.update(gradient, transformation.init(params), params)
  leaves = jax.tree_util.tree_leaves_with_path(updates)
  keystr = jax.tree_util.keystr
  return {keystr(path, simple=True, separator='/'): np.asarray(x) for path, x in leaves}, state


DECAYED = {
  ('all', ()): lambda name: True,
  ('kernels', ()): lambda name: name.endswith('/kernel'),
  ('matrices', ()): lambda name: name.endswith(('/kernel', '/codebook')),
  ('all', ('quantizer/*', '*/norm_*')): lambda name: 'quantizer' not in name and 'norm' not in name,
}


@pytest.mark.parametrize(('where', 'spared'), list(DECAYED))
def test_weight_decay_reaches_only_what_it_should(where, spared):
  config = optimizer_config(weight_decay=0.5, weight_decay_on=where)
  config.no_weight_decay = spared
  # Without a gradient what moves has decayed: by learning rate times decay.
  updates, _ = updated(config, tree_of(jnp.ones), tree_of(jnp.zeros))
  for name, update in updates.items():
    decayed = DECAYED[where, spared](name)
    np.testing.assert_allclose(update, -0.05 if decayed else 0.0, rtol=1e-6, err_msg=name)
  assert sum(name.endswith('/kernel') for name in updates) == 4


@pytest.mark.parametrize(
  ('freeze', 'frozen'),
  [
    (('encoder/*',), lambda name: name.startswith('encoder/')),
    (('*/up_0_*', 'quantizer/codebook'), lambda name: 'up_0_' in name or 'codebook' in name),
    (('*/kernel',), lambda name: name.endswith('/kernel')),
  ],
)
@pytest.mark.parametrize('schedule', ['constant', 'onecycle'])
def test_frozen_parameters_rest_and_others_train_as_if_alone(freeze, frozen, schedule):
  config = optimizer_config(
    weight_decay=0.5, weight_decay_on='kernels', clip_norm=1.0, schedule=schedule
  )
  rng = np.random.default_rng(0)
  params, gradient = (tree_of(lambda shape: jnp.float32(rng.normal(size=shape))) for _ in range(2))
  updates, state = updated(config, params, gradient, freeze=freeze)
  keep = lambda tree: pruned(tree, lambda path: not frozen('/'.join(path)))
  alone, alone_state = updated(config, keep(params), keep(gradient))
  for name, update in updates.items():
    if frozen(name):
      np.testing.assert_array_equal(update, 0.0, err_msg=name)
    else:
      # Clipped by the norm of what is trained.
      np.testing.assert_allclose(update, alone[name], rtol=1e-6, atol=1e-9, err_msg=name)
      assert np.any(update != 0)
  assert 0 < len(alone) < len(updates)
  size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert size(state) == size(alone_state)  # no moments


def pruned(tree, kept, path=()):
  """A nested dict without the leaves that are not kept, nor what they leave empty."""
  if not isinstance(tree, dict):
    return tree
  below = {name: pruned(child, kept, (*path, name)) for name, child in tree.items()}
  stays = lambda name, child: child if isinstance(child, dict) else kept((*path, name))
  return {name: child for name, child in below.items() if stays(name, child)}


def test_nothing_frozen_is_the_plain_optimizer():
  plain, _ = optimizer.build(optimizer_config(), **UNITS)
  empty, _ = optimizer.build(optimizer_config(), freeze=(), **UNITS)
  structures = [jax.tree.structure(each.init(tree_of(jnp.ones))) for each in (plain, empty)]
  assert structures[0] == structures[1]


@pytest.mark.parametrize(
  ('freeze', 'message'),
  [
    (
      ('encoder/*', 'vit/*'),
      "config.optimizer.freeze: 'vit/*' matches no parameter; legal: patterns of paths under"
      ' decoder/*, encoder/*, quantizer/*.',
    ),
    (
      ('decoder',),
      "config.optimizer.freeze: 'decoder' matches no parameter; legal: patterns of paths under"
      ' decoder/*, encoder/*, quantizer/*.',
    ),
    (
      ('encoder/*', '*'),
      "config.optimizer.freeze=('encoder/*', '*') leaves no parameter to train; freeze less.",
    ),
  ],
)
def test_wrong_patterns(freeze, message):
  transformation, _ = optimizer.build(optimizer_config(), freeze=freeze, **UNITS)
  with pytest.raises(UserError) as error:
    jax.eval_shape(lambda: transformation.init(tree_of(jnp.ones)))
  assert str(error.value) == message


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'schedule': 'linear'},
      "config.optimizer.schedule is 'linear'; legal: constant, cosine, wsd, onecycle.",
    ),
    (
      {'schedule': 'cosine'},
      'config.optimizer.decay_steps is 0; the cosine schedule needs a step at which it ends.',
    ),
    (
      {'weight_decay_on': 'weights'},
      "config.optimizer.weight_decay_on is 'weights'; legal: all, kernels, matrices.",
    ),
    (
      {'schedule': 'wsd', 'warmup_steps': 150, 'decay_steps': 51},
      'config.optimizer has warmup of 150 and decay of 51 steps, more than the 200 of the run; make'
      ' them shorter.',
    ),
    (
      {'schedule': 'onecycle', 'warmup_steps': 5},
      'config.optimizer has warmup of 5 and decay of 0 steps and final_fraction=0.0; onecycle has'
      ' its own, over the whole run: set them to 0.',
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
