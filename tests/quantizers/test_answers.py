"""What quantizers and their choices say of themselves, those of a user's own included."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from vqjax.quantizers import (
  BSQ,
  FSQ,
  LFQ,
  Directional,
  Ema,
  Entropy,
  Grouped,
  Gumbel,
  LeastRecent,
  Nearest,
  Orthogonality,
  Residual,
  RunningAffine,
  Sinkhorn,
  Stochastic,
  Sync,
  VectorQuantizer,
  ops,
  reflection,
  rotation,
  straight_through,
)
from vqjax.quantizers.declarations import declares

ANSWERS = {  # of a quantizer without a codebook
  'has_codebook': False,
  'replaces_codes': False,
  'eval_rule': None,
  'batch_dependent': False,
  'sphere': False,
  'unit_input': False,
  'regathers': False,
  'keeps_statistics': False,
  'copies_gradient': False,
  'has_penalty': False,
  'has_levels': False,
}
VECTOR = ANSWERS | {'has_codebook': True, 'eval_rule': Nearest(), 'has_penalty': True}
MANY = VectorQuantizer(
  16,
  eval_assign=Sinkhorn(),
  estimator=Sync(),
  transform=RunningAffine(),
  replacement=LeastRecent(),
  sphere=True,
  unit_input=True,
  regularizers=(Entropy(),),
)
SAYS_MANY = VECTOR | {
  'replaces_codes': True,
  'eval_rule': Sinkhorn(),
  'batch_dependent': True,
  'sphere': True,
  'unit_input': True,
  'keeps_statistics': True,
  'copies_gradient': True,
  'has_penalty': False,
}


@pytest.mark.parametrize(
  ('quantizer', 'answers'),
  [
    (FSQ((5, 5)), ANSWERS),
    (LFQ(4), ANSWERS),
    (BSQ(4, tokens=2), ANSWERS),
    (VectorQuantizer(16), VECTOR),
    (MANY, SAYS_MANY),
    (Grouped(MANY, 2), SAYS_MANY),
    (Grouped(FSQ((5, 5)), 2), ANSWERS),
    (Residual(LFQ(4), 2), ANSWERS | {'has_levels': True}),
    (Grouped(Residual(MANY, 2), 2, share=False), SAYS_MANY | {'has_levels': True}),
  ],
  ids=repr,
)
def test_every_quantizer_says_what_it_is(quantizer, answers):
  assert {name: getattr(quantizer, name) for name in answers} == answers
  assert quantizer.num_codes >= 2


def test_rows_are_compared_as_unit_vectors_on_a_sphere():
  z = jnp.array([[3.0, 4.0], [0.0, 2.0]])
  assert (VectorQuantizer(16).compared(z) == z).all()
  assert (FSQ((5, 5)).compared(z) == z).all()
  sphere = VectorQuantizer(16, sphere=True)
  assert (sphere.compared(z) == ops.unit(z)).all()
  assert (Grouped(sphere).compared(z) == ops.unit(z)).all()


COOLING = lambda step: 1.0 / step
DECLARED = {
  Nearest(): set(),
  Sinkhorn(): {'whole_batch'},
  Sinkhorn(sample=True): {'whole_batch', 'uses_key'},
  Stochastic(): {'uses_key'},
  Stochastic(COOLING): {'uses_key', 'uses_step'},
  Gumbel(): {'uses_key', 'relaxes'},
  Gumbel(COOLING): {'uses_key', 'uses_step', 'relaxes'},
  straight_through: set(),
  rotation: {'needs_near_codes'},
  reflection: {'needs_near_codes'},
  Sync(): {'moves_codes', 'copies_gradient'},
  Sync(rotation): {'moves_codes', 'copies_gradient', 'needs_near_codes'},
  Directional(): {'moves_codes', 'uses_key'},
  Entropy(): set(),
  Orthogonality(): {'codes_only'},
  COOLING: set(),
}
NAMES = set().union(*DECLARED.values())


@pytest.mark.parametrize('choice', DECLARED, ids=lambda choice: type(choice).__name__)
def test_choices_declare_what_they_need(choice):
  assert {name for name in NAMES if declares(choice, name)} == DECLARED[choice]


@dataclasses.dataclass(frozen=True)
class Farthest:
  """An assignment of a user's own, with everything that one can declare."""

  uses_key: bool = False
  uses_step: bool = False
  whole_batch: bool = False
  relaxes: bool = False

  def __call__(self, z, codes, *, key, mask, step):
    assert (step is not None) == self.uses_step
    return jnp.argmax(jnp.sum(jnp.square(z[:, None] - codes[None]), axis=-1), axis=-1)

  def relaxed(self, z, codes, *, key, mask, step):
    return self(z, codes, key=key, mask=mask, step=step), 2.0 * z + jnp.sum(codes)


@dataclasses.dataclass(frozen=True)
class Doubled:
  """An estimator of a user's own: twice the gradient, and if it says so, once to the code."""

  uses_key: bool = False
  moves_codes: bool = True
  copies_gradient: bool = False
  needs_near_codes: bool = False

  def __call__(self, z, q, key=None):
    assert (key is not None) == self.uses_key
    return ops.with_value(2.0 * z, q) + float(self.moves_codes) * (q - jax.lax.stop_gradient(q))


KEY = jax.random.key(0)
Z = jax.random.normal(KEY, (3, 5, 4))


def gradients(vq):
  """(of the codes, of the rows), of the sum of what comes out."""
  variables = vq.init({'params': KEY, 'vq': KEY}, Z, train=True)
  out = lambda v, z: jnp.sum(vq.apply(v, z, train=True, mutable=['vq'], rngs={'vq': KEY})[0].z_q)
  of_variables, of_rows = jax.grad(out, argnums=(0, 1))(variables, Z)
  return of_variables['params']['codebook'], of_rows


def test_an_assignment_of_your_own_says_what_it_needs():
  vq = VectorQuantizer(8, assign=Farthest(uses_step=True))
  variables = vq.init(KEY, Z, train=True)
  _, moved = vq.apply(variables, Z, train=True, mutable=['vq'])
  assert moved['vq']['step'] == 1
  assert not VectorQuantizer(8, eval_assign=Farthest()).batch_dependent
  assert VectorQuantizer(8, eval_assign=Farthest(whole_batch=True)).batch_dependent
  assert VectorQuantizer(8, eval_assign=lambda z, codes, **_: 0).eval_rule is not None
  with pytest.raises(ValueError, match=r'eval_assign is Farthest.*so tokens would be random'):
    VectorQuantizer(8, eval_assign=Farthest(uses_key=True))


def test_an_assignment_of_your_own_brings_its_gradient():
  vq = VectorQuantizer(8, assign=Farthest(relaxes=True))
  codes, rows = gradients(vq)
  assert (rows == 2).all()
  assert (codes == Z.size).all()
  with pytest.raises(ValueError, match='assign=Farthest brings its own gradient'):
    vq.clone(estimator=rotation)


def test_an_estimator_of_your_own_says_what_it_needs():
  codes, rows = gradients(VectorQuantizer(8, estimator=Doubled(uses_key=True)))
  assert (rows == 2).all()
  assert codes.sum() == Z.size
  with pytest.raises(ValueError, match=r'estimator is Doubled.*no gradient reaches the codes'):
    VectorQuantizer(8, estimator=Doubled(), learner=Ema())
  assert VectorQuantizer(8, estimator=Doubled(moves_codes=False), learner=Ema())
  with pytest.raises(ValueError, match=r'Sync\.base is Doubled.*moves codes by itself'):
    Sync(Doubled())
  copying = VectorQuantizer(8, estimator=Doubled(copies_gradient=True))
  with pytest.raises(ValueError, match=r"gradient='telescoped' takes back"):
    Residual(copying, 2, gradient='telescoped')
  with pytest.warns(UserWarning, match=re.escape(f'{Doubled(needs_near_codes=True)} with Stoch')):
    VectorQuantizer(8, estimator=Doubled(needs_near_codes=True), assign=Stochastic())


@dataclasses.dataclass(frozen=True)
class Small:
  """A regularizer of a user's own, of the codes alone."""

  weight: float = 1.0
  name: str = 'small'
  codes_only: bool = True

  def __call__(self, z, codes, mask):
    return jnp.mean(jnp.square(codes))


def test_a_regularizer_of_your_own_says_what_it_needs():
  vq = VectorQuantizer(8, regularizers=(Small(),))
  out, _ = vq.init_with_output(KEY, Z, train=True)
  assert out.metrics['small'] > 0
  with pytest.raises(ValueError, match=r'regularizers has Small.*no gradient reaches the codes'):
    vq.clone(learner=Ema())
