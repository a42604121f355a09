import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_state import abstract, assert_equal, create, fsdp, one_device, save

from vqjax.errors import UserError
from vqjax.runs.checkpoint import Checkpoints


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'checkpoints'


@pytest.mark.parametrize('target', [fsdp(8), fsdp(2), one_device()], ids=['8', '2', '1'])
def test_restores_every_kind_of_leaf_bit_for_bit_onto_any_devices(directory, target):
  state = jax.jit(create, out_shardings=fsdp(8))()
  record = {'config': {'name': 'x', 'lr': 0.1, 'tags': [1, None]}, 'examples_seen': 2**40}
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(7, state, record)
  with Checkpoints(directory) as checkpoints:
    restored, read = checkpoints.restore(abstract(target))
  assert read == record | {'step': 7}
  assert_equal(restored, state)
  placed = jax.tree.map(lambda x, at: x.sharding.is_equivalent_to(at, x.ndim), restored, target)
  assert all(jax.tree.leaves(placed))


def test_a_folder_without_checkpoints_restores_to_none(directory):
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.restore(abstract()) is None
    assert checkpoints.steps() == []
    assert checkpoints.best_step() is None


def test_buffers_and_record_may_change_as_soon_as_save_returns(directory):
  state = jax.device_put({'x': jnp.arange(2.0**20)}, jax.devices()[0])
  expected = np.array(state['x'])
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  overwrite = jax.jit(lambda state: {'x': state['x'] * 0 - 1}, donate_argnums=0)
  record = {'seen': 1}
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, state, record)
    record['seen'] = 2
    jax.block_until_ready(overwrite(state))
    restored, read = checkpoints.restore(target)
  np.testing.assert_array_equal(restored['x'], expected)
  assert read == {'seen': 1, 'step': 1}


def test_a_record_that_is_not_json_is_an_error_at_once(directory):
  with Checkpoints(directory) as checkpoints, pytest.raises(TypeError):
    checkpoints.save(1, create(), {'config': object()})


def test_a_step_is_saved_once(directory):
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, create(1), {'time': 'first'})
    checkpoints.save(1, create(2), {'time': 'second'})
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, create(3), {'time': 'third'})
    assert checkpoints.restore(abstract())[1] == {'time': 'first', 'step': 1}


def test_the_newest_and_the_best_are_kept(directory):
  scores = {1: 3.0, 2: 5.0, 3: 1.0, 4: 4.0, 5: np.nan, 6: None, 7: np.float32(2)}
  for steps in ((1, 2, 3, 4), (5, 6, 7)):  # Reopened in between.
    with Checkpoints(directory, keep=2) as checkpoints:
      for step in steps:
        score = scores[step]
        metrics = None if score is None else {'psnr': score, 'ssim': -score}
        checkpoints.save(step, create(step), {}, metrics)
  with Checkpoints(directory, keep=2) as checkpoints:
    assert checkpoints.steps() == [2, 6, 7]
    assert checkpoints.best_step() == 2
    assert sorted(path.name for path in directory.iterdir()) == ['2', '6', '7']
    restored, _ = checkpoints.restore(abstract(), step=2)
    assert_equal(restored, create(2))


def test_without_any_metric_only_the_newest_are_kept(directory):
  save(directory, 1, 2, 3, keep=1)
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.steps() == [3]
    assert checkpoints.best_step() is None


def test_at_least_one_is_kept(directory):
  with pytest.raises(UserError, match='is 0; legal: at least 1'):
    Checkpoints(directory, keep=0)


def test_an_absent_step_names_the_legal_ones(directory):
  save(directory, 1, 2)
  with (
    Checkpoints(directory) as checkpoints,
    pytest.raises(UserError, match=r'no checkpoint of step 3; legal: \[1, 2\]'),
  ):
    checkpoints.restore(abstract(), step=3)


def test_another_tree_is_an_error_that_lists_every_difference(directory):
  save(directory, 1, 2)
  target = abstract()
  params = dict(target.params)
  del params['zero']
  params['new'] = params['kernel']
  params['kernel'] = jax.ShapeDtypeStruct((16, 513), jnp.float32)
  params['bias'] = jax.ShapeDtypeStruct((5,), jnp.float32)
  target = target.replace(params=params, rng=jax.ShapeDtypeStruct((2, 2), jnp.uint32))
  with Checkpoints(directory) as checkpoints, pytest.raises(UserError) as caught:
    checkpoints.restore(target)
  assert str(caught.value).splitlines()[1:] == [
    '  missing: params/new float32[16, 512]',
    '  unexpected: params/zero float32[3]',
    '  different: rng is key<fry>[2], expected uint32[2, 2]',
    '  different: params/bias is bfloat16[5], expected float32[5]',
    '  different: params/kernel is float32[16, 512], expected float32[16, 513]',
  ]
  assert str(directory / '2') in str(caught.value)
  assert sorted(path.name for path in directory.iterdir()) == ['1', '2']
