import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load

from vqjax.quantizers import (
  Affine,
  Ema,
  Gumbel,
  Orthogonality,
  RarelyUsed,
  RunningAffine,
  Stochastic,
  Sync,
  VectorQuantizer,
  rotation,
  straight_through,
)


def make(estimator=rotation, learner=None, sphere=False, shape=(4, 6, 8), dtype=jnp.float32):
  vq = VectorQuantizer(
    16,
    estimator=estimator,
    learner=learner,
    sphere=sphere,
    codebook_init=jax.nn.initializers.normal(1.0),
  )
  z = jax.random.normal(jax.random.key(1), shape, dtype)
  return vq, vq.init(jax.random.key(0), z, train=True), z


def train(vq, variables, z, mask=None):
  return vq.apply(variables, z, train=True, mask=mask, mutable=['vq'])


# The references, value for value.


@pytest.mark.parametrize('name', ['rt_euc', 'rt_cos', 'lucid_euc', 'lucid_cos'])
def test_ema_follows_the_reference(name):
  data = load(f'quantizers/ema_{name}')
  learner = Ema(0.8, 1e-5, init_count=float(data['hp_init_count']), hold=False)
  sphere = bool(data['hp_cosine'])
  vq = VectorQuantizer(
    32, learner=learner, sphere=sphere, commitment_weight=1.0, estimator=straight_through
  )
  state = learner.init(jnp.asarray(data['in_E0']))
  variables = {'vq': {'codebook': jnp.asarray(data['in_E0']), 'learner': state}}
  np.testing.assert_array_equal(state.counts, data['in_N0'])
  for t in range(3):
    out, variables = train(vq, variables, jnp.asarray(data[f'in_x{t}']))
    np.testing.assert_array_equal(out.indices, data[f'out_idx{t}'])
    np.testing.assert_allclose(out.z_q, data[f'out_q{t}'], atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(out.loss, data[f'out_loss{t}'].squeeze(), atol=1e-6, rtol=1e-5)
    state = variables['vq']['learner']
    np.testing.assert_allclose(state.counts, data[f'out_N{t}'], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(state.sums, data[f'out_M{t}'], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(variables['vq']['codebook'], data[f'out_E{t}'], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
  ('name', 'weights', 'sphere'),
  [
    ('taming_vq2_legacy', (1.0, 0.25), False),
    ('taming_vq2', (0.25, 1.0), False),
    ('vitvq', (0.25, 1.0), True),
  ],
)
def test_gradient_codebook_follows_the_reference(name, weights, sphere):
  data = load(f'quantizers/{name}')
  last = lambda x: np.moveaxis(x, 1, -1) if x.ndim == 4 else x  # NCHW to NHWC
  x, g = last(data['in_x']), last(data['in_g'])
  vq = VectorQuantizer(32, sphere=sphere, commitment_weight=weights[0], codebook_weight=weights[1])

  def objective(x, codebook):
    out = vq.apply({'params': {'codebook': codebook}}, x, train=True)
    return jnp.sum(g * out.z_q) + 3 * out.loss, out

  (_, out), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(x, data['in_cb'])
  np.testing.assert_array_equal(out.indices.reshape(-1), data['out_idx'].reshape(-1))
  np.testing.assert_allclose(out.z_q, last(data['out_y']), atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(out.loss, data['out_loss'], atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(grads[0], last(data['out_gx']), atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(grads[1], data['out_gcb'], atol=1e-6, rtol=1e-5)


# Properties of single choices; test_product.py has those of all combinations.


@pytest.mark.parametrize('sphere', [False, True])
def test_bfloat16_input_is_quantized_in_float32(sphere):
  vq, variables, z = make(sphere=sphere, dtype=jnp.bfloat16)
  out, _ = train(vq, variables, z)
  wide, _ = train(vq, variables, z.astype(jnp.float32))
  assert out.z_q.dtype == jnp.bfloat16
  assert (out.indices == wide.indices).all()
  assert (out.z_q == wide.z_q.astype(jnp.bfloat16)).all()
  assert out.loss == wide.loss


def test_sphere_ignores_the_length_of_the_input():
  vq, variables, z = make(sphere=True)
  a, b = (vq.apply(variables, s * z, train=False) for s in (1.0, 64.0))
  assert (a.indices == b.indices).all()
  np.testing.assert_allclose(a.loss, b.loss, rtol=1e-6)


@pytest.mark.parametrize('sphere', [False, True])
@pytest.mark.parametrize('init_count', [0.0, 1.0])
def test_an_unused_code_keeps_its_place(sphere, init_count):
  """The originals' smoothing carries it to the origin; `hold` is what stops that."""

  def after(steps, learner):
    vq = VectorQuantizer(2, learner=learner, sphere=sphere)
    codebook = jnp.array([[1.0, 0], [0, -1]])
    variables = {'vq': {'codebook': codebook, 'learner': learner.init(codebook)}}
    z = jnp.tile(jnp.array([[1.0, 0.1]]), (32, 1))

    def body(variables, _):
      return train(vq, variables, z)[1], None

    return jax.lax.scan(body, variables, None, length=steps)[0]['vq']['codebook'][1]

  np.testing.assert_allclose(after(400, Ema(0.8, init_count=init_count)), [0, -1], rtol=0.05)
  lost = after(400, Ema(0.8, init_count=init_count, hold=False))
  assert jnp.linalg.norm(lost) < 1e-5


def test_lookup_of_an_impossible_token_is_nan():
  vq, variables, _ = make()
  assert jnp.isnan(vq.apply(variables, jnp.array([16]), method='lookup')).all()


def test_equal_layers_are_one_static_argument():
  vq, variables, z = make(learner=Ema(0.9))
  traced = []

  def step(variables, z, vq):
    traced.append(vq)
    return train(vq, variables, z)

  step = jax.jit(step, static_argnums=2)
  _, variables = step(variables, z, vq)
  step(variables, z, VectorQuantizer(**{f: getattr(vq, f) for f in build_fields()}))
  assert len(traced) == 1


def build_fields():
  return ('num_codes', 'estimator', 'learner', 'sphere', 'codebook_init')


def test_mask_of_the_wrong_shape_is_named():
  vq, variables, z = make()
  with pytest.raises(ValueError, match=r'mask has shape \(4,\); z \(4, 6, 8\) needs \(4, 6\)'):
    vq.apply(variables, z, train=False, mask=jnp.ones(4, bool))


@pytest.mark.parametrize('choice', ['learner', 'init'])
def test_init_does_not_look_at_the_data(choice):
  vq, variables, z = make(learner=Ema(0.8) if choice == 'learner' else None)
  again = vq.init(jax.random.key(0), 5 * z, train=True)
  jax.tree.map(np.testing.assert_array_equal, variables, again)


@pytest.mark.parametrize('learner', [None, Ema(0.8)], ids=str)
def test_the_gradient_reaches_the_codebook_exactly_when_nobody_else_moves_it(learner):
  vq, variables, z = make(learner=learner)
  assert set(variables) == ({'params'} if learner is None else {'vq'})

  def objective(variables):
    out = vq.apply(variables, z, train=False)
    return out.loss + jnp.sum(out.z_q**3)

  owner = 'params' if learner is None else 'vq'
  grads = jax.grad(lambda codebook: objective({owner: variables[owner] | codebook}))(
    {'codebook': variables[owner]['codebook']}
  )
  assert (grads['codebook'] != 0).any() == (learner is None)


def test_rows_that_are_not_finite_move_no_codebook():
  vq, variables, z = make(learner=Ema(0.8))
  step = jax.jit(lambda z: train(vq, variables, z))
  _, state = step(z.at[0, 0].set(jnp.nan))
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
  _, without = step(z.at[0, 0].set(jnp.inf))
  jax.tree.map(np.testing.assert_array_equal, state, without)
  out, state = train(vq, variables, z)
  assert (state['vq']['codebook'] != without['vq']['codebook']).any()
  out, _ = step(z.at[0, 0].set(jnp.nan))
  assert jnp.isnan(out.loss)  # loud, not silent


# What wrong use gets.


@pytest.mark.parametrize(
  ('z', 'mask', 'message'),
  [
    (np.zeros((2, 6, 8), np.int32), None, r'z has dtype int32; legal: floating point'),
    (np.zeros((0, 8), np.float32), None, r'z has shape \(0, 8\) and no row'),
    (np.float32(1), None, r'z has shape \(\) and no row'),
    (np.zeros((2, 6, 7), np.float32), None, r'z has width 7, but the codebook is 16 x 8'),
    (np.zeros((2, 6, 8), np.float32), np.ones((2, 6, 1), bool), r'mask has shape \(2, 6, 1\)'),
    (np.zeros((2, 6, 8), np.float32), np.zeros((2, 6), bool), r'mask is false in all 12 rows'),
    (np.full((2, 6, 8), np.nan, np.float32), None, r'z has 12 of 12 rows that are not finite'),
  ],
)
def test_bad_input_is_named(z, mask, message):
  vq, variables, _ = make()
  with pytest.raises(ValueError, match=message):
    vq.apply(variables, z, train=False, mask=mask)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'num_codes': 1}, r'num_codes is 1; legal: at least 2'),
    ({'transform': Affine(groups=3)}, r'transform has groups=3; legal: divisors of num_codes=16'),
    ({'loss': 'huber'}, r"loss is 'huber'; legal: l2, l1, cross_entropy"),
    ({'eval_assign': Stochastic()}, r'eval_assign is Stochastic.*so tokens would be random'),
    ({'assign': Gumbel(), 'estimator': rotation}, r'assign=Gumbel brings its own gradient'),
    ({'estimator': Sync(rotation), 'learner': Ema()}, r'with learner=Ema.*no gradient reaches'),
    (
      {'regularizers': (Orthogonality(),), 'learner': Ema()},
      r'regularizers has Orthogonality, but with learner=Ema',
    ),
  ],
)
def test_impossible_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    VectorQuantizer(**({'num_codes': 16} | fields))


@pytest.mark.parametrize(
  ('fields', 'name'),
  [
    ({'learner': Ema()}, 'codebook'),
    ({'replacement': RarelyUsed()}, 'replacement'),
    ({'transform': RunningAffine()}, 'transform'),
  ],
)
def test_a_forgotten_collection_is_named(fields, name):
  vq, key = VectorQuantizer(16, **fields), jax.random.key(0)
  z = jax.random.normal(key, (6, 8))
  variables = vq.init(key, z, train=True)
  with pytest.raises(ValueError, match=rf"moves its {name} in .* apply with mutable=\['vq'\]"):
    vq.apply(variables, z, train=True, rngs={'vq': key})
  vq.apply(variables, z, train=False)


@pytest.mark.parametrize('train', [True, False])
def test_an_assignment_that_draws_and_does_not_say_so_gets_a_hint(train):
  def drawn(z, codes, *, key, mask, step):
    return jax.random.randint(key, (len(z),), 0, len(codes))

  vq = VectorQuantizer(16, **{'assign' if train else 'eval_assign': drawn})
  _, variables, z = make()
  with pytest.raises(TypeError) as error:
    vq.apply(variables, z, train=train)
  (note,) = [note for note in error.value.__notes__ if note.startswith('VectorQuantizer')]
  field = 'assign' if train else 'eval_assign'
  assert note.startswith(f'VectorQuantizer.{field} was called with key=None')
  assert 'declares uses_key = True' in note
