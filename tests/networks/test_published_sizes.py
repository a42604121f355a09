"""Every published network, built at full size from a config without computing anything."""

import jax
import jax.numpy as jnp
import pytest

from vqjax import tokenizer

OUTER = {
  'dtype': 'float32',
  'unit_latents': False,
  'pixel_mean': (0.5, 0.5, 0.5),
  'pixel_std': (0.5, 0.5, 0.5),
}
GREY = {'pixel_mean': (0.5,), 'pixel_std': (0.5,)}
NONE, LINEAR = {'head': 'none'}, {'head': 'linear'}

CNN = {'network': 'cnn', **OUTER, **LINEAR}
F4 = CNN | {'channel_mult': (1, 2, 4), 'z_channels': 3, 'code_dim': 3}
F16 = CNN | {'channel_mult': (1, 1, 2, 2, 4), 'attn_resolutions': (16,), 'z_channels': 256}
VIT = {'network': 'vit', **OUTER, **LINEAR, 'code_dim': 32}
BASE = {'dim': 768, 'depth': 12, 'heads': 12, 'mlp_dim': 3072}
HUGE = {'dim': 1280, 'depth': 32, 'heads': 16, 'mlp_dim': 5120}
SMALL = {'network': 'optvq_small', **OUTER, **LINEAR, 'code_dim': 8}
VQTORCH = {**OUTER, **NONE, **GREY, 'code_dim': 32}

# config.model, then parameters of encoder, decoder and heads, and the latent [h w D].
PUBLISHED = {
  'ldm vq-f4': (F4, 22_337_411, 32_960_771, 24, (64, 64, 3)),
  'ldm vq-f4-noattn': (F4 | {'mid_attention': False}, 21_285_763, 31_909_123, 24, (64, 64, 3)),
  'ldm vq-f8': (
    CNN | {'channel_mult': (1, 2, 2, 4), 'attn_resolutions': (32,), 'z_channels': 4, 'code_dim': 4},
    *(27_397_764, 40_253_955, 40),
    (32, 32, 4),
  ),
  'ldm vq-f16': (
    F16 | {'z_channels': 8, 'code_dim': 8},
    *(28_155_144, 41_307_011, 144),
    (16, 16, 8),
  ),
  'taming f16': (F16 | {'code_dim': 256}, 29_298_176, 42_449_795, 131_584, (16, 16, 256)),
  'optvq f32': (
    CNN
    | {'channel_mult': (1, 1, 2, 2, 4, 4), 'attn_resolutions': (8,)}
    | {'z_channels': 256, 'code_dim': 256},
    *(41_101_312, 58_974_595, 131_584),
    (8, 8, 256),
  ),
  'llamagen VQ-16': (F16 | {'code_dim': 8}, 29_298_176, 42_449_795, 4_360, (16, 16, 8)),
  'llamagen VQ-8': (
    CNN
    | {'channel_mult': (1, 2, 2, 4), 'attn_resolutions': (32,), 'z_channels': 256, 'code_dim': 8},
    *(28_559_232, 41_415_171, 4_360),
    (32, 32, 8),
  ),
  # The original counts its tables of 1024 positions as parameters.
  'vit small': (VIT, 25_830_912 - 1024 * 512, 25_830_403 - 1024 * 512, 33_312, (32, 32, 32)),
  'vit base': (VIT | BASE, 85_963_008 - 1024 * 768, 85_962_243 - 1024 * 768, 49_952, (32, 32, 32)),
  'vit large': (
    VIT | {'decoder': HUGE},
    *(25_830_912 - 1024 * 512, 589_171_203 - 1024 * 1280, 58_656),
    (32, 32, 32),
  ),
  'maskgit': (
    {'network': 'maskgit', **OUTER, **NONE, 'code_dim': 256},
    *(23_775_104, 30_478_339, 0),
    (16, 16, 256),
  ),
  'optvq cifar': (SMALL, 18_736, 17_427, 552, (64, 64, 8)),
  'optvq mnist': (SMALL | GREY | {'out_channels': 1}, 18_448, 17_137, 552, (64, 64, 8)),
  'vqtorch': ({'network': 'vqtorch', **VQTORCH}, 4_800, 4_769, 0, (64, 64, 32)),
  'vqtorch classifier': (
    {'network': 'vqtorch_classifier', **VQTORCH},
    *(4_800, 19_146, 0),
    (64, 64, 32),
  ),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_parameters_and_latents(name):
  config, *expected, latent = PUBLISHED[name]
  model = tokenizer.build(config, {'num_codes': 4})

  def run():
    images = jnp.zeros((1, 256, 256, model.channels))
    return model.init_with_output(jax.random.key(0), images, train=True)

  (y, quantized), variables = jax.eval_shape(run)
  count = lambda *parts: sum(
    x.size for part in parts for x in jax.tree.leaves(variables['params'].get(part, {}))
  )
  assert [count('encoder'), count('decoder'), count('pre_quant', 'post_quant')] == expected
  assert quantized.z_q.shape == (1, *latent)
  assert y.shape == ((1, 10) if model.classifies else (1, 256, 256, model.channels))
