"""Quantizers from plain dicts, as configs have them."""

import jax
import jax.numpy as jnp
import numpy as np
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
  Rotation,
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
      {
        'num_codes': 8,
        'estimator': {'name': 'rotation', 'scale': 'inv_norm', 'radial': 'drop'},
        'learner': {'name': 'ema', 'decay': 0.8},
        'codebook_init': 'normal',
        'commitment_weight': 1.0,
      },
      VectorQuantizer(
        8,
        estimator=Rotation('inv_norm', 'drop'),
        learner=Ema(0.8),
        codebook_init=NormalCodebook(),
        commitment_weight=1.0,
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


def test_kaiming_codebook_has_the_reference_bound():
  init = build({'num_codes': 32, 'codebook_init': 'kaiming'}).codebook_init
  codebook = init(jax.random.key(0), (32, 8), jnp.float32)
  bound = np.sqrt(6 / (32 * 8))
  assert bound * 0.97 < jnp.abs(codebook).max() <= bound


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
    ({'num_code': 8}, r"'num_code' is no quantizer field of 'vector'; legal: num_codes, as"),
    (
      {'num_codes': 8, 'estimator': 'rotate'},
      r"estimator is 'rotate'; legal: straight_through, ro",
    ),
    (
      {'num_codes': 8, 'learner': {'name': 'ema', 'deca': 1}},
      r"learner 'ema' has no setting 'deca'",
    ),
    ({'num_codes': 8, 'learner': {'name': 'ema', 'decay': 1.5}}, r'Ema\.decay is 1\.5; legal'),
    ({'num_codes': 0}, r'num_codes is 0; legal: at least 2'),
  ],
)
def test_a_mistake_is_named(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec)
