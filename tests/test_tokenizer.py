"""Building a tokenizer from a config, and what it does around its networks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqjax import networks, tokenizer
from vqjax.errors import UserError

MODEL = {
  'network': 'cnn',
  'dtype': 'float32',
  'head': 'linear',
  'code_dim': 4,
  'unit_latents': False,
  'pixel_mean': (0.5, 0.5, 0.5),
  'pixel_std': (0.5, 0.5, 0.5),
}
CODES = {'num_codes': 8}
GREY = {'pixel_mean': (0.5,), 'pixel_std': (0.25,)}
VQTORCH = {'network': 'vqtorch', 'head': 'none', 'code_dim': 32}


def build(**fields):
  return tokenizer.build(MODEL | fields, CODES)


def test_shared_fields_go_to_the_sides_that_have_them():
  model = build(channels=16, z_channels=6, out_channels=3, dtype='bfloat16', head='linear_norm')
  shared = {'channels': 16, 'dtype': jnp.bfloat16}
  assert model.encoder == networks.CNNEncoder(**shared, z_channels=6)
  assert model.decoder == networks.CNNDecoder(**shared)
  assert model.pre_quant == tokenizer.Projection(4, layer_norm=True)
  assert model.post_quant == tokenizer.Projection(6)
  assert model.quantizer.num_codes == 8
  assert (model.downsample, model.channels, model.classifies) == (4, 3, False)
  assert model.last_kernel == ('decoder', 'conv_out', 'kernel')


def test_one_side_alone():
  """The dict of a side goes before the shared fields; lists, as JSON has them, become tuples."""
  model = build(network='vit', dim=64, depth=2, decoder={'dim': 80, 'depth': 3}, encoder={})
  assert model.encoder == networks.ViTEncoder(dim=64, depth=2, dtype=jnp.float32)
  assert model.decoder == networks.ViTDecoder(dim=80, depth=3, dtype=jnp.float32)
  assert model.post_quant == tokenizer.Projection(80)
  assert model.last_kernel == ('decoder', 'to_pixel', 'kernel')
  assert model.downsample == 8
  model = build(channel_mult=[1, 2], decoder={'attn_resolutions': [128]}, pixel_mean=[0.0] * 3)
  assert model.encoder.channel_mult == model.decoder.channel_mult == (1, 2)
  assert (model.encoder.attn_resolutions, model.decoder.attn_resolutions) == ((), (128,))
  hash(model)


def test_without_a_head():
  model = build(network='maskgit', head='none', code_dim=256)
  assert model.pre_quant is model.post_quant is None


def test_a_classifier():
  model = build(**VQTORCH | GREY | {'network': 'vqtorch_classifier'})
  assert model.classifies
  run = lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 28, 28, 1)), train=True)
  (logits, quantized), variables = jax.eval_shape(run)
  assert logits.shape == (2, 10)
  assert quantized.indices.shape == (2, 7, 7)
  leaf = variables['params']
  for name in model.last_kernel:
    leaf = leaf[name]
  assert leaf.shape == (64, 10)


CNN_FIELDS = (
  'channels, channel_mult, num_res_blocks, attn_resolutions, resolution, mid_attention, dropout, '
  'remat'
)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'network': 'unet'},
      "config.model.network is 'unet'; legal: cnn, maskgit, edsr, vit, optvq_small, "
      'vqtorch, vqtorch_classifier.',
    ),
    ({'dtype': 'float16'}, "config.model.dtype is 'float16'; legal: float32, bfloat16."),
    ({'head': 'mlp'}, "config.model.head is 'mlp'; legal: none, linear, linear_norm."),
    (
      {'patch_size': 8},
      "config.model.patch_size is unknown to the network 'cnn'; legal: norm_groups, "
      f'{CNN_FIELDS}, z_channels, out_channels, encoder, decoder.',
    ),
    (
      {'decoder': {'z_channels': 3}},
      "config.model.decoder.z_channels is unknown to the network 'cnn'; legal: norm_groups, "
      f'{CNN_FIELDS}, out_channels.',
    ),
    (
      {'encoder': 'big'},
      "config.model.encoder is 'big'; legal: a dict of fields for that side alone.",
    ),
    (
      {'head': 'none', 'z_channels': 3},
      'config.model.code_dim is 4, the encoder puts out width 3 and the decoder takes 3; without a '
      'head they must be equal: set config.model.code_dim=3 or config.model.head=linear.',
    ),
    (
      {'head': 'none', 'network': 'vit', 'code_dim': 512, 'decoder': {'dim': 1280}},
      'config.model.code_dim is 512, the encoder puts out width 512 and the decoder takes 1280; '
      'without a head they must be equal: set config.model.head=linear.',
    ),
    (
      {'network': 'vit', 'decoder': {'patch_size': 16}},
      'config.model.encoder makes one token of 8 pixels a side and config.model.decoder 16 pixels '
      'of one token; make them equal.',
    ),
    (
      {'pixel_std': (0.5,)},
      'config.model.pixel_mean is (0.5, 0.5, 0.5) and pixel_std (0.5,); legal: three values each, '
      'for RGB, or one each, for grey images.',
    ),
    (
      GREY,
      'config.model.out_channels is 3 and pixel_mean (0.5,); they must be as many: set '
      'config.model.out_channels=1.',
    ),
    (
      VQTORCH,
      'config.model.out_channels is 1 and pixel_mean (0.5, 0.5, 0.5); they must be as many: set '
      'config.model.out_channels=3.',
    ),
  ],
)
def test_errors(fields, message):
  with pytest.raises(UserError) as error:
    build(**fields)
  assert str(error.value) == message


@pytest.mark.parametrize('name', tokenizer.FIELDS)
def test_a_missing_field(name):
  with pytest.raises(UserError) as error:
    tokenizer.build({n: value for n, value in MODEL.items() if n != name}, CODES)
  assert str(error.value) == (
    f"config.model has no '{name}'; every network needs network, dtype, head, code_dim, "
    'unit_latents, pixel_mean, pixel_std: set it.'
  )


def test_errors_of_the_quantizer():
  with pytest.raises(UserError) as error:
    tokenizer.build(MODEL, {'name': 'vq'})
  assert str(error.value).startswith("config.quantizer: name is 'vq'; legal: vector, ")


def test_sizes():
  model = build(network='vit')
  for size in ((8, 8), (256, 64)):
    model.check_size(*size)
  for size, near in (((260, 64), '256x64'), ((7, 8), '8x8'), ((64, 0), '64x8')):
    with pytest.raises(UserError) as error:
      model.check_size(*size)
    assert str(error.value) == (
      f'images are {size[0]}x{size[1]} pixels; legal: sides that are multiples of 8: crop or '
      f'resize them, for example to {near}.'
    )


def test_pixels_of_colour_images():
  model = build(pixel_mean=(0.5, 0.25, 0.0), pixel_std=(0.5, 0.25, 1.0))
  pixels = np.array([[[[0, 51, 255]]]], np.uint8)
  x = model.normalize(pixels)
  np.testing.assert_allclose(x, [[[[-1, -0.2, 1]]]], atol=1e-6)
  np.testing.assert_allclose(model.normalize(pixels / np.float32(255)), x, atol=1e-6)
  np.testing.assert_array_equal(tokenizer.to_uint8(model.denormalize(x)), pixels)
  np.testing.assert_array_equal(model.denormalize(10 * x), [[[[0, 0, 1]]]])


def test_pixels_of_grey_images():
  """Inside one channel, the mean of three; outside three equal ones."""
  model = build(**GREY, out_channels=1)
  assert model.channels == 1
  pixels = np.array([[[[0, 51, 102], [255, 255, 255]]]], np.uint8)
  x = model.normalize(pixels)
  assert x.shape == (1, 1, 2, 1)
  np.testing.assert_allclose(x[..., 0], [[[(0.2 - 0.5) / 0.25, 2]]], atol=1e-6)
  np.testing.assert_allclose(model.normalize(pixels / np.float32(255)), x, atol=1e-6)
  back = tokenizer.to_uint8(model.denormalize(x))
  np.testing.assert_array_equal(back, [[[[51] * 3, [255] * 3]]])


def test_a_model_of_grey_images_sees_one_channel():
  model = build(network='optvq_small', code_dim=8, **GREY, out_channels=1)
  run = lambda: model.init_with_output(
    jax.random.key(0), model.normalize(np.zeros((2, 8, 12, 3), np.uint8)), train=True
  )
  (y, _), variables = jax.eval_shape(run)
  assert variables['params']['encoder']['in_fc']['kernel'].shape == (3, 3, 1, 16)
  assert y.shape == (2, 8, 12, 1)
  assert jax.eval_shape(lambda: model.denormalize(jnp.zeros(y.shape))).shape == (2, 8, 12, 3)


def test_every_network_builds_from_its_defaults():
  """What `FIELDS` and the modules' own defaults leave open is nothing."""
  for name, (encoder, decoder) in networks.NETWORKS.items():
    grey = GREY if 'vqtorch' in name else {}
    model = build(network=name, **grey)
    assert isinstance(model.encoder, encoder)
    assert isinstance(model.decoder, decoder)
    fields = {f.name for side in (encoder, decoder) for f in dataclasses.fields(side)}
    assert not fields & set(tokenizer.FIELDS) - {'dtype'}
