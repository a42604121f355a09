"""The published quantizers, value for value and gradient for gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_data import load

from vqjax.quantizers import (
  Affine,
  Alternating,
  Ema,
  Frozen,
  Grouped,
  LeastRecent,
  Linear,
  Residual,
  RunningAffine,
  Sinkhorn,
  Sync,
  VectorQuantizer,
  replace_dead_codes,
  rotation,
  straight_through,
)

last = lambda x: np.moveaxis(x, 1, -1) if x.ndim == 4 else x  # NCHW to NHWC


def value_and_grads(vq, params, x, g, loss_weight):
  """(Quantized, gradients for params and x) of `sum(g z_q) + loss_weight * loss`."""

  def objective(params, x):
    out, _ = vq.apply({'params': params}, x, train=True, mutable=['vq'])
    return jnp.sum(g * out.z_q) + loss_weight * out.loss, out

  (_, out), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(params, x)
  return out, *grads


def close(ours, reference, atol=1e-5, rtol=1e-5):
  np.testing.assert_allclose(ours, reference, atol=atol, rtol=rtol)


# vqtorch


def vqtorch(data, **fields):
  beta = float(data['hp_beta'])
  weights = {'commitment_weight': 1 - beta, 'codebook_weight': beta}
  return VectorQuantizer(32, **(weights | fields))


@pytest.mark.parametrize('name', ['base', 'sync'])
def test_vqtorch_base_and_sync(name):
  data = load(f'quantizers/vqt_{name}')
  nu = float(data['hp_sync_nu'])
  vq = vqtorch(data, estimator=Sync(straight_through, nu) if nu else straight_through)
  out, grads, gx = value_and_grads(vq, {'codebook': data['in_cb']}, data['in_x'], data['in_g'], 10)
  np.testing.assert_array_equal(out.indices, data['out_idx'][..., 0])
  close(out.z_q, data['out_y'])
  close(out.z_q, data['out_zq'][:, :, 0])
  close(np.linalg.norm(data['in_x'] - out.z_q, axis=-1), data['out_d'][..., 0])
  close(out.loss, data['out_loss'], atol=1e-6)
  close(gx, data['out_gx'])
  close(grads['codebook'], data['out_g_codebook_weight'])


def test_vqtorch_affine():
  data = load('quantizers/vqt_affine')
  vq = vqtorch(data, estimator=Sync(nu=1.0), transform=Affine(lr=2.0, groups=4))
  params = {
    'codebook': data['in_cb'],
    'transform': {'scale': data['in_scale'], 'bias': data['in_bias']},
  }
  out, grads, gx = value_and_grads(vq, params, data['in_x'], data['in_g'], 10)
  np.testing.assert_array_equal(out.indices, data['out_idx'][..., 0])
  close(out.z_q, data['out_y'])
  close(out.loss, data['out_loss'], atol=1e-6)
  close(gx, data['out_gx'])
  close(grads['codebook'], data['out_g_codebook_weight'])
  close(grads['transform']['scale'], data['out_g_affine_transform_scale'], 1e-4, 1e-4)
  close(grads['transform']['bias'], data['out_g_affine_transform_bias'], 1e-4, 1e-4)


def test_vqtorch_affine_by_running_statistics():
  data = load('quantizers/vqt_affine_running')
  vq = VectorQuantizer(32, transform=RunningAffine())
  variables = vq.init(jax.random.key(0), data['in_x0'], train=True)
  variables['params'] = {'codebook': data['in_cb']}
  for step in range(2):
    _, state = vq.apply(variables, data[f'in_x{step}'], train=True, mutable=['vq'])
    variables |= state
    codes = vq.apply(variables, jnp.arange(32), method='lookup')
    close(codes, data[f'out_cb{step}'], 1e-4, 1e-4)


@pytest.mark.parametrize('name', ['norm_l2', 'norm_l2c'])
def test_vqtorch_norms(name):
  """`l2` is a unit input; the codebook is projected in place, so its gradient is of the result."""
  data = load(f'quantizers/vqt_{name}')
  norm = np.linalg.norm(data['in_cb'], axis=-1, keepdims=True)
  if name == 'norm_l2':
    vq, codebook, bend = vqtorch(data, unit_input=True), data['in_cb'] / norm, lambda x: x
  else:
    # Length at most 10, whose radial gradient the original loses for all vectors.
    vq, codebook = vqtorch(data), data['in_cb'] * np.minimum(norm, 10) / norm
    length = lambda x: jnp.linalg.norm(x, axis=-1, keepdims=True)
    bend = lambda x: x * jax.lax.stop_gradient(jnp.minimum(length(x), 10)) / length(x)

  def objective(codebook, x):
    out = vq.apply({'params': {'codebook': codebook}}, bend(x), train=True)
    return jnp.sum(data['in_g'] * out.z_q) + 10 * out.loss, out

  (_, out), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(codebook, data['in_x'])
  np.testing.assert_array_equal(out.indices, data['out_idx'][..., 0])
  close(out.z_q, data['out_y'], 1e-4)
  close(out.loss, data['out_loss'], 1e-4)
  close(grads[0], data['out_g_codebook_weight'])
  close(grads[1], data['out_gx'])


@pytest.mark.parametrize('share', [True, False])
def test_vqtorch_groups(share):
  data = load(f'quantizers/vqt_group_share{int(share)}')
  if share:
    vq, params = Grouped(vqtorch(data), 4), {'base': {'codebook': data['in_cb']}}
  else:
    vq = Grouped(vqtorch(data).clone(num_codes=8), 4, share=False)
    slices = np.split(data['in_cb'], 4)
    params = {f'group_{i}': {'codebook': slices[i]} for i in range(4)}
  # Its loss is one number an image, of which the objective takes the sum.
  out, grads, gx = value_and_grads(vq, params, data['in_x'], data['in_g'], 10 * 2)
  offset = 0 if share else 8 * np.arange(4)
  np.testing.assert_array_equal(np.asarray(out.indices) + offset, data['out_idx'])
  close(out.z_q, data['out_y'])
  close(out.loss, data['out_loss'].mean(), atol=1e-6)
  close(gx, data['out_gx'])
  ours = np.concatenate([g['codebook'] for g in grads.values()])
  close(ours, data['out_g_codebook_weight'])


@pytest.mark.parametrize('share', [True, False])
def test_vqtorch_residual(share):
  data = load(f'quantizers/vqt_residual_share{int(share)}')
  base = vqtorch(data) if share else vqtorch(data).clone(num_codes=8)
  vq = Residual(base, 4, share=share, level_loss='total')
  slices = np.split(data['in_cb'], 4)
  params = {f'level_{i}': {'codebook': slices[i]} for i in range(4)}
  params = {'base': {'codebook': data['in_cb']}} if share else params
  out, grads, gx = value_and_grads(vq, params, data['in_x'], data['in_g'], 10 * 2)
  offset = 0 if share else 8 * np.arange(4)
  np.testing.assert_array_equal(np.asarray(out.indices) + offset, data['out_idx'])
  close(out.z_q, data['out_y'])
  close(out.loss, data['out_loss'].mean(), atol=1e-6)
  close(gx, data['out_gx'])
  ours = np.concatenate([g['codebook'] for g in grads.values()])
  close(ours, data['out_g_codebook_weight'])


def test_vqtorch_alternating():
  data = load('quantizers/vqt_inplace')
  learner = Alternating(optax.sgd(50.0, momentum=0.9))
  vq = VectorQuantizer(32, learner=learner, commitment_weight=1.0)
  codebook = jnp.asarray(data['in_cb'])
  variables = {'vq': {'codebook': codebook, 'learner': learner.init(codebook)}}
  for step in range(2):
    out, variables = vq.apply(variables, data[f'in_x{step}'], train=True, mutable=['vq'])
    np.testing.assert_array_equal(out.indices, data[f'out_idx{step}'][..., 0])
    close(variables['vq']['codebook'], data[f'out_cb{step}'], 1e-4, 1e-4)
    close(out.z_q, data[f'out_zq{step}'][:, :, 0], 1e-4, 1e-4)
    close(out.metrics['codebook'], data[f'out_loss{step}'], 1e-5, 1e-4)


def test_vqtorch_replacement_counts():
  data = load('quantizers/vqt_lru_counts')
  timeout = int(data['hp_replace_freq'])
  vq = VectorQuantizer(32, replacement=LeastRecent(timeout))
  keys = {'params': jax.random.key(0), 'vq': jax.random.key(1)}
  variables = vq.init(keys, data['in_x'], train=True)
  variables['params'] = {'codebook': data['in_cb']}
  for step in range(timeout):
    rngs = {'vq': jax.random.key(step)}
    _, state = vq.apply(variables, data['in_x'], train=True, mutable=['vq'], rngs=rngs)
    variables |= state
    dead = variables['vq']['replacement']['state'] >= timeout
    # The original counts down, and starts the codes that it replaced at `timeout` again.
    left = jnp.where(dead, timeout, timeout - variables['vq']['replacement']['state'])
    np.testing.assert_array_equal(left, data[f'out_counts{step}'])
  assert dead.any()
  revived, _ = replace_dead_codes(vq, variables, jax.random.key(0))
  changed = (revived['params']['codebook'] != data['in_cb']).any(-1)
  assert changed.sum() == min(dead.sum(), 6)  # six rows a batch: the rest waits
  assert not (changed & ~dead).any()


# OptVQ


@pytest.mark.parametrize('name', ['l2', 'ce_nn', 'l1_nn'])
def test_optvq(name):
  data = load(f'quantizers/opt_{name}')
  base = VectorQuantizer(
    64,
    assign=Sinkhorn() if name == 'l2' else VectorQuantizer.assign,
    transform=Linear(bias=True),
    loss={'l2': 'l2', 'ce_nn': 'cross_entropy', 'l1_nn': 'l1'}[name],
    commitment_weight=1.0,
    codebook_weight=0.0 if name == 'ce_nn' else 0.25,
  )
  vq = Grouped(base, 4)
  transform = {'kernel': data['in_pw'].T, 'bias': data['in_pb']}
  params = {'base': {'codebook': data['in_emb'], 'transform': transform}}
  x, g = last(data['in_x']), last(data['in_g'])
  out, grads, gx = value_and_grads(vq, params, x, g, 3)
  np.testing.assert_array_equal(out.indices, np.moveaxis(data['out_idx'], 1, -1))
  close(out.z_q, last(data['out_y']))
  close(out.loss, data['out_loss'], atol=1e-6)
  close(gx, last(data['out_gx']))
  close(grads['base']['codebook'], data['out_gemb'])
  close(grads['base']['transform']['kernel'], data['out_gpw'].T)
  close(grads['base']['transform']['bias'], data['out_gpb'])


# vector-quantize-pytorch


def test_simvq():
  data = load('quantizers/simvq')
  vq = VectorQuantizer(
    32,
    transform=Linear(),
    learner=Frozen(),
    estimator=rotation,
    commitment_weight=0.25,
    codebook_weight=1.0,
  )
  variables = vq.init(jax.random.key(0), data['in_x'], train=True)
  assert set(variables['params']) == {'transform'}
  frozen = {'vq': variables['vq'] | {'codebook': data['in_frozen']}}

  def objective(params, x):
    out, state = vq.apply({'params': params, **frozen}, x, train=True, mutable=['vq'])
    return jnp.sum(data['in_g'] * out.z_q) + 3 * out.loss, (out, state)

  params = {'transform': {'kernel': data['in_w'].T}}
  (_, (out, state)), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(
    params, data['in_x']
  )
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  np.testing.assert_array_equal(state['vq']['codebook'], data['in_frozen'])
  close(out.z_q, data['out_y'])
  close(out.loss, data['out_loss'])
  close(grads[1], data['out_gx'])
  close(grads[0]['transform']['kernel'], data['out_gw'].T)


@pytest.mark.parametrize('name', ['ste', 'rot', 'ste_frac1'])
def test_residual_of_vector_quantize_pytorch(name):
  data = load(f'quantizers/rvq_{name}')
  estimator = rotation if name == 'rot' else straight_through
  base = VectorQuantizer(32, estimator=estimator, commitment_weight=1.0, codebook_weight=0.0)
  params = {f'level_{i}': {'codebook': data['in_cb'][i]} for i in range(3)}
  parity = Residual(base, 3, gradient='telescoped' if name == 'ste_frac1' else 'levels')
  out, _, gx = value_and_grads(parity, params, data['in_x'], data['in_g'], 1)
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  close(out.z_q, data['out_y'])
  close(out.loss, data['out_loss'].sum(), atol=1e-6)
  close(gx, data['out_gx'])


@pytest.mark.parametrize('gradient', ['sum', 'levels'])
def test_the_encoder_gets_the_gradient_once_not_once_a_level(gradient):
  data = load('quantizers/rvq_ste')
  base = VectorQuantizer(32, commitment_weight=0.0, codebook_weight=0.0)
  params = {f'level_{i}': {'codebook': data['in_cb'][i]} for i in range(3)}
  vq = Residual(base, 3, gradient=gradient)
  _, _, gx = value_and_grads(vq, params, data['in_x'], data['in_g'], 1)
  close(gx, data['in_g'] * {'sum': 1, 'levels': 3}[gradient], 1e-6)


def test_ema_with_running_affine():
  data = load('quantizers/ema_lucid_affine')
  learner = Ema(0.8, 1e-5, init_count=1.0, hold=False)
  vq = VectorQuantizer(
    32, learner=learner, transform=RunningAffine(0.99, 0.9), commitment_weight=1.0
  )
  codebook = jnp.asarray(data['in_E0'])
  variables = vq.init(jax.random.key(0), data['in_x0'], train=True)
  variables['vq'] |= {'codebook': codebook, 'learner': learner.init(codebook)}
  for t in range(3):
    out, variables = vq.apply(variables, data[f'in_x{t}'], train=True, mutable=['vq'])
    np.testing.assert_array_equal(out.indices, data[f'out_idx{t}'])
    close(out.z_q, data[f'out_q{t}'], 2e-5)
    close(out.loss, data[f'out_loss{t}'], 1e-6)
    state = variables['vq']['learner']
    close(state.counts, data[f'out_N{t}'])
    close(state.sums, data[f'out_M{t}'], 1e-5, 1e-4)
    close(variables['vq']['codebook'], data[f'out_E{t}'], 1e-5, 1e-4)


# enhancing-transformers


def test_residual_vit_vqgan():
  """Values only: the original's commitment gives the encoder no gradient here, ours does."""
  data = load('quantizers/vitvq_residual')
  base = VectorQuantizer(32, sphere=True)
  vq = Residual(base, 3, share=True, level_loss='mean')
  params = {'base': {'codebook': data['in_cb']}}
  out, _, gx = value_and_grads(vq, params, data['in_x'], jnp.zeros_like(data['in_x']), 1)
  np.testing.assert_array_equal(out.indices, data['out_idx'])
  close(out.z_q, data['out_y'], 1e-6)
  close(out.loss, data['out_loss'], 1e-6)
  assert (jnp.abs(gx).max(-1) > 0).all()
