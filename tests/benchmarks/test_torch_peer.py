"""The networks in PyTorch that the benchmarks compare with are those of this package."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rot_vqgan
from vqjax import export, pretrained, tokenizer


@pytest.fixture
def torch():
  return pytest.importorskip('torch')


def numbers(network):
  return sum(parameter.numel() for parameter in network.parameters())


def test_published_sizes(torch):
  from benchmarks.torch_peer import LPIPS, VQGAN, PatchGAN

  with torch.device('meta'):
    networks = VQGAN(), PatchGAN(), LPIPS()
  assert [*map(numbers, networks)] == [55_322_782, 2_765_633, 14_716_160]


def test_equal_weights_give_equal_images_and_gradients(torch):
  from benchmarks.torch_peer import VQGAN

  config = rot_vqgan.get_config()
  config.model.channels, config.model.num_res_blocks, config.quantizer.num_codes = 32, 1, 64
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  keys = jax.random.split(jax.random.key(0), 4)
  x = jax.random.uniform(keys[0], (2, 16, 24, 3), minval=-1)
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

  peer = VQGAN(channels=32, blocks=1, codes=64)
  peer.load_state_dict({name: torch.tensor(np.array(t)) for name, t in tensors.items()})
  image, pull = (torch.tensor(np.array(a)).permute(0, 3, 1, 2) for a in (x, pull))
  image.requires_grad_()
  hidden, loss, indices = peer(image)
  theirs = peer.decoder.conv_out(hidden)
  ((theirs * pull).sum() + loss).backward()

  assert len(set(indices.tolist())) > 3
  np.testing.assert_array_equal(indices.numpy(), np.ravel(quantized.indices))
  np.testing.assert_allclose(loss.item(), quantized.loss, rtol=1e-5)
  channels_last = lambda t: t.detach().permute(0, 2, 3, 1).numpy()
  np.testing.assert_allclose(channels_last(theirs), y, atol=2e-5)
  scale = np.abs(gradient).max()
  np.testing.assert_allclose(channels_last(image.grad), gradient, atol=1e-4 * scale)
