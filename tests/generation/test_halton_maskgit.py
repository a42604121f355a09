import jax
import jax.numpy as jnp
import masked_goldens as goldens
import numpy as np
import pytest
from golden_data import compare
from networks.random_params import QUICK, random_params

from vqjax import convert
from vqjax.generation import halton_maskgit, masking
from vqjax.generation.halton_maskgit import MaskedTransformer
from vqjax.generation.layout import Layout

TINY = {'width': 16, 'depth': 1, 'heads': 2}


@pytest.mark.parametrize('name', goldens.HALTON)
def test_golden(name):
  model, variables, published, io, sidecar = goldens.load(name)
  num_codes = model.layout.base
  hidden = masking.rate('arccos', jnp.asarray(io['mask_r']), model.layout.length)
  hidden = io['mask_u'] < np.asarray(hidden)[:, None, None]
  compare(sidecar, 'mask', hidden, io['mask'])
  codes = np.where(hidden, num_codes, io['code'])
  compare(sidecar, 'masked_code', codes, io['masked_code'])
  symbols = goldens.symbols(codes, num_codes)
  labels = jnp.asarray(io['labels'], jnp.int32)
  null = jnp.full_like(labels, model.num_classes)
  targets = jnp.asarray(io['code'].reshape(symbols.shape), jnp.int32)

  def everything(variables, given):
    keep, drop = model.apply(variables, symbols, labels), model.apply(variables, symbols, null)

    def loss(variables):
      logits = model.apply(variables, symbols, given)
      log_p = jax.nn.log_softmax(logits)
      right = jnp.argmax(logits, axis=-1) == targets
      return -jnp.mean(jnp.take_along_axis(log_p, targets[..., None], axis=-1)), right

    return keep, drop, jax.value_and_grad(loss, has_aux=True)(variables)

  given = jnp.where(io['drop_label'], null, labels)
  run = jax.jit(everything, compiler_options=QUICK)
  keep, drop, ((loss, right), gradients) = run(variables, given)
  compare(sidecar, 'logits_keep', keep, io['logits_keep'])
  compare(sidecar, 'logits_drop', drop, io['logits_drop'])
  compare(sidecar, 'loss', loss, io['loss'])
  compare(sidecar, 'acc', np.asarray(right)[hidden.reshape(right.shape)].mean(), io['acc'])
  gradients = convert.export_generator(gradients, published.generator, published.format)
  expected = [key for key in io if key.startswith('grad__')]
  assert expected
  for key in expected:
    compare(sidecar, key, gradients[key.removeprefix('grad__')], io[key])


@pytest.mark.parametrize(
  ('size', 'at_16', 'at_24'),
  [
    ('tiny', 23_031_425, 23_154_305),
    ('small', 69_344_769, 69_508_609),
    ('base', 142_224_641, 142_470_401),
    ('large', 479_656_961, 479_984_641),
    ('xlarge', 692_118_401, 692_487_041),
  ],
)
def test_published_sizes(size, at_16, at_24):
  for grid, count in ((16, at_16), (24, at_24)):
    model = MaskedTransformer(Layout((grid, grid), 16384), 1000, **halton_maskgit.SIZES[size])
    leaves = jax.tree.leaves(goldens.abstract(model))
    assert sum(leaf.size for leaf in leaves) == count


def test_without_classes_there_is_the_null_class_alone():
  model = MaskedTransformer(Layout((2, 3), 5), 0, **TINY)
  assert model.has_null
  assert goldens.abstract(model)['params']['cls_emb']['embedding'].shape == (1, 16)


def test_without_registers_there_are_no_rows_of_them():
  model = MaskedTransformer(Layout((2, 3), 5), 0, **TINY, registers=0)
  params = goldens.abstract(model)['params']
  assert 'reg_tokens' not in params


def test_every_part_of_a_cell_has_rows_of_its_own():
  model = MaskedTransformer(Layout((2, 2), 5, groups=2), 0, **TINY)
  symbols, labels = jnp.full((1, 8), 3), jnp.zeros((1,), jnp.int32)
  params = random_params(model, symbols, labels)
  table = params['tok_emb']['embedding']
  assert table.shape == (2 * (5 + 1), 16)
  apply = jax.jit(lambda params: model.apply({'params': params}, symbols, labels))
  logits = apply(params)
  assert logits.shape == (1, 8, 5 + 1)

  def changed(row):
    new = table.copy()
    new[row, 0] += 1.0
    return np.asarray(apply(params | {'tok_emb': {'embedding': new}}) != logits)[0]

  # A symbol's logits at places of the second part are read by its row there.
  assert changed(6 + 1)[1::2, 1].all()
  assert changed(6 + 1).sum() == 4
  assert changed(6 + 3).any(axis=-1).all()  # the symbol that stands there


def test_dropout_and_bfloat16():
  model = MaskedTransformer(Layout((2, 2), 5), 3, **TINY, dropout=0.5, dtype=jnp.bfloat16)
  symbols, labels = jnp.array([[-1, 1, 2, -1]]), jnp.array([3])
  with jax.numpy_dtype_promotion('standard'):  # jax's attention and flax's norms mix types
    params = random_params(model, symbols, labels)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    run = jax.jit(
      lambda key: model.apply(
        {'params': params}, symbols, labels, train=True, rngs={'dropout': key}
      )
    )
    one, other = (run(jax.random.key(i)) for i in range(2))
  assert one.dtype == jnp.float32
  assert (one != other).any()
