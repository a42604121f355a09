import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from vqjax.errors import UserError
from vqjax.runs.checkpoint import Checkpoints


@flax.struct.dataclass
class State:
  step: Any
  rng: Any
  params: Any
  opt_state: Any
  seen: Any
  ema: Any = None
  nothing: Any = ()


def create(seed=0):
  key = jax.random.key(seed)
  params = {
    'kernel': jax.random.normal(key, (16, 512)),
    'bias': jnp.arange(5, dtype=jnp.bfloat16) / 3,
    'zero': jnp.zeros((3,)),
  }
  return State(
    step=jnp.int32(seed),
    rng=jax.random.split(key, 2),
    params=params,
    opt_state=optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init(params),
    seen=jnp.uint32(2**32 - 1),
  )


def fsdp(devices):
  """Shardings of the state over some of the devices."""
  mesh = jax.make_mesh((devices,), ('x',), (AxisType.Auto,), devices=jax.devices()[:devices])
  spec = lambda leaf: PartitionSpec('x') if leaf.shape[:1] == (16,) else PartitionSpec()
  return jax.tree.map(lambda leaf: NamedSharding(mesh, spec(leaf)), jax.eval_shape(create))


def one_device():
  return jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[3]), jax.eval_shape(create))


def abstract(shardings=None):
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    jax.eval_shape(create),
    shardings or one_device(),
  )


def assert_equal(actual, expected):
  """The same structure, dtypes and bits."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    assert a.shape == b.shape
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(directory, *steps, **kwargs):
  with Checkpoints(directory, **kwargs) as checkpoints:
    for step in steps:
      checkpoints.save(step, create(step), {'seen': step})


@pytest.fixture
def directory(tmp_path):
  return tmp_path / 'checkpoints'


@pytest.fixture
def messages():
  """What the library logs, whoever has set up its logger before."""
  records = []
  handler = logging.Handler()
  handler.emit = lambda record: records.append(record.getMessage())
  logger = logging.getLogger('vqjax')
  logger.addHandler(handler)
  yield records
  logger.removeHandler(handler)


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


def data_file(folder):
  # Among smaller ones that hold names and layouts, some of them no longer in use.
  return max(folder.glob('state/**/d/*'), key=lambda path: path.stat().st_size)


FILES = {
  'record': lambda folder: folder / 'record' / 'metadata',
  'names': lambda folder: folder / 'state' / '_METADATA',
  'layout': lambda folder: folder / 'state' / 'array_metadatas' / 'process_0',
  'index': lambda folder: folder / 'state' / 'manifest.ocdbt',
  'data': data_file,
}


HARMS = [(file, harm) for file in FILES for harm in ('truncate', 'delete')]
HARMS.remove(('layout', 'delete'))  # Orbax does without this file.


@pytest.mark.parametrize(('file', 'harm'), HARMS)
def test_a_damaged_checkpoint_is_moved_aside(directory, messages, file, harm):
  save(directory, 4, 6)
  path = FILES[file](directory / '6')
  if harm == 'truncate':
    os.truncate(path, path.stat().st_size // 2)
  else:
    path.unlink()
  aside = directory.parent / 'damaged_checkpoints'

  with Checkpoints(directory, read_only=True) as checkpoints:
    assert_equal(checkpoints.restore(abstract())[0], create(4))
  assert messages[0].startswith('the checkpoint of step 6 is damaged (')
  assert messages[0].endswith('); using step 4')
  assert not aside.exists()

  with Checkpoints(directory) as checkpoints:
    state, record = checkpoints.restore(abstract())
    assert_equal(state, create(4))
    assert record == {'seen': 4, 'step': 4}
    assert messages[1].endswith(f', moved to {aside / "6"}; using step 4')
    assert checkpoints.steps() == [4]
    checkpoints.save(6, create(6), {'seen': 'again'})
  assert (aside / '6' / 'state').exists()
  with Checkpoints(directory) as checkpoints:
    assert checkpoints.restore(abstract())[1] == {'seen': 'again', 'step': 6}
  assert len(messages) == 2


def test_a_second_damaged_checkpoint_of_a_step_does_not_replace_the_first(directory):
  save(directory, 4)
  for _ in range(2):
    save(directory, 6)
    FILES['record'](directory / '6').unlink()
    with Checkpoints(directory) as checkpoints:
      checkpoints.restore(abstract())
  aside = directory.parent / 'damaged_checkpoints'
  assert sorted(path.name for path in aside.iterdir()) == ['6', '6.1']


def test_if_all_are_damaged_nothing_is_moved_and_the_user_decides(directory):
  save(directory, 4, 6)
  data_file(directory / '4').unlink()
  FILES['record'](directory / '6').write_text('{')
  with Checkpoints(directory) as checkpoints:
    for step in (None, 6):
      with pytest.raises(UserError, match=r'No whole checkpoint in .*\n  step 6: '):
        checkpoints.restore(abstract(), step)
    assert checkpoints.steps() == [4, 6]


def test_a_failure_in_the_background_is_raised_once_and_the_step_can_be_saved_again(directory):
  state = {'x': jax.device_put(jax.random.normal(jax.random.key(0), (2**18,)), jax.devices()[0])}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Checkpoints(directory) as checkpoints:
    checkpoints.save(1, state, {})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # As a full disk would.
    try:
      checkpoints.save(2, state, {}, {'psnr': 1.0})
      with pytest.raises(UserError, match=r'could not be saved .*File too large.*; make room'):
        checkpoints.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoints.steps() == [1]
    assert checkpoints.best_step() is None
    checkpoints.save(2, state, {})
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.best_step() is None


def test_close_raises_a_failure_in_the_background(directory):
  state = {'x': jax.device_put(jax.random.normal(jax.random.key(0), (2**18,)), jax.devices()[0])}
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  checkpoints = Checkpoints(directory)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
  try:
    checkpoints.save(1, state, {})
    with pytest.raises(UserError, match='could not be saved'):
      checkpoints.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


KILLED = """
import os, signal, sys
from pathlib import Path
from test_checkpoint import create
from vqjax.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(4, create(4), {'seen': 4})
checkpoints.wait()
# Dies where the finished step would get its name.
os.rename = os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save(6, create(6), {'seen': 6})
checkpoints.wait()
"""


def test_a_run_killed_while_it_saves_loses_only_that_step(directory, messages):
  environment = os.environ | {'PYTHONPATH': str(Path(__file__).parent)}
  run = subprocess.run([sys.executable, '-c', KILLED, directory], env=environment, check=False)
  assert run.returncode == -signal.SIGKILL
  unfinished = [path for path in directory.iterdir() if path.name != '4']
  assert len(unfinished) == 1

  with Checkpoints(directory, read_only=True) as checkpoints:
    assert checkpoints.steps() == [4]
  assert not messages
  assert unfinished[0].exists()

  with Checkpoints(directory) as checkpoints:
    assert messages == ['found an unfinished checkpoint of step 6; using step 4']
    state, record = checkpoints.restore(abstract())
    assert_equal(state, create(4))
    assert record == {'seen': 4, 'step': 4}
    checkpoints.save(6, create(6), {'seen': 6})
  assert sorted(path.name for path in directory.iterdir()) == ['4', '6']
