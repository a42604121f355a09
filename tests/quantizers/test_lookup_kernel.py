"""The kernel for NVIDIA GPUs, interpreted on a CPU, is the scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqjax.quantizers import nearest_code

# Newer JAX may come without Pallas' Triton backend.
kernel = pytest.importorskip('vqjax.quantizers.lookup_kernel', exc_type=ImportError)
search = functools.partial(kernel.nearest_code, scan=nearest_code, interpret=True)


def draw(rows, codes, width):
  keys = jax.random.split(jax.random.key(0))
  return jax.random.normal(keys[0], (rows, width)), jax.random.normal(keys[1], (codes, width))


@pytest.mark.parametrize(
  'shape', [(1, 1, 1), (64, 64, 16), (200, 130, 3), (65, 300, 64), (130, 63, 20), (3, 70, 128)]
)
def test_equals_the_scan(shape):
  z, codes = draw(*shape)
  index = search(z, codes)
  assert index.dtype == jnp.int32
  np.testing.assert_array_equal(index, nearest_code(z, codes))


def test_ties_go_to_the_first_code_within_a_block_and_beyond():
  z, codes = draw(70, 40, 6)
  z = z.at[3].set(0)
  codes = codes.at[7].set(0).at[21].set(0)  # all that is as near to the row of zeros
  index = search(z, jnp.concatenate([codes] * 4))
  np.testing.assert_array_equal(index, nearest_code(z, codes))
  assert index[3] == 7


def test_padding_of_the_codes_does_not_win():
  z, codes = -jnp.ones((3, 4)), 100 * jnp.ones((5, 4)) + jnp.arange(5.0)[:, None]
  np.testing.assert_array_equal(search(z, codes), [0, 0, 0])


def test_row_that_is_not_finite_gets_a_code_and_spoils_no_other():
  z, codes = draw(9, 5, 4)
  bad = z.at[2].set(jnp.nan).at[5].set(jnp.inf).at[6, 0].set(-jnp.inf)
  index = np.asarray(search(bad, codes))
  assert (index >= 0).all()
  assert (index < 5).all()
  good = [0, 1, 3, 4, 7, 8]
  np.testing.assert_array_equal(index[good], nearest_code(z, codes)[np.array(good)])


@pytest.mark.parametrize('codes_sharded', [False, True])
def test_sharded_rows_stay_in_place(codes_sharded):
  mesh = jax.make_mesh((4, 2), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
  z, codes = draw(256, 104, 6)
  spec = PartitionSpec('fsdp') if codes_sharded else PartitionSpec()
  rows = jax.device_put(z, NamedSharding(mesh, PartitionSpec(('data', 'fsdp'))))
  held = jax.device_put(codes, NamedSharding(mesh, spec))
  compiled = jax.jit(search).lower(rows, held).compile()
  index = compiled(rows, held)
  np.testing.assert_array_equal(index, nearest_code(z, codes))
  assert index.sharding.is_equivalent_to(rows.sharding, 1)
  gathered = [line for line in compiled.as_text().splitlines() if ' all-gather(' in line]
  assert bool(gathered) == codes_sharded
  assert not any('f32[256' in line for line in gathered)  # the rows


def test_under_shard_map():
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  z, codes = draw(128, 20, 3)
  rows, whole = PartitionSpec('data'), PartitionSpec()
  each = jax.shard_map(search, mesh=mesh, in_specs=(rows, whole), out_specs=rows, check_vma=False)
  np.testing.assert_array_equal(jax.jit(each)(z, codes), nearest_code(z, codes))


def test_the_scan_runs_under_vmap():
  z, codes = draw(48, 40, 6)
  index = jax.vmap(search)(z.reshape(4, 12, 6), codes.reshape(4, 10, 6))
  expected = jax.vmap(nearest_code)(z.reshape(4, 12, 6), codes.reshape(4, 10, 6))
  np.testing.assert_array_equal(index, expected)
  index = jax.vmap(search, (0, None))(z.reshape(4, 12, 6), codes)
  np.testing.assert_array_equal(index.reshape(-1), nearest_code(z, codes))


def test_only_where_it_is_asked_for_and_only_on_nvidia():
  def primitives(width, **kwargs):
    z, codes = draw(64, 40, width)
    return str(jax.make_jaxpr(functools.partial(nearest_code, **kwargs))(z, codes))

  assert 'pallas_call' not in primitives(8)
  assert 'pallas_call' in primitives(8, kernel=True)
  assert 'pallas_call' not in primitives(kernel.MAX_WIDTH + 1, kernel=True)
  z, codes = draw(64, 40, 8)
  objective = lambda z, c: jnp.sum(c[nearest_code(z, c, kernel=True)] ** 2)
  grads = jax.jit(jax.grad(objective, (0, 1)))(z, codes)  # on this CPU it is the scan
  assert (grads[0] == 0).all()
  np.testing.assert_array_equal(nearest_code(z, codes, kernel=True), nearest_code(z, codes))


def test_it_compiles_to_one_call_of_triton():
  if jax.__version_info__ >= (0, 11):
    pytest.skip('JAX lowers for a GPU only where there is one, and warns of Triton')
  search = jax.jit(functools.partial(nearest_code, kernel=True))
  text = search.trace(*draw(100, 300, 20)).lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('xla.gpu.triton') == 1
  assert 'stablehlo.dot_general' not in text  # nothing is left to XLA
