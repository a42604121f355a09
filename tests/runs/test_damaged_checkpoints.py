"""Damage, full disks and kills: what is lost, and what is said of it."""

import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from checkpoint_state import abstract, assert_equal, create, save

from vqjax.errors import UserError
from vqjax.runs.checkpoint import Checkpoints


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


def data_file(folder):
  # Among smaller ones that hold names and layouts, some of them no longer in use.
  return max(folder.glob('state/**/d/*'), key=lambda path: path.stat().st_size)


FILES = {
  'record': lambda folder: folder / 'record' / 'metadata',
  'names': lambda folder: folder / 'state' / '_METADATA',
  'layout': lambda folder: folder / 'state' / 'array_metadatas' / 'process_0',
  'index': lambda folder: folder / 'state' / 'manifest.ocdbt',
  'data': data_file,
  'digests': lambda folder: folder / 'digests.json',
}


def flip(path):
  """One bit of the byte in the middle, which in most files still makes sense."""
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


HARMS = {
  'truncate': lambda path: os.truncate(path, path.stat().st_size // 2),
  'delete': Path.unlink,
  'zeros': lambda path: path.write_bytes(bytes(path.stat().st_size)),
  'flip': flip,
}


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('harm', HARMS)
def test_a_damaged_checkpoint_is_moved_aside(directory, messages, file, harm):
  save(directory, 4, 6)
  HARMS[harm](FILES[file](directory / '6'))
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


def test_no_place_of_a_checkpoint_can_be_damaged_unseen(directory):
  save(directory, 4, 6)
  rng = np.random.default_rng(0)
  files = [path for path in (directory / '6').rglob('*') if path.is_file()]
  for path in files:
    if path.name in ('_CHECKPOINT_METADATA', 'commit_success.txt'):
      continue  # that it was saved, and when: nobody reads them
    content = path.read_bytes()
    for place in rng.integers(len(content), size=3):
      path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
      with Checkpoints(directory, read_only=True) as checkpoints:
        assert checkpoints.restore(abstract())[1]['step'] == 4, (path, place)
    path.write_bytes(content)
  with Checkpoints(directory, read_only=True) as checkpoints:
    assert checkpoints.restore(abstract())[1]['step'] == 6


@pytest.mark.parametrize(
  'edit',
  [
    lambda text: text.replace('"metrics"', '"metricz"'),
    lambda text: text.replace('"record"', '"recorf"'),
    lambda text: text.replace('"arrays"', '"arrayz"'),
    lambda text: f'[{text}]',
    lambda text: '[' * 10**5,
  ],
  ids=['metrics', 'record', 'arrays', 'list', 'deep'],
)
def test_a_record_that_is_still_json_is_damaged_all_the_same(directory, edit):
  save(directory, 4, 6)
  path = FILES['record'](directory / '6')
  path.write_text(edit(path.read_text()))
  with Checkpoints(directory, read_only=True) as checkpoints:
    assert checkpoints.restore(abstract())[1]['step'] == 4


def test_a_checkpoint_without_digests_is_read_through(directory):
  """As those that 0.1 wrote."""
  save(directory, 4, 6)
  for step in ('4', '6'):
    (directory / step / 'digests.json').unlink()
    record = directory / step / 'record' / 'metadata'
    record.write_text(record.read_text().replace('"digests":', '"old":'))
  data_file(directory / '6').unlink()
  with Checkpoints(directory) as checkpoints:
    assert_equal(checkpoints.restore(abstract())[0], create(4))


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
from checkpoint_state import create
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
  environment = os.environ | {'PYTHONPATH': str(Path(__file__).parents[1])}
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
