"""Discriminators and whole objectives of the original implementations, value by value."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import OUTSIDE, load

from vqjax import convert, networks
from vqjax.convert.names import PATCHGAN, STYLEGAN2
from vqjax.tokenizer import Tokenizer
from vqjax.training import losses, objective
from vqjax.training.recipe import Gan, Recipe
from vqjax.training.state import Network


def part(data, prefix):
  """The arrays below a prefix, without the counters and constants of the original's modules."""
  found = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
  constant = ('.num_batches_tracked', '.kernel', '.initialized')
  return {k: v for k, v in found.items() if not k.endswith(constant)}


def close(a, b, tolerance=1e-4):
  assert a.shape == np.shape(b)
  np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def all_close(params, torch, names):
  tree = {'params': params}
  jax.tree.map(close, tree, convert.fill(torch, tree, names, 'gradients'))


def averages_close(model, variables, x, moved, torch, passes):
  """Running averages of BatchNorm after so many passes over batches of the shape of `x`.

  Every pass keeps 0.9 of the average and adds 0.1 of its batch's value. PyTorch adds the unbiased
  variance, which is n / (n - 1) of ours for n values a channel: what the passes added differs by
  that factor, and what they left of the start, 0.9^passes of it, does not.
  """
  is_norm = lambda module, _: isinstance(module, nn.BatchNorm)
  apply = lambda: model.apply(variables, x, capture_intermediates=is_norm, mutable=True)
  outputs = jax.eval_shape(apply)[1]['intermediates']
  before = variables['batch_stats']
  expected = convert.fill(torch, {'batch_stats': moved}, PATCHGAN, 'buffers')['batch_stats']
  assert moved
  for norm, values in moved.items():
    n = np.prod(outputs[norm]['__call__'][0].shape[:-1])
    left = 0.9**passes * before[norm]['var']
    close(values['mean'], expected[norm]['mean'])
    close(left + (values['var'] - left) * (n / (n - 1)), expected[norm]['var'])


def test_gan_losses():
  data = load('losses/gan_losses')
  real, fake = (jnp.asarray(data[f'in_logits_{kind}']) for kind in ('real', 'fake'))
  for ours, theirs in {
    'hinge': ('hinge', 'enh_hinge'),
    'softplus': ('vanilla', 'enh_vanilla'),
    'least_squares': ('enh_least_square',),
  }.items():
    value, gradients = jax.value_and_grad(losses.DISCRIMINATOR[ours], (0, 1))(real, fake)
    for name in theirs:
      close(value, data[f'out_{name}_d'], 2e-6)
      close(gradients[0], data[f'out_{name}_d_greal'], 2e-6)
      close(gradients[1], data[f'out_{name}_d_gfake'], 2e-6)
    if ours == 'softplus':
      close(2 * value, data['out_maskgit_non_saturating_d'], 2e-6)
  for ours, theirs in {
    'linear': ('hinge', 'enh_hinge'),
    'softplus': ('enh_vanilla', 'maskgit_non_saturating'),
    'least_squares': ('enh_least_square',),
  }.items():
    value, gradient = jax.value_and_grad(losses.GENERATOR[ours])(fake)
    for name in theirs:
      close(value, data[f'out_{name}_g'], 2e-6)
      close(gradient, data[f'out_{name}_g_gfake'], 2e-6)


def objective_of(data, model, stats):
  """(value, (logits, moved)) and gradients of the objective that all PatchGAN files have."""

  def weighted(params, x):
    variables = {'params': params, 'batch_stats': stats}
    logits, moved = model.apply(variables, x, mutable=['batch_stats'])
    return jnp.vdot(data['in_g'], logits), (logits, moved['batch_stats'])

  return jax.jit(jax.value_and_grad(weighted, (0, 1), has_aux=True))


@pytest.mark.parametrize('name', ['n2', 'n3'] if OUTSIDE else ['n2'])
def test_patchgan(name):
  data = load(f'losses/patchgan_{name}')
  model = networks.PatchGAN(int(data['hp_ndf']), int(data['hp_n_layers']))
  x = jnp.asarray(data['in_x'])
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = convert.fill(part(data, 'sd/'), variables, PATCHGAN, name)
  step = objective_of(data, model, variables['batch_stats'])
  (_, (logits, moved)), (gradient, slopes) = step(variables['params'], x)
  close(logits, data['out_logits'])
  close(slopes, data['out_gx'])
  all_close(gradient, part(data, 'out_grad/'), PATCHGAN)
  averages_close(model, variables, x, moved, part(data, 'out_buf/'), passes=1)


def test_patchgan_with_actnorm():
  data = load('losses/patchgan_actnorm')
  model = networks.PatchGAN(int(data['hp_ndf']), int(data['hp_n_layers']), norm='actnorm')
  x = jnp.asarray(data['in_x'])
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  # The parameters of ActNorm are what training adds to what the first batch sets, so all is zero.
  variables = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), variables)
  of = lambda tree, kind: {name: value for name, value in tree.items() if name.startswith(kind)}
  convs = lambda tensors: {k: v for k, v in tensors.items() if not k.endswith(('.loc', '.scale'))}
  filled = {'params': of(variables['params'], 'conv')}
  filled = convert.fill(convs(part(data, 'sd/')), filled, PATCHGAN, 'actnorm')
  params = variables['params'] | filled['params']
  step = objective_of(data, model, variables['batch_stats'])
  (_, (logits, moved)), (gradient, slopes) = step(params, x)
  close(logits, data['out_logits'])
  close(slopes, data['out_gx'])
  all_close(of(gradient, 'conv'), convs(part(data, 'out_grad/')), PATCHGAN)
  for norm, values in moved.items():
    assert values['ready']
    for kind in ('loc', 'scale'):
      key = f'main.{3 * int(norm[-1])}.{kind}'
      close(gradient[norm][kind], data[f'out_grad/{key}'].reshape(-1))
      close(values[kind], data[f'out_param_after/{key}'].reshape(-1))
  (_, (logits, _)), _ = objective_of(data, model, moved)(params, 0.5 * x)
  close(logits, data['out_logits_second'])


def test_stylegan2():
  data = load('losses/stylegan2_d32')
  model = networks.StyleGAN2Discriminator(tuple(int(data[f'hp_width_{s}']) for s in (32, 16, 8, 4)))
  x = jnp.asarray(data['in_x'])
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  params = convert.fill(part(data, 'sd/'), variables, STYLEGAN2, 'stylegan2')['params']
  apply = lambda params, x: model.apply({'params': params}, x)

  def weighted(params, x):
    logits = apply(params, x)
    return jnp.vdot(data['in_g'], logits), logits

  def r1(params):
    return losses.r1(jax.grad(lambda x: jnp.sum(apply(params, x)))(x))

  @jax.jit
  def everything(params):
    return (
      jax.value_and_grad(weighted, (0, 1), has_aux=True)(params, x),
      jax.value_and_grad(r1)(params),
      apply(params, data['in_x_b6']),
      apply(params, data['in_x_b6'][:1]),
    )

  ((_, logits), (gradient, slopes)), (penalty, penalty_gradient), six, one = everything(params)
  close(logits, data['out_logits'])
  close(slopes, data['out_gx'])
  all_close(gradient, part(data, 'out_grad/'), STYLEGAN2)
  close(penalty, data['out_r1'])
  all_close(penalty_gradient, part(data, 'out_gradr1/'), STYLEGAN2)
  close(six, data['out_logits_b6'])
  close(one, data['out_logits_b1'])


# Recipe and Gan fields of every reference objective.
OBJECTIVES = {
  'taming': ({'loss_weights': {'l1': 1.0}, 'perceptual_weight': 1.0}, {'weight': 0.75}),
  'taming_vanilla': (
    {'loss_weights': {'l1': 1.0}, 'perceptual_weight': 0.6, 'quantizer_weight': 2.0},
    # Its disc_factor of 0.5 stands on both sides.
    {'weight': 0.8 * 0.5, 'discriminator_weight': 0.5, 'discriminator_loss': 'softplus'},
  ),
  'ldm_l2': ({'loss_weights': {'l2': 1.0}, 'perceptual_weight': 1.0}, {'weight': 0.6}),
  'optvq': ({'loss_weights': {'l1': 1.0, 'l2': 1.0}, 'perceptual_weight': 3.0}, {'weight': 1.0}),
  'llamagen': (
    {'loss_weights': {'l2': 1.0}, 'perceptual_weight': 1.0},
    {'weight': 0.5, 'discriminator_weight': 0.5, 'adaptive': False},
  ),
  'enh_vanilla': (
    {'loss_weights': {'l2': 1.0}, 'perceptual_weight': 0.1},
    {
      **{'weight': 0.1, 'adaptive': False, 'r1': 10.0, 'r1_every': 16},
      **{'discriminator_loss': 'softplus', 'generator_loss': 'softplus'},
    },
  ),
  'enh_hinge_adaptive': (
    {'loss_weights': {'l1': 0.5, 'l2': 1.0}, 'perceptual_weight': 0.3},
    {'weight': 0.7, 'r1': 4.0, 'r1_every': 8},
  ),
}


def lpips_params(weights):
  """`net.slice1.0.weight` and `lin0.model.1.weight` -> our tree."""
  params = {}
  for key, value in part(weights, 'perceptual_loss.').items():
    first, *rest = key.split('.')
    if first == 'net' and rest[2] == 'weight':
      params.setdefault(f'conv_{rest[1]}', {})['kernel'] = value.transpose(2, 3, 1, 0)
    elif first == 'net':
      params.setdefault(f'conv_{rest[1]}', {})['bias'] = value
    elif first.startswith('lin') and first != 'lins':
      params[first] = value.reshape(-1)
  return params


KEPT = ('taming_vanilla', 'enh_hinge_adaptive')
# Where a value lies within rounding of a kink, the slope may be that of either side. Tolerances of
# the gradients by h and w: several times what parts the reference in float32 from its own float64.
KINKED = {'taming_vanilla': (2e-3, 5e-4)}


@pytest.mark.parametrize('name', OBJECTIVES if OUTSIDE else KEPT)
def test_objective(name, monkeypatch):
  data = load(f'losses/vqloss_{name}')
  for field in ('shift', 'scale'):  # rounded to float16 when the file was made
    values = data[f'sd/perceptual_loss.scaling_layer.{field}'].reshape(-1).tolist()
    monkeypatch.setattr(networks.lpips, f'_{field.upper()}', values)
  fields, gan = OBJECTIVES[name]
  enh = name.startswith('enh')
  weights = part(data, 'sd/')
  torch = part(weights, 'discriminator.')
  if enh:
    discriminator = networks.StyleGAN2Discriminator((8, 8, 16, 16))
  else:
    discriminator = networks.PatchGAN(8, 3 if 'main.11.weight' in torch else 2)
  gan = {
    **gan,
    'discriminator': discriminator,
    'optimizer': None,
    'discriminator_loss': losses.DISCRIMINATOR[gan.get('discriminator_loss', 'hinge')],
    'generator_loss': losses.GENERATOR[gan.get('generator_loss', 'linear')],
  }
  pixels = {'pixel_mean': (0.0,) * 3, 'pixel_std': (1.0,) * 3} if enh else {}
  recipe = Recipe(
    tokenizer=Tokenizer(None, None, networks.CNNDecoder(), **pixels),
    optimizer=None,
    schedule=None,
    perceptual=networks.LPIPS(widths=(4, 8, 16, 16, 16)),
    gan=Gan(**gan),
    **{'quantizer_weight': 1.0, **fields},
  )
  names = STYLEGAN2 if enh else PATCHGAN
  variables = jax.eval_shape(discriminator.init, jax.random.key(0), data['in_x'])
  variables = convert.fill(torch, variables, names, name)
  network = Network(variables.pop('params'), variables, None)
  x, h = jnp.asarray(data['in_x']), jnp.asarray(data['in_h'])

  def forward(params):
    y = jax.lax.conv_general_dilated(
      params['h'], params['w'], (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    return (y + data['conv_b'][None, None, None], jnp.sum(data['in_q'])), None

  @jax.jit
  def phases(params, network):
    generate = lambda opponent: objective.generator_gradient(
      recipe,
      forward,
      params,
      x,
      last_kernel=lambda tree: tree['w'],
      opponent=opponent,
      perceptual=lpips_params(weights),
    )
    gradient, y, _, moved, scalars = generate(network)
    moved = network.replace(variables=moved)
    judge = lambda r1: objective.discriminator_gradient(recipe, moved, x, y, r1=r1)
    return (gradient, y, scalars), generate(None), judge(enh), judge(False)[2]

  w = jnp.asarray(data['conv_w'].transpose(2, 3, 1, 0))
  (gradient, y, scalars), waiting, (judged, moved, more), without_r1 = phases(
    {'h': h, 'w': w}, network
  )
  close(y, data['out_rec'])
  close(scalars['loss'], data['out_G'])
  of_h, of_w = KINKED.get(name, (1e-4, 1e-4))
  close(gradient['h'], data['out_grad_h'], of_h)
  close(gradient['w'], data['out_grad_conv_w'].transpose(2, 3, 1, 0), of_w)
  close(more['discriminator'], data['out_D'])
  all_close(judged, part(data, 'out_gradD/'), names)
  if not enh:  # the generator's pass, then the judging of real and of fake
    start = {'params': network.params, **network.variables}
    after = part(data, 'out_buf/')
    averages_close(discriminator, start, x, moved['batch_stats'], after, passes=3)

  # Before the GAN's start.
  close(waiting[-1]['loss'], data['out_G_before_disc_start'])
  close(waiting[0]['h'], data['out_grad_h_before_disc_start'], of_h)
  assert {'generator', 'gan_weight'}.isdisjoint(waiting[-1])

  logged = part(data, 'out_log/')
  factor = 0.5 if name == 'taming_vanilla' else 1.0
  for ours, keys in (
    (scalars['generator'], ('g_loss', 'loss_g')),
    (scalars['gan_weight'] / factor, ('d_weight', 'loss_g_weight')),
    (scalars['perceptual'], ('p_loss', 'perceptual_loss', 'loss_p')),
    (more['logits_real'], ('logits_real',)),
    (more['logits_fake'], ('logits_fake',)),
  ):
    for key in keys:
      if key in logged:  # means of logits that nearly cancel are less exact
        close(ours, logged[key], 2e-3 if key.startswith('logits') else 2e-4)
  if enh:
    close(more['r1'], logged['r1_reg'])
    close(without_r1['discriminator'], data['out_D_without_r1'])
    assert 'r1' not in without_r1
