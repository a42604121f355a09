import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import load
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import (
  Ema,
  Rotation,
  VectorQuantizer,
  build,
  reflection,
  rotation,
  straight_through,
  tangent_rotation,
)

ESTIMATORS = [
  straight_through,
  rotation,
  tangent_rotation,
  reflection,
  Rotation('inv_norm', 'drop'),
]
LEARNERS = [None, Ema(0.8), Ema(0.8, init_count=0.0, hold=False)]
product = lambda test: pytest.mark.parametrize('sphere', [False, True], ids=['flat', 'sphere'])(
  pytest.mark.parametrize('learner', LEARNERS, ids=str)(
    pytest.mark.parametrize('estimator', ESTIMATORS, ids=str)(test)
  )
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
    return jnp.vdot(g, out.z_q) + 3 * out.loss, out

  (_, out), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(x, data['in_cb'])
  np.testing.assert_array_equal(out.indices.reshape(-1), data['out_idx'].reshape(-1))
  np.testing.assert_allclose(out.z_q, last(data['out_y']), atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(out.loss, data['out_loss'], atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(grads[0], last(data['out_gx']), atol=1e-6, rtol=1e-5)
  np.testing.assert_allclose(grads[1], data['out_gcb'], atol=1e-6, rtol=1e-5)


# Properties over the product of choices.


@product
def test_value_is_the_gathered_code_and_tokens_round_trip(estimator, learner, sphere):
  vq, variables, z = make(estimator, learner, sphere)
  out, _ = train(vq, variables, z)
  still = vq.apply(variables, z, train=False)
  assert (out.z_q == vq.apply(variables, out.indices, method='lookup')).all()
  assert (still.z_q == vq.apply(variables, still.indices, method='lookup')).all()
  assert (still.indices == out.indices).all()
  assert out.indices.dtype == jnp.int32
  if sphere:
    np.testing.assert_allclose(jnp.linalg.norm(out.z_q, axis=-1), 1, rtol=1e-6)


@product
def test_a_mask_of_ones_is_no_mask_and_padding_changes_nothing(estimator, learner, sphere):
  vq, variables, z = make(estimator, learner, sphere)

  def run(z, mask):
    def objective(z):
      out, state = train(vq, variables, z, mask)
      return out.loss + jnp.sum(out.z_q[:, :4] ** 2), (out, state)

    return jax.grad(objective, has_aux=True)(z)

  equal = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  equal(run(z, None), run(z, jnp.ones(z.shape[:-1], bool)))
  mask = jnp.zeros(z.shape[:-1], bool).at[:, :4].set(True)
  pad = lambda value: z.at[:, 4:].set(value)
  (gz, (out, state)), (gz2, (out2, state2)) = run(pad(3.0), mask), run(pad(jnp.nan), mask)
  equal((state, out.loss, out.metrics), (state2, out2.loss, out2.metrics))
  equal(
    (gz[:, :4], out.z_q[:, :4], out.indices[:, :4]),
    (gz2[:, :4], out2.z_q[:, :4], out2.indices[:, :4]),
  )


@product
def test_gradients_are_finite_and_reach_the_right_owner(estimator, learner, sphere):
  vq, variables, z = make(estimator, learner, sphere)
  codebook = variables['params' if learner is None else 'vq']['codebook']
  z = z.at[0, 0].set(-codebook[0]).at[0, 1].set(0).at[0, 2].set(codebook[3])

  def objective(params, z):
    out, _ = train(vq, {**variables, 'params': params}, z)
    return out.loss + jnp.sum(out.z_q**3)

  grads = jax.grad(objective, (0, 1))(variables.get('params', {}), z)
  assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
  assert (grads[1] != 0).any()
  assert ('codebook' in grads[0] and (grads[0]['codebook'] != 0).any()) == (learner is None)


@product
def test_state_moves_in_training_only(estimator, learner, sphere):
  vq, variables, z = make(estimator, learner, sphere)
  assert set(variables) == ({'params'} if learner is None else {'vq'})
  again = vq.init(jax.random.key(0), 5 * z, train=True)
  jax.tree.map(np.testing.assert_array_equal, variables, again)  # init does not look at the data
  _, frozen = vq.apply(variables, z, train=False, mutable=['vq'])
  jax.tree.map(np.testing.assert_array_equal, frozen.get('vq', {}), variables.get('vq', {}))
  _, moved = train(vq, variables, z)
  assert jax.tree.structure(moved.get('vq', {})) == jax.tree.structure(variables.get('vq', {}))
  if learner is not None:
    assert (moved['vq']['codebook'] != variables['vq']['codebook']).any()


@product
def test_eight_devices_give_what_one_gives(estimator, learner, sphere):
  vq, variables, z = make(estimator, learner, sphere, shape=(16, 6, 8))
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))

  @jax.jit
  def step(variables, z):
    def objective(params, z):
      out, state = train(vq, {**variables, 'params': params}, z)
      return out.loss + jnp.mean(out.z_q**2), (out, state)

    return jax.grad(objective, (0, 1), has_aux=True)(variables.get('params', {}), z)

  one = step(variables, z)
  put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
  many = step(put(variables, PartitionSpec()), put(z, PartitionSpec('data')))
  assert (one[1][0].indices == many[1][0].indices).all()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-6), one, many)


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


def test_learner_runs_under_jit_without_recompiling():
  vq, variables, z = make(learner=Ema(0.9))
  step = jax.jit(lambda v, z, vq: train(vq, v, z), static_argnums=2)
  _, variables = step(variables, z, vq)
  step(variables, z, VectorQuantizer(**{f: getattr(vq, f) for f in build_fields()}))
  assert step._cache_size() == 1


def build_fields():
  return ('num_codes', 'estimator', 'learner', 'sphere', 'codebook_init')


# Building from a dict, and what a mistake gets.


def test_build_equals_the_constructor():
  spec = {
    'num_codes': 8,
    'estimator': {'name': 'rotation', 'scale': 'inv_norm', 'radial': 'drop'},
    'learner': {'name': 'ema', 'decay': 0.8},
    'codebook_init': 'normal',
    'commitment_weight': 1.0,
  }
  vq = build(spec)
  assert vq.estimator == Rotation('inv_norm', 'drop')
  assert vq.learner == Ema(0.8)
  assert build({'num_codes': 8}) == VectorQuantizer(8)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    ({'num_code': 8}, r"'num_code' is no quantizer field; legal: num_codes, assign"),
    (
      {'num_codes': 8, 'estimator': 'rotate'},
      r"estimator is 'rotate'; legal: straight_through, ro",
    ),
    (
      {'num_codes': 8, 'learner': {'name': 'ema', 'deca': 1}},
      r"learner 'ema' has no setting 'deca'",
    ),
    ({'num_codes': 8, 'learner': {'name': 'ema', 'decay': 1.5}}, r'Ema\.decay is 1\.5; legal'),
    ({'num_codes': 0}, r'num_codes is 0; legal: at least 1'),
  ],
)
def test_build_names_the_mistake(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec)


def test_mask_of_the_wrong_shape_is_named():
  vq, variables, z = make()
  with pytest.raises(ValueError, match=r'mask has shape \(4,\); z \(4, 6, 8\) needs \(4, 6\)'):
    vq.apply(variables, z, train=False, mask=jnp.ones(4, bool))


def test_kaiming_codebook_has_the_reference_bound():
  init = build({'num_codes': 32, 'codebook_init': 'kaiming'}).codebook_init
  codebook = init(jax.random.key(0), (32, 8), jnp.float32)
  bound = np.sqrt(6 / (32 * 8))
  assert bound * 0.97 < jnp.abs(codebook).max() <= bound
