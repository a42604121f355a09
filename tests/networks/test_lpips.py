"""LPIPS against the reference, and with its real weights on photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import OUTSIDE, load

from vqjax import weights
from vqjax.data.photos import Photos
from vqjax.errors import UserError
from vqjax.networks import LPIPS

NETS = {'vgg': 14_716_160, 'alex': 2_470_848}


def parameters(data):
  """Our tree from a golden file's torch keys; full-width kernels come as int8 with a scale."""
  params = {f'lin{i}': data[f'lin{i}'] for i in range(5) if f'lin{i}' in data}
  for key, value in data.items():
    kind, _, name = key.partition('/')
    *path, index, leaf = name.split('.') if kind in ('q', 'sd') else ('', '', '')
    if path and path[0].startswith('lin'):  # lin0.model.1.weight
      params[path[0]] = value.reshape(-1)
    elif path and index.isdigit():  # net.slice1.0.weight or features.0.weight
      kernel = value.astype(np.float32) * data.get(f'scale/{name}', np.float32(1))
      conv = params.setdefault(f'conv_{index}', {})
      conv.update({'bias': value} if leaf == 'bias' else {'kernel': kernel.transpose(2, 3, 1, 0)})
  return params


def close(a, b, tolerance=1e-4):
  assert a.shape == b.shape
  assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def check_against_the_reference(model, data, image_of=lambda x: x):
  @jax.jit
  def run(params, x, y):
    apply = lambda *args, **kwargs: model.apply({'params': params}, *args, **kwargs)
    features = [apply(image_of(image), method='features') for image in (x, y)]
    distance, pullback = jax.vjp(lambda y: apply(image_of(x), image_of(y)), y)
    return distance, apply(*features, method='distances'), *pullback(data['in_w'])

  distance, taps, grad = run(parameters(data), data['in_x0'], data['in_x1'])
  close(distance, data['out_d'])
  close(taps, data['out_taps'])
  close(grad, data['out_gx1'])


def test_narrow_vgg_equals_the_reference():
  data = load('losses/lpips_vgg_small')
  # The file's weights were rounded to float16 before its run, and these constants with them.
  shift, scale = (
    data[f'sd/scaling_layer.{name}'].reshape(1, 1, 1, 3) for name in ('shift', 'scale')
  )
  to_shift, to_scale = np.float32([[[[-0.030, -0.088, -0.188]]], [[[0.458, 0.448, 0.450]]]])[
    :, None
  ]
  image_of = lambda x: (x - shift) / scale * to_scale + to_shift
  model = LPIPS(widths=tuple(data['hp_widths'].tolist()))
  check_against_the_reference(model, data, image_of)


@pytest.mark.skipif(not OUTSIDE, reason='the repository does not keep golden files of full width')
@pytest.mark.parametrize('net', NETS)
def test_full_width_equals_the_reference(net):
  check_against_the_reference(LPIPS(net), load(f'losses/lpips_{net}_full'))


def test_distances_of_given_features_equal_the_reference():
  data = load('losses/lpips_lin_check')
  x, y = ([jnp.asarray(data[f'in_f{side}_{i}']) for i in range(5)] for side in (0, 1))
  assert not jnp.stack([x[0], y[0]]).any(-1).all()  # one vector is all zeros

  @jax.jit
  def run(params, x, y):
    apply = lambda x, y: LPIPS().apply({'params': params}, x, y, method='distances')
    taps, pullback = jax.vjp(apply, x, y)
    return taps, pullback(jnp.ones_like(taps))

  taps, grads = run(parameters(data), x, y)
  close(taps, data['out_taps'], 2e-5)
  close(taps.sum(-1), data['out_d'], 2e-5)
  for grad in jax.tree.leaves(grads):
    assert np.isfinite(grad).all()


@pytest.mark.parametrize('net', NETS)
def test_tap_sizes_and_parameter_counts(net):
  images = jnp.zeros((2, 224, 224, 3))
  distance, variables = jax.eval_shape(
    lambda: LPIPS(net).init_with_output(jax.random.key(0), images, images)
  )
  assert distance.shape == (2,)
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == NETS[net]
  taps = jax.eval_shape(lambda v: LPIPS(net).apply(v, images, method='features'), variables)
  sizes = {'vgg': [224, 112, 56, 28, 14], 'alex': [55, 27, 13, 13, 13]}
  assert [tap.shape[1] for tap in taps] == sizes[net]


def test_only_the_classifier_computes_in_bfloat16():
  model = LPIPS(widths=(2,) * 5, dtype=jnp.bfloat16)
  image = jnp.zeros((1, 16, 16, 3))
  distance, variables = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), image, image)
  )
  assert {x.dtype for x in jax.tree.leaves((distance, variables))} == {jnp.dtype('float32')}
  taps = jax.eval_shape(lambda v: model.apply(v, image, method='features'), variables)
  assert {x.dtype for x in taps} == {jnp.dtype('bfloat16')}


@pytest.mark.parametrize(('net', 'smallest'), [('vgg', 16), ('alex', 31)])
def test_images_that_are_too_small_are_refused(net, smallest):
  model = LPIPS(net, widths=(2,) * 5)
  run = lambda size: jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), *2 * [jnp.zeros((1, size, 50, 3))])
  )
  taps = jax.eval_shape(
    lambda p: model.apply(p, jnp.zeros((1, smallest, 50, 3)), method='features'), run(smallest)[1]
  )
  assert taps[-1].shape[1] == 1
  with pytest.raises(UserError, match=f'{smallest - 1}x50 pixels; legal: {smallest} or more'):
    run(smallest - 1)


def test_unknown_nets_are_refused():
  image = jnp.zeros((1, 64, 64, 3))
  with pytest.raises(UserError, match=r"LPIPS.net is 'squeeze'; legal: vgg, alex"):
    LPIPS('squeeze').init(jax.random.key(0), image, image)


def unit(x):
  length = np.sqrt((x.astype(np.float64) ** 2).sum(-1, keepdims=True))
  return x / (length + 1e-10)


@pytest.mark.parametrize('net', NETS)
def test_pretrained_distances_of_photographs(net):
  """Fits the network, has the published sums, and orders noisy versions of a photograph."""
  if not weights.available(f'lpips_{net}'):
    pytest.skip('needs: python -m vqjax.weights lpips')
  params = weights.load(f'lpips_{net}')
  model, shape = LPIPS(net), (1, 64, 64, 3)
  abstract = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros(shape), jnp.zeros(shape))['params']
  )
  describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert describe(params) == describe(abstract)
  sums = {
    'vgg': [6.92599, 8.85833, 17.51501, 51.52132, 47.03486],
    'alex': [2.34953, 16.14303, 39.26845, 27.19718, 20.31718],
  }
  lins = [params[f'lin{i}'] for i in range(5)]
  np.testing.assert_allclose([lin.sum() for lin in lins], sums[net], rtol=1e-6)
  assert all((lin >= 0).all() for lin in lins)

  tiles = Photos('eval')
  # The largest tile of each photograph comes first.
  largest = {tiles[i]['label']: tiles[i]['image'] for i in reversed(range(len(tiles)))}
  photo = np.stack([largest[label][:256:4, :256:4] for label in (0, 1)]) / 127.5 - 1
  noise = np.random.default_rng(0).normal(size=photo.shape)
  x = [photo + amount * noise for amount in (0.4, 0.2, 0.1, 0.05, 0)]
  x = np.concatenate([*x, photo]).astype(np.float32)
  y = np.concatenate([photo] * 5 + [x[:2]]).astype(np.float32)

  @jax.jit
  def run(params, x, y):
    apply = lambda *args, **kwargs: model.apply({'params': params}, *args, **kwargs)
    return apply(x, y), apply(x, method='features'), apply(y, method='features')

  distance, fx, fy = run(params, x, y)
  expected = sum(
    ((unit(np.asarray(a)) - unit(np.asarray(b))) ** 2 @ lin).mean((1, 2))
    for a, b, lin in zip(fx, fy, lins, strict=True)
  )
  np.testing.assert_allclose(distance, expected, rtol=1e-4, atol=1e-7)
  ladder = distance[:10].reshape(5, 2)  # amount of noise, photograph
  # The cat, as PyTorch sees it in float64 with the same weights.
  cat = {
    'vgg': [0.547861, 0.284393, 0.126221, 0.0443532],
    'alex': [0.608814, 0.199708, 0.0312022, 0.00520722],
  }
  np.testing.assert_allclose(ladder[:4, 0], cat[net], rtol=2e-4)
  assert (np.diff(ladder, axis=0) < 0).all()
  assert (ladder[-1] == 0).all()
  np.testing.assert_allclose(distance[10:], distance[:2], rtol=1e-5)  # sides exchanged
