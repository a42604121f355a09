"""The networks in PyTorch that the benchmarks compare with are those of this package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rot_vitvqgan, rot_vqgan
from vqjax import export, pretrained, tokenizer
from vqjax.convert import names, trees
from vqjax.networks import stylegan


@pytest.fixture
def torch():
  return pytest.importorskip('torch')


def numbers(network):
  return sum(parameter.numel() for parameter in network.parameters())


def test_published_sizes(torch):
  from benchmarks.torch_peer import LPIPS, VQGAN, PatchGAN
  from benchmarks.torch_stylegan import StyleGAN2
  from benchmarks.torch_vit import ViTVQGAN

  with torch.device('meta'):
    networks = VQGAN(), PatchGAN(), LPIPS(), ViTVQGAN(), StyleGAN2()
  sizes = [55_322_782, 2_765_633, 14_716_160, 51_956_771, 28_864_129]
  assert [*map(numbers, networks)] == sizes


def held(torch, config, image_size, peer, reconstruct):
  """Holds a tokenizer of a config to a peer with its weights: images, indices, loss, gradient.

  `reconstruct` takes what the peer returns first to images.
  """
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  keys = jax.random.split(jax.random.key(0), 4)
  x = jax.random.uniform(keys[0], (2, *image_size, 3), minval=-1)
  pull = jax.random.normal(keys[1], x.shape)
  variables = model.init(keys[2], x, train=True)
  # Codes among the latents: as they are drawn, all rows take the same few.
  codes = variables['params']['quantizer']['codebook']
  variables['params']['quantizer']['codebook'] = jax.random.normal(keys[3], codes.shape)
  _, tensors = export.export(pretrained.Pretrained(model, variables, config))

  def objective(x):
    y, quantized = model.apply(variables, x, train=True)
    return jnp.sum(y * pull) + quantized.loss, (y, quantized)

  gradient, (y, quantized) = jax.jit(jax.grad(objective, has_aux=True))(x)

  peer.load_state_dict({name: torch.tensor(np.array(t)) for name, t in tensors.items()})
  image, pull = (torch.tensor(np.array(a)).permute(0, 3, 1, 2) for a in (x, pull))
  image.requires_grad_()
  hidden, loss, indices = peer(image)
  theirs = reconstruct(hidden)
  ((theirs * pull).sum() + loss).backward()

  assert len(set(indices.tolist())) > 3
  np.testing.assert_array_equal(indices.numpy(), np.ravel(quantized.indices))
  np.testing.assert_allclose(loss.item(), quantized.loss, rtol=1e-5)
  channels_last = lambda t: t.detach().permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(channels_last(theirs), y, atol=2e-5)
  scale = np.abs(gradient).max()
  np.testing.assert_allclose(channels_last(image.grad), gradient, atol=1e-4 * scale)


def test_equal_weights_give_equal_images_and_gradients(torch):
  from benchmarks.torch_peer import VQGAN

  config = rot_vqgan.get_config()
  config.model.channels, config.model.num_res_blocks, config.quantizer.num_codes = 32, 1, 64
  peer = VQGAN(channels=32, blocks=1, codes=64)
  held(torch, config, (16, 24), peer, peer.decoder.conv_out)


def test_equal_weights_of_the_vit(torch):
  from benchmarks.torch_vit import ViTVQGAN

  config = rot_vitvqgan.get_config()
  config.data.image_size, config.quantizer.num_codes = 32, 64
  for side in ('encoder', 'decoder'):
    config.model[side] = {'dim': 32, 'depth': 2, 'heads': 2, 'mlp_dim': 48}
  peer = ViTVQGAN(32, dim=32, depth=2, heads=2, hidden=48, codes=64)
  held(torch, config, (32, 32), peer, lambda image: image)


def test_equal_weights_of_the_discriminator(torch):
  from benchmarks.torch_stylegan import StyleGAN2

  judge = stylegan.StyleGAN2Discriminator(stylegan.pyramid(32, 8))
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.uniform(keys[0], (8, 32, 32, 3))
  variables = judge.init(keys[1], x)
  # Biases are 0 as they are drawn.
  leaves, tree = jax.tree.flatten(variables)
  draw = lambda key, leaf: jax.random.normal(key, leaf.shape)
  drawn = map(draw, jax.random.split(keys[2], len(leaves)), leaves)
  variables = jax.tree.unflatten(tree, drawn)
  forward = lambda x: judge.apply(variables, x)
  logits, gradient = jax.jit(lambda x: (forward(x), jax.grad(lambda x: forward(x).sum())(x)))(x)

  peer = StyleGAN2(32, channels=8)
  tensors = trees.export(variables, names.STYLEGAN2)
  state = {name: kernel for name, kernel in peer.state_dict().items() if 'kernel' in name}  # blurs
  peer.load_state_dict(state | {name: torch.tensor(t) for name, t in tensors.items()})
  image = torch.tensor(np.array(x)).permute(0, 3, 1, 2).requires_grad_()
  theirs = peer(image)
  theirs.sum().backward()
  np.testing.assert_allclose(theirs[:, 0].detach().numpy(), logits, rtol=1e-4, atol=1e-5)
  scale = np.abs(gradient).max()
  found = image.grad.permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(found, gradient, atol=1e-4 * scale)


def test_equal_weights_of_the_generator(torch):
  from benchmarks import torch_gpt
  from vqjax.convert import generator_names
  from vqjax.generation.layout import Layout
  from vqjax.generation.llamagen import GPT

  ours = GPT(Layout((3, 3), 24), 5, width=32, depth=2, heads=2)
  rng = np.random.default_rng(0)
  tokens, labels = rng.integers(0, 24, (2, 9)).astype(np.int32), np.array([1, 5], np.int32)
  variables = ours.init(jax.random.key(0), tokens, labels)
  draw = lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32)
  variables = jax.tree.map(draw, variables)

  def objective(variables):
    log_p = jax.nn.log_softmax(ours.apply(variables, tokens, labels))
    return -jnp.mean(jnp.take_along_axis(log_p, tokens[..., None], axis=-1))

  loss, gradient = jax.jit(jax.value_and_grad(objective))(variables)
  peer = torch_gpt.GPT(3, 24, 5, width=32, depth=2, heads=2)
  tensors = trees.export(variables, generator_names.LLAMAGEN_GPT)
  peer.load_state_dict({name: torch.tensor(t) for name, t in tensors.items()})
  theirs = torch_gpt.Step(peer)(torch.tensor(tokens).long(), torch.tensor(labels).long())
  np.testing.assert_allclose(theirs.item(), loss, rtol=1e-5)
  gradients = trees.export(gradient, generator_names.LLAMAGEN_GPT)
  for name, parameter in peer.named_parameters():
    scale = np.abs(gradients[name]).max()
    np.testing.assert_allclose(parameter.grad.numpy(), gradients[name], atol=1e-4 * scale)
