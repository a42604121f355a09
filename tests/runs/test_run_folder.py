import json
import os
import socket

import pytest

from configs import common, rot_vqvae
from vqjax.errors import UserError
from vqjax.runs.folder import difference, flatten, open_run, read_config, to_json
from vqjax.training import recipe as recipes


def config(**fields):
  config = common.default()
  config.update({'total_steps': 100, 'batch_size': 16})
  config.update_from_flattened_dict(fields)
  return config


def message(path, *args, **kwargs):
  with pytest.raises(UserError) as error:
    open_run(path, *args, **kwargs)
  return str(error.value)


def test_a_fresh_folder_then_the_same_config_again(tmp_path):
  workdir = tmp_path / 'runs' / 'one'
  for _ in range(2):
    assert open_run(str(workdir), config()) == (workdir, {})
    assert [file.name for file in workdir.iterdir()] == ['config.json']
    folder, read = read_config(workdir)
    assert folder == workdir
    assert read.to_dict() == to_json(config())


def test_what_may_change_when_a_run_resumes(tmp_path):
  open_run(tmp_path, config())
  new = config(
    **{'total_steps': 200, 'eval_every': 7, 'mesh.fsdp': 2, 'data.path': '/elsewhere'},
  )
  del new.log_every
  new.log_every_percent = 1
  expected = {
    'data.path': (config().data.path, '/elsewhere'),
    'eval_every': (5000, 7),
    'log_every': (50, None),
    'log_every_percent': (None, 1),
    'mesh.fsdp': (1, 2),
    'total_steps': (100, 200),
  }
  assert open_run(tmp_path, new, write=False) == (tmp_path, expected)
  assert read_config(tmp_path)[1].total_steps == 100
  assert open_run(tmp_path, new) == (tmp_path, expected)
  assert read_config(tmp_path)[1].to_dict() == to_json(new)


def test_a_folder_is_free_until_it_has_a_checkpoint(tmp_path):
  open_run(tmp_path, config())
  (tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp').mkdir(parents=True)  # not finished
  other = config(**{'data.image_size': 64})
  assert set(open_run(tmp_path, other)[1]) == {'data.image_size'}
  assert read_config(tmp_path)[1].data.image_size == 64


def test_another_config_is_another_run(tmp_path):
  open_run(tmp_path, config())
  (tmp_path / 'checkpoints' / '4').mkdir(parents=True)
  fields = {
    'optimizer.learning_rate': 0.5,
    'model.channel_mult': (1, 2),
    'data.image_size': 64,
    'total_steps': 200,
  }
  assert message(tmp_path, config(**fields)) == (
    f'{tmp_path} belongs to a run with another config (data.image_size: '
    f'{config().data.image_size} there, 64 now; model.channel_mult: [1, 2, 4] there, [1, 2] now; '
    'optimizer.learning_rate: 0.0 there, 0.5 now); choose another --workdir, use the values it '
    'has, or add --allow_config_change to go on with the new ones.'
  )
  assert read_config(tmp_path)[1].total_steps == 100  # nothing was written

  _, changes = open_run(tmp_path, config(**fields), allow_config_change=True)
  assert set(changes) == set(fields)
  assert changes['optimizer.learning_rate'] == (0.0, 0.5)
  assert open_run(tmp_path, config(**fields)) == (tmp_path, {})


def test_folders_that_are_no_runs(tmp_path):
  file = tmp_path / 'file'
  file.write_text('hello')
  end = 'choose another with --workdir=...'
  assert message(file, config()) == f'cannot make the run folder {file}: File exists; {end}'
  assert message(file / 'run', config()) == (
    f'cannot make the run folder {file / "run"}: Not a directory; {end}'
  )
  assert file.read_text() == 'hello'

  lost = tmp_path / 'lost'
  (lost / 'checkpoints').mkdir(parents=True)
  expected = f'{lost} holds checkpoints but no config.json; choose another --workdir=...'
  assert message(lost, config()) == message(lost, config(), write=False) == expected

  full = tmp_path / 'full'
  # Anything that cannot be written.
  (full / f'.config.json.{socket.gethostname()}.{os.getpid()}').mkdir(parents=True)
  assert message(full, config()) == (
    f'cannot write {full}/config.json: Is a directory; choose another --workdir=...'
  )


def test_reading_what_is_no_config(tmp_path):
  def message():
    with pytest.raises(UserError) as error:
      read_config(tmp_path)
    return str(error.value)

  path = tmp_path / 'config.json'
  assert message() == (
    f'{path} does not exist; name the folder of a run of train.py or of vqjax.convert.'
  )
  for content in ('{"seed": 1', '[1, 2]', '3', '', '{"seed": \udcff}'):
    path.write_bytes(content.encode(errors='surrogateescape'))
    assert message().startswith(f'{path} cannot be read: '), content
  path.unlink()
  path.mkdir()
  assert message().startswith(f'{path} cannot be read: ')


def test_a_config_from_json_builds_the_same_recipe(tmp_path):
  original = rot_vqvae.get_config('demo')
  open_run(tmp_path, original)
  _, read = read_config(tmp_path)
  assert read.model.pixel_mean == [0.4815, 0.4578, 0.4082]  # JSON has no tuples
  assert original.model.pixel_mean == (0.4815, 0.4578, 0.4082)
  assert flatten(read) == flatten(original)
  assert json.loads((tmp_path / 'config.json').read_text()) == to_json(original)
  built = [recipes.build(c).tokenizer for c in (original, read)]
  assert built[0] == built[1]
  assert hash(built[0]) == hash(built[1])


def test_flatten_and_difference():
  old = flatten({'a': 1, 'b': {'c': (1, 2), 'd': {'e': 'x'}}})
  assert old == {'a': 1, 'b.c': [1, 2], 'b.d.e': 'x'}
  new = {'a': 2, 'b.c': [1, 2], 'f': 0}
  assert difference(old, new) == {'a': (1, 2), 'b.d.e': ('x', None), 'f': (None, 0)}


def test_a_config_that_is_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'config.json')
  with pytest.raises(UserError, match=r'config.json cannot be read: it is no regular file'):
    read_config(tmp_path)
