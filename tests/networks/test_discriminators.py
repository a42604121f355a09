import jax
import jax.numpy as jnp
import numpy as np
from golden_data import load
from torch_weights import PATCHGAN, convert, torch_key

from vqjax.networks import PatchGAN


def test_patchgan_equals_the_reference():
  data = load('losses/patchgan_n2')
  model = PatchGAN(channels=16, num_layers=2)
  x = jnp.asarray(data['in_x'])
  variables = model.init(jax.random.key(0), x)
  weights = {k.removeprefix('sd/'): v for k, v in data.items() if k.startswith('sd/')}
  params = convert(weights, variables['params'], PATCHGAN)
  buffer = lambda norm, name: f'{torch_key(norm, PATCHGAN)}.running_{name}'
  stats = {
    norm: {name: weights[buffer(norm, name)] for name in ('mean', 'var')}
    for norm in ('norm_1', 'norm_2')
  }

  def objective(params, x):
    logits, moved = model.apply(
      {'params': params, 'batch_stats': stats}, x, mutable=['batch_stats']
    )
    return jnp.vdot(data['in_g'], logits), (logits, moved)

  (_, (logits, moved)), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(params, x)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())
  close(logits, data['out_logits'])
  close(grads[1], data['out_gx'])
  torch_grads = {
    k.removeprefix('out_grad/'): v for k, v in data.items() if k.startswith('out_grad/')
  }
  jax.tree.map(close, grads[0], convert(torch_grads, grads[0], PATCHGAN))
  for norm in stats:  # the running variance differs: PyTorch's is the unbiased one
    expected = data[f'out_buf/{buffer(norm, "mean")}']
    np.testing.assert_allclose(moved['batch_stats'][norm]['mean'], expected, atol=1e-5, rtol=1e-4)


def test_logit_map_sizes_at_256_pixels():
  shape = lambda n: jax.eval_shape(
    lambda: PatchGAN(num_layers=n).init_with_output(jax.random.key(0), jnp.zeros((1, 256, 256, 3)))
  )
  logits, variables = shape(3)
  assert logits.shape == (1, 30, 30, 1)
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == 2_765_633
  logits, variables = shape(2)
  assert logits.shape == (1, 62, 62, 1)
  assert sum(x.size for x in jax.tree.leaves(variables['params'])) == 663_361
