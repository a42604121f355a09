"""Names stand for choices wherever a quantizer is made; what is no legal value is refused there."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from vqjax.quantizers import (
  FSQ,
  LFQ,
  Ema,
  Entropy,
  Grouped,
  RarelyUsed,
  Residual,
  Rotation,
  Sinkhorn,
  Sync,
  VectorQuantizer,
  build,
  rotation,
  straight_through,
)
from vqjax.quantizers.choices import CHOICES, choice

Z = jax.random.normal(jax.random.key(0), (6, 4))


def test_names_are_what_they_stand_for():
  named = VectorQuantizer(
    16,
    estimator={'name': 'rotation', 'radial': 'drop'},
    learner='ema',
    assign={'name': 'sinkhorn', 'iters': 3},
    replacement='rarely_used',
    transform='none',
  )
  assert named == VectorQuantizer(
    16,
    estimator=Rotation(radial='drop'),
    learner=Ema(),
    assign=Sinkhorn(iters=3),
    replacement=RarelyUsed(),
  )
  assert hash(named) == hash(named.clone())
  sync = VectorQuantizer(16, estimator={'name': 'sync', 'base': 'rotation', 'nu': 0.5})
  assert sync.estimator == Sync(rotation, nu=0.5)
  assert VectorQuantizer(16, learner='gradient') == VectorQuantizer(16)
  regularized = VectorQuantizer(16, regularizers=['entropy', {'name': 'orthogonality'}])
  assert regularized.regularizers[0] == Entropy()
  assert FSQ((5, 5), estimator='rotation').estimator == rotation
  assert LFQ(4, estimator='straight_through').estimator == straight_through
  named.init(jax.random.key(1), Z, train=True)


def printed():
  """Every choice that prints itself as a call, with its field."""
  return [
    pytest.param(field, value, id=f'{field}={name}')
    for field, named in CHOICES.items()
    for name, value in named.items()
    if dataclasses.is_dataclass(value) and not isinstance(value, type)
  ]


@pytest.mark.parametrize(('field', 'value'), printed())
def test_what_a_choice_prints_is_read_back(field, value):
  assert choice(field, repr(value)) == value


@pytest.mark.parametrize(
  'text',
  [
    'ema(decay=0.9)',
    ' ema( decay = 0.9 ) ',
    'Ema(decay=0.9)',
    '{"name": "ema", "decay": 0.9}',
  ],
)
def test_a_choice_as_text(text):
  assert VectorQuantizer(8, learner=text).learner == Ema(decay=0.9)
  assert VectorQuantizer(8, estimator='sync(base=rotation)').estimator == Sync(rotation)
  assert build({'num_codes': 8, 'learner': text}) == VectorQuantizer(8, learner=Ema(decay=0.9))


@pytest.mark.parametrize(
  'text', ['ema(0.9)', 'ema(decay=', 'os.system(x=1)', 'ema(decay=f())', '{"name"', 'a b', '']
)
def test_a_text_that_is_no_choice(text):
  with pytest.raises(ValueError, match=r'learner is .*; legal: a name \(gradient, .* a call of'):
    VectorQuantizer(8, learner=text)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'estimator': 'rotate'}, r"estimator is 'rotate'; legal: straight_through, rotation, "),
    ({'learner': {'name': 'ema', 'dekay': 0.9}}, r"learner 'ema' has no setting 'dekay'; it has"),
    ({'learner': '[1]'}, r'learner is \[1\]; legal: gradient, ema'),
    ({'learner': '{"name": ["ema"]}'}, r"learner is \['ema'\]; legal: gradient, ema"),
    ({'learner': 'alternating'}, r"learner 'alternating' needs a learning_rate; set it"),
    (
      {'learner': Ema},
      r'VectorQuantizer.learner is the class Ema; legal: an instance, such as Ema\(\), or a name: ',
    ),
    ({'estimator': Rotation}, r'estimator is the class Rotation; legal: an instance, such as Rota'),
    ({'estimator': None}, r'estimator is None; legal: a function, or a name: straight_through'),
    ({'assign': 3}, r'assign is 3; legal: a function, or a name: nearest'),
    ({'learner': 0.99}, r'learner is 0.99; legal: an object with init, update, or a name: '),
    ({'transform': abs}, r'transform is <built.*>; legal: an object with init, codes, or a name'),
    (
      {'regularizers': Entropy(0.1)},
      r'regularizers is Entropy\(.*; legal: a tuple, such as \(Entropy\(0.1\),\), or one of names:',
    ),
    ({'regularizers': [Entropy]}, r'regularizers is the class Entropy; legal: an instance'),
    ({'sphere': 'yes'}, r"VectorQuantizer.sphere is 'yes'; legal: True or False"),
    ({'unit_input': 1}, r'VectorQuantizer.unit_input is 1; legal: True or False'),
    ({'commitment_weight': -1}, r'VectorQuantizer.commitment_weight is -1; legal: 0 or more'),
    ({'codebook_weight': float('nan')}, r'codebook_weight is nan; legal: a finite number'),
    ({'codebook_weight': '1'}, r"codebook_weight is '1'; legal: a finite number"),
    ({'num_codes': 16.0}, r'VectorQuantizer.num_codes is 16.0; legal: a whole number'),
    ({'num_codes': '16'}, r"VectorQuantizer.num_codes is '16'; legal: a whole number"),
    ({'num_codes': True}, r'VectorQuantizer.num_codes is True; legal: a whole number'),
  ],
)
def test_what_is_refused_at_construction(fields, message):
  with pytest.raises(ValueError, match=message):
    VectorQuantizer(**{'num_codes': 16, **fields})


def test_other_quantizers_refuse_likewise():
  with pytest.raises(ValueError, match=r'FSQ.symmetric is 1; legal: True or False'):
    FSQ((5, 5), symmetric=1)
  with pytest.raises(ValueError, match=r'LFQ.entropy_weight is -0.1; legal: 0 or more'):
    LFQ(4, entropy_weight=-0.1)
  with pytest.raises(ValueError, match=r'Grouped.groups is 2.0; legal: a whole number'):
    Grouped(VectorQuantizer(8), groups=2.0)


@pytest.mark.parametrize('wrap', [lambda vq: vq, lambda vq: Residual(vq, depth=2)])
def test_an_estimator_that_changes_values_is_refused_as_the_layer_is_made(wrap):
  twice = lambda z, q: 2 * q
  with pytest.raises(ValueError, match=r'other values than its codes; legal: the codes in value'):
    wrap(VectorQuantizer(16, estimator=twice)).init(jax.random.key(1), Z, train=True)
  narrow = lambda z, q: q[:, :2]
  with pytest.raises(ValueError, match=r'estimator returns \(6, 2\); legal: \(6, 4\), that'):
    VectorQuantizer(16, estimator=narrow).init(jax.random.key(1), Z, train=True)
  own = lambda z, q: q + z - jax.lax.stop_gradient(z)
  vq = wrap(VectorQuantizer(16, estimator=own))
  variables = vq.init(jax.random.key(1), Z, train=True)
  out = vq.apply(variables, Z, train=False)
  assert jnp.allclose(out.z_q, vq.apply(variables, out.indices, method='lookup'), atol=1e-5)
