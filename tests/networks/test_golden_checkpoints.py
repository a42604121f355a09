"""Networks and tokenizer against weights, outputs and gradients of the reference systems."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_weights import LDM, TABLE_1, convert, read_checkpoint

from vqjax import networks
from vqjax.quantizers import (
  Ema,
  Rotation,
  VectorQuantizer,
  reflection,
  rotation,
  straight_through,
  tangent_rotation,
)
from vqjax.tokenizer import Projection, Tokenizer

MODES = {
  'tiny_ok': ['ste', 'rot', 'reflect', 'noscale'],
  'taming_f16_1024_a': ['ste'],
  'rot_t1_f8_cosine_a': ['ste', 'rot'],
}


def build(sidecar, estimator):
  arch, quantizer = sidecar['architecture'], sidecar['quantizer']
  net = {
    'channels': arch['ch'],
    'channel_mult': tuple(arch['ch_mult']),
    'num_res_blocks': arch['num_res_blocks'],
    'attn_resolutions': tuple(arch['attn_resolutions']),
    'resolution': arch['resolution'],
  }
  table1 = quantizer['kind'] == 'ema'
  cosine = bool(quantizer.get('cosine'))
  heads = not table1 or arch['z_channels'] != arch['embed_dim']
  weights = (1.0, 0.0) if table1 else (1.0, quantizer['beta'])
  return Tokenizer(
    encoder=networks.Encoder(**net, z_channels=arch['z_channels']),
    quantizer=VectorQuantizer(
      arch['n_embed'],
      estimator=estimator,
      learner=Ema(0.8, init_count=0.0, hold=False) if table1 else None,
      sphere=cosine,
      commitment_weight=weights[0],
      codebook_weight=weights[1],
    ),
    decoder=networks.Decoder(**net),
    pre_quant=Projection(arch['embed_dim'], layer_norm=cosine) if heads else None,
    post_quant=Projection(arch['z_channels']) if heads else None,
    unit_latents=cosine,
  )


def variables_of(model, weights, sidecar):
  """The tree of the model filled from the state dict; every key must be used."""
  size = sidecar['architecture']['resolution']
  init = lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=True)
  abstract, used = jax.eval_shape(init), set()
  table1 = 'vq' in abstract
  variables = {'params': convert(weights, abstract['params'], TABLE_1 if table1 else LDM, used)}
  if table1:
    code = lambda key: jnp.asarray(weights[f'vq._codebook.{key}'][0])
    state = Ema().init(code('embed')).replace(counts=code('cluster_size'), sums=code('embed_avg'))
    variables['vq'] = {'quantizer': {'codebook': code('embed'), 'learner': state}}
  skipped = {key for key in weights if key.startswith('vq._codebook.')}
  assert used | skipped == set(weights)
  return variables


read = functools.cache(read_checkpoint)


@pytest.mark.parametrize('suffix', ['', '_alt'])
@pytest.mark.parametrize('name', MODES)
def test_forward(name, suffix):
  weights, io, sidecar = read(name)
  model = build(sidecar, straight_through)
  variables = variables_of(model, weights, sidecar)
  run = jax.jit(lambda x: (*model.apply(variables, x), model.apply(variables, x, method='latents')))
  y, quantized, z = run(io[f'x{suffix}'])
  np.testing.assert_array_equal(quantized.indices, io[f'indices{suffix}'])
  np.testing.assert_allclose(z, io[f'z{suffix}'], atol=1e-4)
  np.testing.assert_allclose(y, io[f'rec{suffix}'], atol=1e-4)
  if not suffix:
    np.testing.assert_allclose(quantized.z_q, io['zq'], atol=1e-4)
  decode = jax.jit(lambda indices: model.apply(variables, indices, method='decode_tokens'))
  np.testing.assert_allclose(decode(quantized.indices), y, atol=1e-4)


ESTIMATORS = {
  'ste': straight_through,
  'rot': tangent_rotation,
  'reflect': reflection,
  'noscale': Rotation('inv_norm', 'drop'),
}


@pytest.mark.parametrize(('name', 'mode'), [(name, mode) for name in MODES for mode in MODES[name]])
def test_gradients(name, mode):
  weights, io, sidecar = read(name)
  table1 = sidecar['quantizer']['kind'] == 'ema'
  model = build(sidecar, rotation if table1 and mode == 'rot' else ESTIMATORS[mode])
  variables = variables_of(model, weights, sidecar)
  params, state = variables['params'], {k: v for k, v in variables.items() if k != 'params'}

  @jax.jit
  def run(params, x):
    def objective(params, x):
      variables = {'params': params, **state}
      (y, quantized), moved = model.apply(variables, x, train=True, mutable=['vq'])
      loss = jnp.vdot(io['probe'], y) + quantized.loss
      if table1:
        loss = loss + jnp.mean((y - x) ** 2)
      return loss, (y, quantized, moved)

    return jax.value_and_grad(objective, (0, 1), has_aux=True)(params, x)

  (_, (y, quantized, moved)), (dparams, dx) = run(params, io['x'])
  commitment = io['loss_commit' if table1 else 'loss_quant']
  np.testing.assert_allclose(quantized.loss, commitment, atol=1e-5, rtol=1e-4)
  if table1:
    np.testing.assert_allclose(jnp.mean((y - io['x']) ** 2), io['loss_rec'], atol=1e-5, rtol=1e-4)
    ema = moved['vq']['quantizer']
    np.testing.assert_allclose(ema['codebook'], io['ema_embed'], atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(ema['learner'].counts, io['ema_cluster_size'], atol=1e-4, rtol=1e-3)

  def close(ours, theirs):
    assert np.abs(ours - theirs).max() <= 3e-4 * np.abs(theirs).max()

  close(dx, io[f'grad_x_{mode}'])
  expected = {k.split('__')[1]: v for k, v in io.items() if k.startswith(f'grad_{mode}__')}
  assert expected
  where = {
    'encoder.conv_in.weight': ('encoder', 'conv_in', 'kernel'),
    'decoder.conv_out.weight': ('decoder', 'conv_out', 'kernel'),
    'quantize.embedding.weight': ('quantizer', 'codebook'),
    'pre_quant_proj.0.weight': ('pre_quant', 'linear', 'kernel'),
  }
  for key, gradient in expected.items():
    ours = dparams
    for name in where[key]:
      ours = ours[name]
    if where[key][-1] == 'kernel':
      ours = ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours.T
    close(np.asarray(ours), gradient)
