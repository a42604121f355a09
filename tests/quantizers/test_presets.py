import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rot_vqgan, rot_vqvae
from vqjax.quantizers import Sinkhorn, build, presets

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


@pytest.mark.parametrize('step', presets.LADDER)
@pytest.mark.parametrize('task', ['autoencoder', 'classifier'])
def test_the_ladder_of_vqtorch(step, task):
  vq = presets.vqtorch(32, step, task=task)
  assert (vq.replacement is not None) == (step == 'replacement')
  assert (vq.learner is not None) == (step == 'alternating')
  if step in ('sync', 'affine'):
    assert vq.estimator.nu == {'autoencoder': 2, 'classifier': 1}[task]


def test_configs_and_presets_agree():
  spec = lambda config: build(config.quantizer.to_dict())
  assert spec(rot_vqgan.get_config()) == presets.rotation_vqgan()
  assert spec(rot_vqgan.get_config('latent=32x32x4')) == presets.rotation_vqgan(16384)
  cosine, euclidean = presets.rotation_vqvae(), presets.rotation_vqvae(8192, cosine=False)
  assert spec(rot_vqvae.get_config()) == cosine
  assert spec(rot_vqvae.get_config('codebook=euclidean,latent=64x64x3')) == euclidean


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
    ({'step': 'all'}, r"step is 'all'; legal: baseline, sync, affine, alternating, replacement"),
    ({'task': 'lm'}, r"task is 'lm'; legal: autoencoder, classifier"),
  ],
)
def test_unknown_steps_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    presets.vqtorch(**arguments)
