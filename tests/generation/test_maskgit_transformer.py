import jax
import jax.numpy as jnp
import masked_goldens as goldens
import numpy as np
import pytest
from golden_data import compare
from networks.random_params import QUICK, random_params

from vqjax import convert
from vqjax.generation.layout import Layout
from vqjax.generation.maskgit import MaskGITTransformer

TINY = {'width': 16, 'depth': 1, 'heads': 2, 'mlp_width': 24}


@pytest.mark.parametrize('name', goldens.MASKGIT)
def test_golden(name):
  model, variables, published, io, sidecar = goldens.load(name)
  num_codes = model.layout.base
  labels, symbols = jnp.asarray(io['ids'][:, 0] - num_codes), jnp.asarray(io['ids'][:, 1:])
  targets = jnp.asarray(io['code'])

  def everything(variables):
    logits, kept = model.apply(
      *(variables, symbols, labels), capture_intermediates=lambda module, _: module.name == 'mlm_ln'
    )

    def loss(variables, weights):
      log_p = jax.nn.log_softmax(model.apply(variables, symbols, labels))
      picked = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
      smooth = -0.9 * picked - 0.1 * jnp.mean(log_p, axis=-1)
      return jnp.mean(jnp.sum(weights * smooth, axis=1) / jnp.sum(weights, axis=1))

    mask = jnp.asarray(io['mask']).astype(jnp.float32)
    states = kept['intermediates']['mlm_ln']['__call__'][0]
    masked = jax.value_and_grad(loss)(variables, mask)
    return logits, states, masked, loss(variables, jnp.ones_like(mask))

  logits, states, (loss, gradients), loss_all = jax.jit(everything, compiler_options=QUICK)(
    variables
  )
  # What is left out of the logits, of the rows behind the codes, follows from the same states.
  params = variables['params']
  rest = states @ params['word_embeddings']['embedding'].T + params['mlm_bias'][None, None]
  np.testing.assert_allclose(logits, rest[..., :num_codes], atol=1e-5)
  rule = sidecar['arrays']['logits']
  np.testing.assert_allclose(rest, io['logits'][:, 1:], atol=rule['atol'], rtol=rule['rtol'])
  np.testing.assert_allclose(logits, io['logits'][:, 1:, :num_codes], atol=rule['atol'], rtol=0)
  compare(sidecar, 'loss_masked', loss, io['loss_masked'])
  compare(sidecar, 'loss_all', loss_all, io['loss_all'])
  gradients = convert.export_generator(gradients, published.generator, published.format)
  expected = [key for key in io if key.startswith('grad__')]
  assert expected
  for key in expected:
    compare(sidecar, key, gradients[key.replace('grad__', 'params/')], io[key])


@pytest.mark.parametrize(('grid', 'count'), [(16, 172_457_193), (32, 173_047_017)])
def test_published_sizes(grid, count):
  model = MaskGITTransformer(Layout((grid, grid), 1024), 1000)
  assert sum(leaf.size for leaf in jax.tree.leaves(goldens.abstract(model))) == count


def test_without_classes_there_is_one():
  model = MaskGITTransformer(Layout((2, 3), 5), 0, **TINY)
  assert not model.has_null
  table = goldens.abstract(model)['params']['word_embeddings']['embedding']
  assert table.shape == (5 + 1 + 1, 16)


def test_every_part_of_a_cell_has_rows_of_its_own():
  model = MaskGITTransformer(Layout((2, 2), 5, groups=2), 3, **TINY)
  known, labels = jnp.full((1, 8), 3), jnp.array([2])
  params = random_params(model, known, labels)
  table = params['word_embeddings']['embedding']
  assert table.shape == (2 * 5 + 3 + 1, 16)
  apply = jax.jit(lambda params, symbols: model.apply({'params': params}, symbols, labels))
  assert apply(params, known).shape == (1, 8, 5)

  def changed(row, symbols=known):
    new = table.copy()
    new[row, 0] += 1.0
    new = params | {'word_embeddings': {'embedding': new}}
    return np.asarray(apply(new, symbols) != apply(params, symbols))[0]

  # A symbol's logits at places of the second part are read by its row there.
  assert changed(5 + 1)[1::2, 1].all()
  assert changed(5 + 1).sum() == 4
  assert changed(5 + 3).any(axis=-1).all()  # the symbol that stands there
  assert changed(10 + 2).any(axis=-1).all()  # the class
  assert not changed(10 + 1).any()  # another one
  assert not changed(13).any()  # the mask
  assert changed(13, known.at[0, 4].set(-1)).any(axis=-1).all()


def test_dropout_and_bfloat16():
  model = MaskGITTransformer(Layout((2, 2), 5), 3, **TINY, dropout=0.5, dtype=jnp.bfloat16)
  symbols, labels = jnp.array([[-1, 1, 2, -1]]), jnp.array([0])
  with jax.numpy_dtype_promotion('standard'):  # jax's attention and flax's norms mix types
    params = random_params(model, symbols, labels)
    run = jax.jit(
      lambda key: model.apply(
        {'params': params}, symbols, labels, train=True, rngs={'dropout': key}
      )
    )
    one, other = (run(jax.random.key(i)) for i in range(2))
  assert one.dtype == jnp.float32
  assert (one != other).any()
