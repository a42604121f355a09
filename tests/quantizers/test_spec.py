"""`spec` is the inverse of `build`."""

import inspect
import itertools
import json

import jax
import optax
import pytest

from vqjax.quantizers import (
  BSQ,
  FSQ,
  LFQ,
  Alternating,
  Ema,
  Frozen,
  Grouped,
  Gumbel,
  KLToUniform,
  Linear,
  NamedOptimizer,
  Orthogonality,
  Residual,
  Rotation,
  Sinkhorn,
  Stochastic,
  Sync,
  VectorQuantizer,
  build,
  presets,
  reflection,
  spec,
)
from vqjax.quantizers.build import QUANTIZERS
from vqjax.quantizers.choices import CHOICES
from vqjax.quantizers.quantizer import Quantizer

PRESETS = [
  value
  for name, value in vars(presets).items()
  if inspect.isfunction(value) and value.__module__ == presets.__name__ and name[0] != '_'
]
SGD = NamedOptimizer.of('sgd', learning_rate=0.5, momentum=0.9)
NAMED = {
  f'{field}-{name}': (field, Alternating(SGD) if value is Alternating else value)
  for field, choices in CHOICES.items()
  for name, value in choices.items()
}
OTHERS = {
  'settings': VectorQuantizer(
    8,
    assign=Sinkhorn(5.0, normalize='none'),
    estimator=Sync(Rotation('none'), 0.5),
    transform=Linear(bias=True),
    regularizers=(KLToUniform(0.1), Orthogonality()),
  ),
  'adam': VectorQuantizer(8, learner=Alternating(NamedOptimizer.of('adam', learning_rate=1e-3))),
  'frozen': VectorQuantizer(8, transform=Linear(), learner=Frozen(), loss='l1'),
  'gumbel': VectorQuantizer(8, assign=Gumbel(0.5), eval_assign=Sinkhorn(normalize='dim')),
  'groups': Grouped(VectorQuantizer(8), 2, share=False),
  'levels': Residual(Grouped(FSQ((5, 5), estimator=reflection), 2), 3, scale=(0.5, 0.25, 1, 1)),
  'dropout': Residual(LFQ(4), 3, min_depth=1, scale=0.5, gradient='levels'),
  'nested': Grouped(Residual(BSQ(4, tokens=2), 2, share=True, level_loss='mean'), 2),
}


def through_json(layer, **kwargs):
  written = spec(layer, **kwargs)
  assert build(json.loads(json.dumps(written))) == build(written)
  return written


@pytest.mark.parametrize('make', PRESETS, ids=lambda make: make.__name__)
def test_presets_come_back(make):
  assert build(through_json(make())) == make()


@pytest.mark.parametrize(('step', 'task'), [*itertools.product(presets.STEPS, presets.TASKS)])
def test_the_ladder_of_vqtorch_comes_back(step, task):
  layer = presets.vqtorch(step=step, task=task)
  assert build(through_json(layer)) == layer


@pytest.mark.parametrize('name', NAMED)
def test_every_named_choice_comes_back(name):
  field, value = NAMED[name]
  many = field == 'regularizers'
  layer = VectorQuantizer(8, **{field: (value,) if many else value})
  written = through_json(layer)
  assert build(written) == layer
  if value != Alternating(SGD) and layer != VectorQuantizer(8):
    called = name.split('-')[1]
    assert written == {'num_codes': 8, field: (called,) if many else called}


@pytest.mark.parametrize('name', OTHERS)
def test_structures_and_settings_come_back(name):
  layer = OTHERS[name]
  assert build(through_json(layer)) == layer
  assert hash(build(spec(layer))) == hash(layer)


def test_it_says_what_differs_and_no_more():
  assert spec(VectorQuantizer(8)) == {'num_codes': 8}
  layer = VectorQuantizer(
    8, learner=Ema(0.9), estimator=Rotation('none', 'drop'), assign=Sinkhorn()
  )
  assert spec(Residual(layer, 2, share=True)) == {
    'name': 'residual',
    'share': True,
    'base': {
      'num_codes': 8,
      'assign': 'sinkhorn',
      'estimator': {'name': 'tangent_rotation', 'scale': 'none'},
      'learner': {'name': 'ema', 'decay': 0.9},
    },
  }


def test_what_is_asked_for_is_written_whatever_its_value():
  shown = {'vector': ('learner', 'loss'), 'grouped': ('groups',), 'sinkhorn': ('iters',)}
  layer = Grouped(VectorQuantizer(8, assign=Sinkhorn(2.0)))
  assert through_json(layer, shown=shown) == {
    'name': 'grouped',
    'groups': 1,
    'base': {
      'num_codes': 8,
      'assign': {'name': 'sinkhorn', 'iters': 5, 'epsilon': 2.0},
      'learner': 'gradient',
      'loss': 'l2',
    },
  }
  assert build(spec(layer, shown=shown)) == layer


def test_an_optimizer_by_name_steps_as_optax_does():
  params, gradient = jax.numpy.ones(3), jax.numpy.arange(3.0)
  theirs = optax.sgd(0.5, momentum=0.9)
  states = [optimizer.init(params) for optimizer in (SGD, theirs)]
  for _ in range(2):
    (ours, state), (same, their_state) = (
      optimizer.update(gradient, state, params)
      for optimizer, state in zip((SGD, theirs), states, strict=True)
    )
    states = [state, their_state]
    assert (ours == same).all()


def test_equal_specs_do_not_compile_again():
  written = {'num_codes': 4, 'learner': {'name': 'alternating', 'learning_rate': 0.1}}
  traced = []

  def forward(layer, z):
    traced.append(layer)
    return layer.init(jax.random.key(0), z, train=True)

  run = jax.jit(forward, static_argnums=0)
  for _ in range(2):
    run(build(written), jax.numpy.ones((2, 3)))
  assert len(traced) == 1


class Mine(Quantizer):
  num_codes: int = 2


def nearest(z, codes, *, key, mask, step):
  raise NotImplementedError


@pytest.mark.parametrize(
  ('layer', 'message'),
  [
    (Mine(), r'Mine has no name; legal: vector, grouped'),
    (
      VectorQuantizer(8, assign=nearest),
      r'assign is <function nearest.*has no name; legal: nearest',
    ),
    (VectorQuantizer(8, assign=Stochastic(lambda n: 1 / n)), r'temperature is <function'),
    (
      VectorQuantizer(8, learner=Alternating(optax.sgd(0.1))),
      r'the optimizer of Alternating is .*has no name; legal: NamedOptimizer\.of',
    ),
  ],
)
def test_what_has_no_name_is_said(layer, message):
  with pytest.raises(ValueError, match=message):
    spec(layer)


@pytest.mark.parametrize('name', OTHERS)
def test_every_field_can_be_written(name):
  every = {
    name: [field for field in kind.__dataclass_fields__ if field not in ('parent', 'name')]
    for name, kind in QUANTIZERS.items()
  }
  assert build(through_json(OTHERS[name], shown=every)) == OTHERS[name]


@pytest.mark.parametrize(
  ('name', 'settings', 'message'),
  [
    ('adamw', {}, r"optimizer is 'adamw'; legal: sgd, adam"),
    ('sgd', {'speed': 1}, r"optimizer 'sgd': .*unexpected keyword argument 'speed'"),
  ],
)
def test_an_unknown_optimizer_is_named(name, settings, message):
  with pytest.raises(ValueError, match=message):
    NamedOptimizer.of(name, **settings)
