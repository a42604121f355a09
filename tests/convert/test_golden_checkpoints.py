"""Every published format against codes, outputs and gradients of the authors' implementations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import CHECKPOINTS, checkpoint, compare

import vqjax
from vqjax import convert, tensor_files
from vqjax.quantizers import (
  Rotation,
  double_forward,
  hessian_vector,
  reflection,
  rotation,
  straight_through,
  tangent_rotation,
)

FORMATS = {
  'rotation_trick_table1': 'rotation_vqvae',
  'ldm': 'vqgan',
  'taming': 'vqgan',
  'vitvq': 'vit_vqgan',
  'optvq': 'optvq',
  'llamagen': 'llamagen',
  'maskgit': 'maskgit',
}
ESTIMATORS = {
  'ste': straight_through,
  'rot': tangent_rotation,
  'reflect': reflection,
  'noscale': Rotation('inv_norm', 'drop'),
}
STUDIES = {'vhp': hessian_vector, 'dfp': double_forward}
# A flag, and positions that are computed.
NO_WEIGHTS = ('initted', 'en_pos_embedding', 'de_pos_embedding')
MODES = [(name, mode) for name in CHECKPOINTS for mode in checkpoint(name)[2]['gradient_modes']]


@functools.cache
def load(name):
  return vqjax.load(checkpoint(name)[0])


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_format_is_recognised_and_every_key_accounted_for(name):
  path, _, sidecar = checkpoint(name)
  published = convert.open_published(path)
  assert published.format == FORMATS[sidecar['family']]
  ignorable = tuple(sidecar['ignorable_prefixes']) or ('none',)
  left_out = [key for key in published.skipped if not key.startswith(ignorable)]
  assert len(published.tensors) + len(left_out) == sidecar['n_model_tensors']
  assert all(key.split('.')[-1] in NO_WEIGHTS for key in left_out)


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_forward(name):
  _, io, sidecar = checkpoint(name)
  tok = load(name)

  @jax.jit
  def run(x):
    y, quantized = tok.model.apply(tok.variables, x)
    z = tok.model.apply(tok.variables, x, method='latents')
    again = tok.model.apply(tok.variables, quantized.indices, method='decode_tokens')
    return y, quantized, z, again

  # The authors of OptVQ tokenize by Sinkhorn; ours takes the nearest code unless told otherwise.
  nearest = '_nearest' if 'indices_nearest' in io else ''
  y, quantized, z, again = run(io['x'])
  compare(sidecar, f'indices{nearest}', quantized.indices, io[f'indices{nearest}'])
  compare(sidecar, f'rec{nearest}', y, io[f'rec{nearest}'])
  compare(sidecar, 'z', z, io['z'])
  np.testing.assert_allclose(again, y, atol=1e-4)
  if not nearest:
    compare(sidecar, 'zq', quantized.z_q, io['zq'])
    if 'x_alt' in io:
      y, quantized, z, _ = run(io['x_alt'])
      compare(sidecar, 'indices_alt', quantized.indices, io['indices_alt'])
      compare(sidecar, 'rec_alt', y, io['rec_alt'])
      compare(sidecar, 'z_alt', z, io['z_alt'])


@pytest.mark.parametrize('name', [name for name in CHECKPOINTS if name.startswith('optvq')])
def test_optvq_tokenizes_as_its_authors_do_when_asked(name):
  path, io, sidecar = checkpoint(name)
  tok = vqjax.load(path, eval_assign='sinkhorn')
  for suffix in ('', '_alt'):
    y, quantized = jax.jit(lambda x: tok.model.apply(tok.variables, x))(io[f'x{suffix}'])
    compare(sidecar, f'indices{suffix}', quantized.indices, io[f'indices{suffix}'])
    compare(sidecar, f'rec{suffix}', y, io[f'rec{suffix}'])


def published_loss(quantizer, family):
  """The quantizer with the reference's own losses."""
  if family == 'maskgit':  # the port has the weights the other way round, and no entropy term
    return quantizer.clone(commitment_weight=1.0, codebook_weight=0.25, regularizers=())
  return quantizer


def training_model(tok, family, mode):
  """The tokenizer with the estimator of a gradient mode."""
  estimator = ESTIMATORS.get(mode, straight_through)
  if family == 'rotation_trick_table1' and mode == 'rot':
    estimator = rotation
  quantizer = tok.model.quantizer
  if family == 'optvq':
    return tok.model
  return tok.model.clone(quantizer=published_loss(quantizer.clone(estimator=estimator), family))


@functools.cache
def gradients(name, modes):
  """{mode: ((value, what came with it), (gradient of the parameters, of x))} in one program."""
  _, io, sidecar = checkpoint(name)
  tok = load(name)
  table1 = sidecar['family'] == 'rotation_trick_table1'
  state = {k: v for k, v in tok.variables.items() if k != 'params'}

  def objective(params, x, mode):
    model = training_model(tok, sidecar['family'], mode)
    variables = {'params': params, **state}
    (y, quantized), moved = model.apply(variables, x, train=True, mutable=['vq'])
    probe = jnp.vdot(io['probe'], y)
    reconstruction = jnp.mean((y - x) ** 2)
    loss = quantized.loss + (reconstruction if table1 else 0.0)
    if mode in STUDIES:
      decode = lambda z: model.apply(variables, z, method='decode')
      error = lambda z: jnp.mean((decode(z) - x) ** 2)
      z = model.apply(variables, x, method='latents')
      q = jax.lax.stop_gradient(quantized.z_q)
      # The correction is of the pixel loss alone; the probe goes straight through, or, with two
      # forwards, to the decoder only.
      loss = quantized.loss + STUDIES[mode](error, z, q)
      if mode == 'dfp':
        probe = jnp.vdot(io['probe'], decode(q))
    return probe + loss, (quantized, reconstruction, moved)

  @jax.jit
  def run(params, x):
    gradient = jax.value_and_grad(objective, (0, 1), has_aux=True)
    return {mode: gradient(params, x, mode) for mode in modes}

  return run(tok.variables['params'], io['x'])


@pytest.mark.parametrize(('name', 'mode'), MODES)
def test_gradients(name, mode):
  path, io, sidecar = checkpoint(name)
  table1 = sidecar['family'] == 'rotation_trick_table1'
  # Estimators differ in the quantizer, and the compiler shares the rest of the network.
  plain = tuple(mode for mode in sidecar['gradient_modes'] if mode in ESTIMATORS)
  found = gradients(name, plain if mode in ESTIMATORS else (mode,))
  (_, (quantized, reconstruction, moved)), (dparams, dx) = found[mode]
  if mode in ESTIMATORS:
    theirs = sum(io[k] for k in sidecar['arrays'] if k.startswith('loss_') and k in io and _own(k))
    np.testing.assert_allclose(quantized.loss, theirs, atol=1e-5, rtol=1e-4)
  if table1 and mode in ESTIMATORS:
    compare(sidecar, 'loss_rec', reconstruction, io['loss_rec'])
    ema = moved['vq']['quantizer']
    compare(sidecar, 'ema_embed', ema['codebook'], io['ema_embed'])
    compare(sidecar, 'ema_embed_avg', ema['learner'].sums, io['ema_embed_avg'])
    compare(sidecar, 'ema_cluster_size', ema['learner'].counts, io['ema_cluster_size'])
  compare(sidecar, f'grad_x_{mode}', dx, io[f'grad_x_{mode}'])
  exported = convert.export({'params': dparams}, convert.open_published(path).names)
  expected = [name for name in io if name.startswith(f'grad_{mode}__')]
  assert expected
  for gradient in expected:
    compare(sidecar, gradient, exported[gradient.split('__')[1]], io[gradient])


def _own(key):
  """Whether a loss is the quantizer's, of the plain modes."""
  return key != 'loss_rec' and not key.endswith('_dfp')


def test_llamagen_average_goes_before_the_last_weights():
  (name,) = (name for name in CHECKPOINTS if name.startswith('llamagen'))
  path, io, sidecar = checkpoint(name)
  content = tensor_files.read(path)
  del content['ema']
  published = convert.take_apart(content, path)
  tok = load(name)
  variables = convert.variables_from(published, tok.model, path)
  y = tok.model.apply(variables, jnp.asarray(io['indices'], jnp.int32), method='decode_tokens')
  compare(sidecar, 'rec_model', y, io['rec_model'])
