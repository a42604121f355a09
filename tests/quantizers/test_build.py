"""Quantizers from plain dicts, as configs have them."""

import jax
import jax.numpy as jnp
import pytest

from vqjax.quantizers import (
  FSQ,
  LFQ,
  Affine,
  Alternating,
  Ema,
  Entropy,
  Grouped,
  LeastRecent,
  NormalCodebook,
  Residual,
  Sinkhorn,
  Sync,
  VectorQuantizer,
  build,
  rotation,
)


@pytest.mark.parametrize(
  ('spec', 'expected'),
  [
    ({'num_codes': 8}, VectorQuantizer(8)),
    (
      {
        'num_codes': 8,
        'assign': {'name': 'sinkhorn', 'epsilon': 5.0},
        'estimator': {'name': 'sync', 'base': 'rotation', 'nu': 0.2},
        'transform': {'name': 'affine', 'lr': 2.0, 'groups': 4},
        'replacement': {'name': 'least_recent', 'timeout': 9},
        'regularizers': [{'name': 'entropy', 'weight': 0.2}],
        'codebook_init': {'name': 'normal', 'stddev': 0.1},
        'learner': 'gradient',
      },
      VectorQuantizer(
        8,
        assign=Sinkhorn(5.0),
        estimator=Sync(rotation, 0.2),
        transform=Affine(2.0, 4),
        replacement=LeastRecent(9),
        regularizers=(Entropy(0.2),),
        codebook_init=NormalCodebook(0.1),
      ),
    ),
    (
      {'name': 'grouped', 'groups': 2, 'base': {'num_codes': 8, 'learner': 'ema'}},
      Grouped(VectorQuantizer(8, learner=Ema()), 2),
    ),
    (
      {'name': 'residual', 'depth': 3, 'share': True, 'base': {'name': 'fsq', 'levels': [5, 5]}},
      Residual(FSQ((5, 5)), 3, share=True),
    ),
    ({'name': 'lfq', 'bits': 6}, LFQ(6)),
  ],
)
def test_a_spec_is_the_constructor(spec, expected):
  assert build(spec) == expected


def test_alternating_takes_its_optimizer_by_name():
  spec = {'name': 'alternating', 'optimizer': 'sgd', 'learning_rate': 0.5, 'momentum': 0.9}
  vq = build({'num_codes': 8, 'learner': spec})
  assert isinstance(vq.learner, Alternating)
  z = jax.random.normal(jax.random.key(0), (16, 4))
  variables = vq.init(jax.random.key(0), z, train=True)
  _, state = vq.apply(variables, z, train=True, mutable=['vq'])
  assert (state['vq']['codebook'] != variables['vq']['codebook']).any()
  assert jnp.isfinite(state['vq']['codebook']).all()


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ({'name': 'vectors'}, r"name is 'vectors'; legal: vector, grouped, residual, fsq, lfq, bsq"),
    ({}, r"'vector' needs 'num_codes'; set it"),
    ({'name': 'fsq', 'num_codes': 8}, r"'num_codes' is no quantizer field of 'fsq'; legal: levels"),
    ({'name': 'grouped', 'groups': 2}, r"'grouped' needs 'base'; set it"),
    (
      {'num_codes': 8, 'regularizers': ['entropie']},
      r"regularizers is 'entropie'; legal: entropy, orthogonality, kl_to_uniform",
    ),
    (
      {'num_codes': 8, 'transform': {'name': 'affine', 'rate': 2}},
      r"transform 'affine' has no setting 'rate'; it has lr, groups",
    ),
    (
      {'num_codes': 8, 'learner': {'name': 'alternating', 'optimizer': 'adamw'}},
      r"learner 'alternating' has optimizer='adamw'; legal: sgd, adam",
    ),
    (
      {'num_codes': 8, 'learner': 'alternating'},
      r"learner 'alternating' needs a learning_rate; set it",
    ),
    (
      {'num_codes': 8, 'learner': {'name': 'alternating', 'learning_rate': 1.0, 'speed': 2}},
      r"learner 'alternating', optimizer 'sgd': .*unexpected keyword argument 'speed'",
    ),
  ],
)
def test_a_mistake_is_named(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec)
