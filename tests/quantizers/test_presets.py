import importlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax.quantizers import Sinkhorn, build, presets
from vqjax.quantizers.estimators import straight_through

PRESETS = {
  name: value
  for name, value in vars(presets).items()
  if inspect.isfunction(value) and value.__module__ == presets.__name__ and name[0] != '_'
}
WIDTHS = {'fsq': 4, 'magvit2': 18, 'bsq': 18}
SMALL = {name: {'num_codes': 64} for name in PRESETS if name not in WIDTHS}


def test_every_system_has_its_preset():
  assert set(PRESETS) == {
    *('rotation_vqvae', 'rotation_vqgan', 'rotation_vit_vqgan', 'vqtorch', 'optvq'),
    *('optvq_baseline', 'taming', 'vit_vqgan', 'llamagen', 'maskgit', 'simvq', 'rq_vae'),
    *('diveq', 'fsq', 'magvit2', 'bsq'),
  }


@pytest.mark.parametrize('name', PRESETS)
def test_a_preset_trains_and_its_tokens_round_trip(name):
  vq = PRESETS[name](**SMALL.get(name, {}))
  z = jax.random.normal(jax.random.key(0), (2, 5, WIDTHS.get(name, 8)))
  keys = {'params': jax.random.key(1), 'vq': jax.random.key(2)}
  variables = vq.init(keys, z, train=True)
  out, _ = vq.apply(variables, z, train=True, mutable=['vq'], rngs=keys)
  assert jnp.isfinite(out.loss)
  out = vq.apply(variables, z, train=False)
  np.testing.assert_array_equal(out.z_q, vq.apply(variables, out.indices, method='lookup'))


@pytest.mark.parametrize('step', presets.STEPS)
@pytest.mark.parametrize('task', ['autoencoder', 'classifier'])
def test_the_ladder_of_vqtorch(step, task):
  vq = presets.vqtorch(32, step, task=task)
  assert (vq.replacement is not None) == (step == 'replacement')
  assert (vq.learner is not None) == (step == 'alternating')
  if step in ('sync', 'affine'):
    assert vq.estimator.nu == {'autoencoder': 2, 'classifier': 1}[task]


CONFIGS = {
  ('rot_vqgan', ''): presets.rotation_vqgan(),
  ('rot_vqgan', 'latent=32x32x4'): presets.rotation_vqgan(16384),
  ('rot_vqvae', ''): presets.rotation_vqvae(),
  ('rot_vqvae', 'codebook=euclidean,latent=64x64x3'): presets.rotation_vqvae(8192, cosine=False),
  ('rot_vqvae', 'estimator=straight_through'): presets.rotation_vqvae().clone(
    estimator=straight_through
  ),
  ('rot_vitvqgan', ''): presets.rotation_vit_vqgan(),
  ('rot_vitvqgan', 'size=large,estimator=straight_through'): presets.vit_vqgan(),
  ('vqgan', ''): presets.taming(),
  ('vqgan', 'model=imagenet_f16_16384'): presets.taming(16384),
  ('vqgan', 'model=f4_noattn'): presets.taming(8192),
  ('vqgan', 'model=f8_n256'): presets.taming(256),
  ('optvq', ''): presets.optvq(),
  ('optvq', 'model=f32_h8'): presets.optvq(heads=8),
  ('optvq', 'model=mnist'): presets.optvq(1024),
  ('optvq', 'method=vqbase'): presets.optvq_baseline(),
  ('optvq', 'model=cifar10,method=vqbase'): presets.optvq_baseline(1024, heads=1),
  ('optvq', 'method=vqgan'): presets.optvq_baseline(heads=1, projection=False),
  ('llamagen', 'model=vq8'): presets.llamagen(),
  ('maskgit', ''): presets.maskgit(),
  **{
    ('vqtorch', f'task={task},step={step}'): presets.vqtorch(step=step, task=task)
    for task in ('autoencoder', 'classifier')
    for step in presets.STEPS
  },
  ('vqtorch', ''): presets.vqtorch(),
}


@pytest.mark.parametrize(('name', 'arg'), CONFIGS)
def test_configs_and_presets_agree(name, arg):
  config = importlib.import_module(f'configs.{name}').get_config(arg)
  ours, preset = build(config.quantizer.to_dict()), CONFIGS[name, arg]
  assert ours == preset
  assert hash(ours) == hash(preset)


def test_kmeans_is_a_start_and_no_layer():
  assert presets.vqtorch(step='kmeans') == presets.vqtorch(step='baseline')


def test_published_constants():
  optvq = presets.optvq()
  assert (optvq.groups, optvq.base.num_codes, optvq.base.assign) == (4, 16384, Sinkhorn(10.0, 5))
  assert presets.optvq(heads=8).groups == 8
  assert (optvq.base.commitment_weight, optvq.base.codebook_weight) == (1.0, 0.25)
  assert (presets.taming().commitment_weight, presets.taming().codebook_weight) == (1.0, 0.25)
  assert (presets.vit_vqgan().commitment_weight, presets.vit_vqgan().codebook_weight) == (0.25, 1.0)
  assert presets.fsq().num_codes == 1000
  assert presets.magvit2().num_codes == presets.bsq().num_codes == 2**18
  assert presets.bsq(36).tokens == 2
  assert presets.bsq(45).tokens == 3


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      {'step': 'all'},
      r"step is 'all'; legal: baseline, kmeans, sync, affine, replacement, alt",
    ),
    ({'task': 'lm'}, r"task is 'lm'; legal: autoencoder, classifier"),
  ],
)
def test_unknown_steps_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    presets.vqtorch(**arguments)
