"""The mesh, and the training step on it: eight devices give what one gives."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqjax import networks, sharding
from vqjax.errors import UserError
from vqjax.quantizers import Ema, VectorQuantizer, nearest_code, rotation, tangent_rotation
from vqjax.tokenizer import Projection, Tokenizer
from vqjax.training import losses, state
from vqjax.training import step as steps
from vqjax.training.recipe import Gan, Recipe


def mesh_of(devices=8, data=-1, fsdp=1):
  return sharding.make_mesh({'data': data, 'fsdp': fsdp}, jax.devices()[:devices])


@pytest.mark.parametrize(
  ('devices', 'sizes', 'shape'),
  [
    (8, (-1, 1), (8, 1)),
    (8, (-1, 4), (2, 4)),
    (8, (2, -1), (2, 4)),
    (8, (8, -1), (8, 1)),
    (8, (4, 2), (4, 2)),
    (1, (-1, 1), (1, 1)),
    (6, (-1, 3), (2, 3)),
  ],
)
def test_mesh_sizes(devices, sizes, shape):
  mesh = mesh_of(devices, *sizes)
  assert dict(mesh.shape) == {'data': shape[0], 'fsdp': shape[1]}
  assert set(mesh.devices.flat) == set(jax.devices()[:devices])


@pytest.mark.parametrize('sizes', [(-1, -1), (-1, 3), (4, 1), (4, 4), (0, -1), (-2, -4), (-1, 16)])
def test_mesh_sizes_that_do_not_fit(sizes):
  with pytest.raises(UserError) as error:
    mesh_of(8, *sizes)
  assert str(error.value) == (
    f'config.mesh is data={sizes[0]}, fsdp={sizes[1]}; its product must be the 8 devices here '
    '(one axis may be -1: the rest).'
  )


@pytest.mark.parametrize(
  ('shape', 'spec'),
  [
    ((3, 3, 8, 16), (None, None, None, 'fsdp')),
    ((16, 12, 4), ('fsdp',)),
    ((16, 15, 32, 30), (None, None, 'fsdp')),  # 32 is the longest; 15 and 30 do not divide
    ((6, 8), (None, 'fsdp')),
    ((8, 8), ('fsdp',)),  # the first of equals
    ((8,), ('fsdp',)),
    ((3, 6), ()),
    ((2,), ()),
    ((), ()),
  ],
)
def test_state_is_split_on_its_longest_axis(shape, spec):
  leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
  split = sharding.state(mesh_of(8, 2, 4), {'a': [leaf]})['a'][0]
  assert tuple(split.spec) == spec
  pieces = 4 if spec else 1
  assert math.prod(split.shard_shape(shape)) * pieces == math.prod(shape)
  assert sharding.state(mesh_of(8), leaf).is_fully_replicated


@pytest.mark.parametrize(
  ('batch_size', 'accumulate', 'end'),
  [
    (12, 1, '8 devices, for example 16.'),
    (4, 1, '8 devices, for example 8.'),
    (0, 1, '8 devices, for example 8.'),
    (-8, 1, '8 devices, for example 8.'),
    (40, 2, '8 devices times 2 micro-batches, for example 32.'),
    (520, 8, '8 devices times 8 micro-batches, for example 512.'),
  ],
)
def test_batch_sizes(batch_size, accumulate, end):
  mesh = mesh_of(8, 2, 4)
  with pytest.raises(UserError) as error:
    sharding.check_batch_size(mesh, batch_size, 'config.batch_size', accumulate)
  assert str(error.value) == f'config.batch_size is {batch_size}; legal: a multiple of {end}'
  suggested = int(end.rstrip('.').split()[-1])
  sharding.check_batch_size(mesh, suggested, 'config.batch_size', accumulate)


@pytest.mark.parametrize('fsdp', [1, 4])
def test_put_batch_splits_over_all_devices(fsdp):
  mesh = mesh_of(8, -1, fsdp)
  local = {'image': np.arange(16 * 3).reshape(16, 3).astype(np.uint8), 'mask': np.arange(16) < 13}
  for name, array in sharding.put_batch(mesh, local).items():
    np.testing.assert_array_equal(array, local[name])
    assert array.dtype == local[name].dtype
    assert array.sharding == sharding.batch(mesh)
    assert {shard.device for shard in array.addressable_shards} == set(jax.devices())
    assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}


RATE = 0.02


def tiny(kind, **fields):
  """A recipe for 16-pixel images: 'gan', 'ema', 'plain' or 'stylegan'."""
  net = {'channels': 8, 'channel_mult': (1, 2), 'num_res_blocks': 0, 'norm_groups': 2}
  net['mid_attention'] = False
  quantizer = VectorQuantizer(
    16,
    estimator=rotation if kind == 'ema' else tangent_rotation,
    learner=Ema(decay=0.8) if kind == 'ema' else None,
    codebook_init=jax.nn.initializers.normal(0.1 if kind == 'stylegan' else 0.5),
  )
  # Not Adam: it blows up the noise of gradients that are zero but for rounding.
  optimizer = optax.sgd(RATE, momentum=0.9)
  gan = Gan(
    discriminator=networks.PatchGAN(channels=8, num_layers=2),
    optimizer=optimizer,
    discriminator_loss=losses.hinge_discriminator,
    generator_loss=losses.linear_generator,
    weight=0.5,
  )
  encoder, decoder = networks.CNNEncoder(**net, z_channels=4), networks.CNNDecoder(**net)
  if kind == 'stylegan':
    # With all that looks across images: groups of four, moving averages of logits.
    stylegan = networks.StyleGAN2Discriminator((4, 4, 4))
    gan = dataclasses.replace(gan, discriminator=stylegan, r1=1.0, lecam=0.5, lecam_decay=0.5)
    encoder, decoder = networks.VQTorchEncoder(4), networks.VQTorchDecoder(4, 3)
  recipe = Recipe(
    tokenizer=Tokenizer(
      encoder=encoder,
      quantizer=quantizer,
      decoder=decoder,
      pre_quant=Projection(4),
      post_quant=Projection(4),
    ),
    optimizer=optimizer,
    schedule=lambda step: RATE,
    loss_weights={'l1': 1.0},
    quantizer_weight=1.0,
    gan=gan if kind in ('gan', 'stylegan') else None,
  )
  return dataclasses.replace(recipe, **fields)


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 16, 3), dtype=np.uint8)


# Compiling is nearly all the time that these tests take.
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


@functools.cache
def start(kind):
  """The state that training starts from, on the host."""
  create = functools.partial(state.create, tiny(kind), image_shape=IMAGES.shape[1:])
  now = jax.jit(create, compiler_options=QUICK)(jax.random.key(0))
  return jax.device_get(now.replace(rng=jax.random.key_data(now.rng)))


def train(kind, mesh, num_steps, **fields):
  """Trains as train.py does; returns (state, metrics of every step), on the host."""
  recipe = tiny(kind, **fields)
  now = start(kind)
  now = now.replace(rng=jax.random.wrap_key_data(now.rng))
  shardings = sharding.state(mesh, now)
  step = jax.jit(
    functools.partial(steps.train_step, recipe),
    static_argnames='stage',
    donate_argnums=0,
    out_shardings=(shardings, sharding.replicated(mesh)),
    compiler_options=QUICK,
  )
  now = jax.device_put(now, shardings)
  seen = []
  for t, images in enumerate(IMAGES[:num_steps]):
    batch = sharding.put_batch(mesh, {'image': images})
    now, scalars = step(now, batch, stage=recipe.stage(t))
    seen.append(jax.device_get(scalars))
  kernel = now.generator.params['post_quant']['linear']['kernel']  # [4 4]
  pieces = mesh.shape['fsdp']
  assert {s.data.shape for s in kernel.addressable_shards} == {(4 // pieces, 4)}
  return jax.device_get(now.replace(rng=None)), seen


@pytest.mark.parametrize('kind', ['gan', 'ema', 'stylegan'])
def test_eight_devices_give_what_one_gives(kind):
  accumulate = 2 if kind == 'ema' else 1
  expected, expected_metrics = train(kind, mesh_of(1), 2, accumulate=accumulate)
  assert sum(expected_metrics[0]['code_counts'] > 0) > 4  # of 16: a choice that could go wrong
  side = 16 // tiny(kind).tokenizer.downsample
  assert sum(expected_metrics[0]['code_counts']) == 16 * side * side
  initial = start(kind)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), expected.generator.params, initial.generator.params
  )
  assert np.median(jax.tree.leaves(moved)) > 3e-4  # far above the tolerance
  for mesh in [mesh_of(8)] * (kind != 'stylegan') + [mesh_of(8, 2, 4)]:
    got, metrics = train(kind, mesh, 2, accumulate=accumulate)
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
      assert ours.keys() == theirs.keys()
      np.testing.assert_array_equal(ours['code_counts'], theirs['code_counts'])
      for name in ours:
        np.testing.assert_allclose(
          ours[name], theirs[name], rtol=1e-5, atol=1e-6, err_msg=f'{kind} {name}'
        )
    for part in ('generator', 'discriminator'):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        getattr(got, part),
        getattr(expected, part),
      )
    assert got.step == expected.step == 2


@pytest.fixture(scope='module')
def whole_batch():
  """One step on the whole batch at once."""
  return train('plain', mesh_of(1), 1)


@pytest.mark.parametrize('sum_gradients', [False, True])
def test_gradient_accumulation(whole_batch, sum_gradients):
  fields = {'accumulate': 2, 'sum_gradients': sum_gradients}
  if sum_gradients:  # half the rate for twice the gradient
    fields['optimizer'] = optax.sgd(RATE / 2, momentum=0.9)
  now, (got,) = train('plain', mesh_of(1), 1, **fields)
  expected, (whole,) = whole_batch
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    now.generator.params,
    expected.generator.params,
  )
  times = 2 if sum_gradients else 1
  np.testing.assert_allclose(got['grad_norm'], times * whole['grad_norm'], rtol=1e-5)
  np.testing.assert_allclose(got['loss'], whole['loss'], rtol=1e-5)  # a mean in both
  np.testing.assert_array_equal(got['code_counts'], whole['code_counts'])


def test_an_ema_codebook_moves_once_per_micro_batch():
  model, initial = tiny('ema').tokenizer, start('ema').generator
  variables = {'params': initial.params, **initial.variables}
  z = model.apply(variables, model.normalize(jnp.asarray(IMAGES[0])), method='latents')

  def update(vq, z):
    z = z.reshape(-1, z.shape[-1])
    indices = nearest_code(z, vq['codebook'])
    mask, space = jnp.ones(indices.shape, bool), model.quantizer.space({})
    codebook, learner = model.quantizer.learner.update(
      vq['codebook'], vq['learner'], z, indices, mask, space
    )
    return {'codebook': codebook, 'learner': learner}

  vq = initial.variables['vq']['quantizer']
  expected = update(update(vq, z[0::2]), z[1::2])
  at_once = update(vq, z)
  got, _ = train('ema', mesh_of(1), 1, accumulate=2)
  got = got.generator.variables['vq']['quantizer']
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)
  jax.tree.map(close, got, expected)
  assert np.abs(got['codebook'] - at_once['codebook']).max() > 1e-2


def test_the_adaptive_weight_adds_no_backward_pass():
  def flops(adaptive):
    recipe = tiny('gan')
    recipe = dataclasses.replace(recipe, gan=dataclasses.replace(recipe.gan, adaptive=adaptive))
    now = jax.eval_shape(lambda key: state.create(recipe, key, IMAGES.shape[1:]), jax.random.key(0))
    step = jax.jit(functools.partial(steps.train_step, recipe, stage=recipe.stage(0)))
    return step.lower(now, {'image': IMAGES[0]}).compile(QUICK).cost_analysis()['flops']

  assert flops(True) <= 1.1 * flops(False)
