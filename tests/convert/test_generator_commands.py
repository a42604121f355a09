"""A published generator to a run folder and back, by the commands."""

import numpy as np
import pytest
import tiny_generator
from golden_data import checkpoint

import vqjax
from vqjax import commands, convert, export
from vqjax.convert import __main__ as command
from vqjax.errors import UserError


@pytest.mark.parametrize(
  ('name', 'num_codes', 'sampler'), [('rar_a', 40, 'causal'), ('maskgit_16_a', 32, 'maskgit')]
)
def test_from_a_file_to_a_file(name, num_codes, sampler, tmp_path, capsys):
  path, run, out = checkpoint(name, 'generation')[0], tmp_path / 'run', tmp_path / 'out'
  tokenizer = tmp_path / 'tokenizer.safetensors'
  export.write(tiny_generator.tokenizer_of(num_codes), tokenizer, 'vqjax')
  commands.run(command.COMMAND, [str(path), f'--out={run}', f'--tokenizer={tokenizer}'])
  said = capsys.readouterr().out
  assert said.endswith(f'written: {run}; next: python -m vqjax.generate {run} --out=DIR\n')
  gen = vqjax.load_generator(run)
  assert (gen.step, gen.config.sampler.name, gen.config.name) == (0, sampler, path.stem)
  assert gen.config.converted.to_dict() == {
    'source': str(path),
    'format': convert.open_generator(path).format,
  }
  commands.run(export.COMMAND, [str(run), f'--out={out}'])
  published, again = convert.open_generator(path), convert.open_generator(out)
  assert published.format == again.format
  assert published.tensors.keys() == again.tensors.keys()
  for key, tensor in published.tensors.items():
    np.testing.assert_array_equal(again.tensors[key], tensor)
  same = vqjax.load_generator(out, tokenizer=tokenizer)
  assert same.weights_sha256 == gen.weights_sha256
  with pytest.raises(SystemExit, match=r"--format is 'llamagen_gpt'; legal of a .*: auto, "):
    commands.run(export.COMMAND, [str(run), f'--out={out}', '--overwrite', '--format=llamagen_gpt'])
  with pytest.raises(SystemExit, match='holds a run already; choose another --out'):
    commands.run(command.COMMAND, [str(path), f'--out={run}', f'--tokenizer={tokenizer}'])


def test_a_generator_needs_its_tokenizer(tmp_path):
  path = checkpoint('rar_a', 'generation')[0]
  with pytest.raises(SystemExit, match='of a generator its tokenizer must be named: --tokenizer='):
    commands.run(command.COMMAND, [str(path), f'--out={tmp_path / "run"}', '--format=rar'])
  with pytest.raises(SystemExit, match=r'is a generator and no tokenizer; load it by vqjax'):
    commands.run(command.COMMAND, [str(path), f'--out={tmp_path / "run"}'])


def test_an_export_says_how_many_heads_to_load_it_with(tmp_path, caplog):
  tok, out = tiny_generator.tokenizer_of(64), tmp_path / 'out'
  run = tiny_generator.write_run(tmp_path / 'run', tiny_generator.config_of(tok, image_size=8))
  export.write_generator(run, out)
  assert caplog.messages == [f'{out} does not say how many heads it has; load it with --heads=2']
  assert convert.open_generator(out, heads=2).generator['heads'] == 2


def test_symbols_of_groups_have_no_published_system(tmp_path):
  tok = tiny_generator.tokenizer_of(64)
  config = tiny_generator.config_of(tok, image_size=8)
  config.generator.digits = 2
  run = tiny_generator.write_run(tmp_path / 'run', config)
  with pytest.raises(UserError, match=r'has 2 symbols a cell, of groups or digits, which no pub'):
    export.write_generator(run, tmp_path / 'out')
