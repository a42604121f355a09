"""The causal transformers against their authors' logits, losses and gradients, and their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from generation.causal_goldens import GOLDENS, opened
from golden_data import checkpoint, compare
from networks.random_params import QUICK, compiled, random_params

from vqjax import convert
from vqjax.errors import UserError
from vqjax.generation import llamagen
from vqjax.generation.contracts import Transformer
from vqjax.generation.layout import Layout
from vqjax.generation.llamagen import GPT
from vqjax.generation.rar import RAR

SMALL = {
  'llamagen': GPT(Layout((2, 3), 5, groups=2), 3, width=16, depth=2, heads=2),
  'rar': RAR(Layout((2, 3), 5, groups=2), 3, width=16, depth=2, heads=2, mlp_width=32),
}


@pytest.mark.parametrize('name', GOLDENS)
def test_logits_losses_and_gradients_are_the_authors(name):
  golden = opened(name)
  sidecar, published = golden.sidecar, golden.published
  extra = {'orders': golden.orders} if 'orders' in golden.io else {}

  def objective(variables):
    logits = golden.model.apply(variables, golden.symbols, golden.labels, **extra)
    targets = golden.symbols
    if extra:
      targets = jnp.take_along_axis(targets, golden.orders, axis=1)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
    return -jnp.mean(log_p), (logits, targets)

  run = jax.jit(jax.value_and_grad(objective, has_aux=True), compiler_options=QUICK)
  (loss, (logits, targets)), gradient = run(golden.variables)
  # Theirs of RAR go on behind the last symbol, where nothing is predicted.
  compare(sidecar, 'logits', logits, golden.io['logits'][:, : logits.shape[1]])
  compare(sidecar, 'loss', loss, golden.io['loss'])
  if extra:
    compare(sidecar, 'labels', targets, golden.io['labels'])
    correct = np.mean(np.argmax(logits, -1) == targets, dtype=np.float32)
    compare(sidecar, 'correct', correct, golden.io['correct'])
  exported = convert.export(gradient, published.names)
  names = [name for name in golden.io if name.startswith('grad__')]
  assert names
  for gradient_name in names:
    theirs = golden.io[gradient_name]
    compare(sidecar, gradient_name, exported[gradient_name.removeprefix('grad__')], theirs)


def test_rar_reads_raster_order_unless_told_otherwise():
  golden = opened('rar_a')
  logits = compiled(golden.model)(golden.variables['params'], golden.symbols, golden.labels)
  compare(golden.sidecar, 'logits_raster', logits, golden.io['logits_raster'][:, :-1])


def inputs(model, batch=3, seed=0):
  rng = np.random.default_rng(seed)
  layout = model.layout
  symbols = rng.integers(0, layout.base, (batch, layout.length)).astype(np.int32)
  return symbols, rng.integers(0, model.num_classes + 1, batch).astype(np.int32)


@pytest.mark.parametrize('name', SMALL)
def test_decoding_with_a_cache_is_the_forward_at_every_place(name):
  """And so no place sees what comes behind it, also with several symbols a cell."""
  model = SMALL[name]
  symbols, labels = inputs(model)
  params = random_params(model, symbols, labels)

  @jax.jit
  def decode(params):
    first, cache = model.apply({'params': params}, labels, method='start')

    def step(cache, given):
      logits, cache = model.apply({'params': params}, *given, cache, method='step')
      return cache, logits

    places = jnp.arange(model.layout.length - 1)
    _, rest = jax.lax.scan(step, cache, (symbols[:, :-1].T, places))
    return jnp.concatenate([first[:, None], rest.swapaxes(0, 1)], axis=1)

  logits = compiled(model)(params, symbols, labels)
  np.testing.assert_allclose(decode(params), logits, atol=2e-5)


@pytest.mark.parametrize('name', SMALL)
def test_each_part_of_a_cell_has_rows_and_outputs_of_its_own(name):
  model = SMALL[name]
  assert isinstance(model, Transformer)
  assert model.has_null
  symbols, labels = inputs(model)
  params = random_params(model, symbols, labels)
  table = params['tok_embeddings' if name == 'llamagen' else 'embeddings']['embedding']
  head = params['output' if name == 'llamagen' else 'lm_head']['kernel']
  assert head.shape == (16, 2 * 5)
  # To NumPy before the parameters change: they are read where they lie.
  run = lambda: np.asarray(compiled(model)(params, symbols, labels))
  before = run()
  assert before.shape == (3, 12, 5)
  head[:, 5:] *= 2  # of the second symbol of every cell
  moved = np.abs(run() - before).max(axis=(0, 2)) > 1e-3
  np.testing.assert_array_equal(moved, np.arange(12) % 2 == 1)
  symbols[:] = 0
  before = run()
  table[5, :4] += 1  # symbol 0 as the second of a cell: what follows the first cell sees it
  moved = np.abs(run() - before).max(axis=(0, 2)) > 1e-3
  np.testing.assert_array_equal(moved, np.arange(12) >= 2)


@pytest.mark.parametrize('kind', [GPT, RAR])
def test_without_classes_there_is_one_row_and_one_label(kind):
  model = kind(Layout((2, 2), 5), 0, width=8, depth=1, heads=2)
  symbols, labels = np.zeros((2, 4), np.int32), np.zeros(2, np.int32)
  assert compiled(model)(random_params(model, symbols, labels), symbols, labels).shape == (2, 4, 5)


def test_the_class_turns_to_nothing_and_symbols_by_their_own_cell():
  table = llamagen.rotations(Layout((2, 3), 5, groups=2), 8)
  assert table.shape == (1 + 12, 4, 2)
  np.testing.assert_array_equal(table[0], 0)  # cosines too
  np.testing.assert_array_equal(table[1], table[2])  # parts of one cell
  angles = np.arctan2(table[..., 1], table[..., 0])
  expected = np.array([1, 0.01, 2, 0.02])  # row 1, column 2: frequencies 1 and 1 / 100
  np.testing.assert_allclose(angles[-1], expected, atol=1e-6)


def test_gpt_begins_with_every_symbol_equally_likely():
  model = SMALL['llamagen']
  symbols, labels = inputs(model)
  variables = jax.jit(model.init, compiler_options=QUICK)(jax.random.key(0), symbols, labels)
  np.testing.assert_array_equal(model.apply(variables, symbols, labels), 0)
  leaves = jax.tree.leaves(variables)
  assert all(np.std(x) == pytest.approx(0.02, rel=0.3) for x in leaves if x.ndim == 2 and x.any())


def test_rar_begins_with_blocks_that_change_nothing():
  model = SMALL['rar']
  symbols, labels = inputs(model)
  params = jax.jit(model.init, compiler_options=QUICK)(jax.random.key(0), symbols, labels)['params']
  np.testing.assert_array_equal(params['blocks_0']['adaLN_modulation']['kernel'], 0)
  shallow = model.clone(depth=0)
  expected = shallow.apply({'params': params}, symbols, labels)
  np.testing.assert_array_equal(model.apply({'params': params}, symbols, labels), expected)


@pytest.mark.parametrize('name', SMALL)
def test_dropout_draws_in_training_alone(name):
  model = SMALL[name].clone(dropout=0.5)
  if name == 'llamagen':
    model = model.clone(token_dropout=0.5, drop_path=0.5)
  symbols, labels = inputs(model)
  params = random_params(model, symbols, labels)

  @jax.jit
  def run(key):
    return model.apply({'params': params}, symbols, labels, train=True, rngs={'dropout': key})

  one, two = (run(jax.random.key(seed)) for seed in (0, 1))
  assert np.abs(one - two).max() > 1e-2
  plain = compiled(SMALL[name])(params, symbols, labels)
  np.testing.assert_array_equal(compiled(model)(params, symbols, labels), plain)


@pytest.mark.parametrize('name', SMALL)
def test_in_bfloat16_parameters_and_logits_stay_float32(name):
  model = SMALL[name].clone(dtype=jnp.bfloat16)
  symbols, labels = inputs(model)
  with jax.numpy_dtype_promotion('standard'):  # attention and flax's norms mix types
    params = random_params(model, symbols, labels)
    logits = compiled(model)(params, symbols, labels)
    first, cache = jax.eval_shape(lambda: model.apply({'params': params}, labels, method='start'))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
  assert logits.dtype == first.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(cache)} == {jnp.dtype(jnp.bfloat16)}
  exact = compiled(SMALL[name])(params, symbols, labels)
  np.testing.assert_allclose(logits, exact, atol=0.1 * np.abs(exact).max())


def test_heads_that_cannot_be_rotated_are_refused():
  symbols, labels = np.zeros((1, 4), np.int32), np.zeros(1, np.int32)
  with pytest.raises(UserError, match='a head is 6 wide; legal: a multiple of 4'):
    GPT(Layout((2, 2), 5), 1, width=12, heads=2).init(jax.random.key(0), symbols, labels)


def test_a_golden_is_of_what_its_sidecar_says():
  assert {checkpoint(name, 'generation')[2]['family'] for name in GOLDENS} == {
    'llamagen_gpt',
    'rar',
  }
