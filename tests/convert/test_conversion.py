"""From a published file to a run folder and back, key by key, and what is refused on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files as write
from flax import serialization, traverse_util
from golden_data import CHECKPOINTS, checkpoint
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

import vqjax
from configs import common
from vqjax import commands, convert, pretrained, tensor_files, tokenizer
from vqjax.convert import __main__ as command
from vqjax.convert import hub
from vqjax.errors import UserError
from vqjax.export import COMMAND as EXPORT
from vqjax.export import DTYPES, export
from vqjax.export import write as write_tokenizer

LDM = 'tiny_ok' if 'tiny_ok' in CHECKPOINTS else 'ldm_vq_f4_a'


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_export_gives_back_every_tensor(name):
  path, _, sidecar = checkpoint(name)
  tok = vqjax.load(path)
  tok.config.data = {'image_size': sidecar['architecture']['resolution']}
  format, tensors = export(tok)
  published = convert.open_published(path)
  assert format == published.format
  for key, tensor in published.tensors.items():
    np.testing.assert_array_equal(tensors[key], tensor, key)
  # What is no weight, such as fixed positions, has the authors' values too where they keep them.
  everything = tensor_files.read(path)
  for key in tensors.keys() - published.tensors.keys():
    theirs = [tree for tree in everything.values() if isinstance(tree, dict) and key in tree]
    assert all(np.shape(tree[key]) == tensors[key].shape for tree in theirs if 'used' not in key)


def test_the_commands_from_a_file_to_a_file(tmp_path, capsys):
  path, io, _ = checkpoint(LDM)
  run, out = tmp_path / 'run', tmp_path / 'out.safetensors'
  commands.run(command.COMMAND, [str(path), f'--out={run}'])
  said = capsys.readouterr().out
  assert 'is a checkpoint of vqgan' in said
  assert said.endswith(f'next: python eval.py --workdir={run} --data_path=FOLDER\n')
  tok = vqjax.load(run)
  assert (tok.source, tok.step) == (str(run), 0)
  x = io['x'] * 0.5 + 0.5
  np.testing.assert_array_equal(tok.encode(x), io['indices'])
  commands.run(EXPORT, [str(run), '--format=vqgan', f'--out={out}'])
  tensors = load_file(out)
  for key, tensor in convert.open_published(path).tensors.items():
    np.testing.assert_array_equal(tensors[key], tensor)
  np.testing.assert_array_equal(vqjax.load(out).encode(x), io['indices'])
  with pytest.raises(SystemExit, match='holds a run already; choose another --out'):
    commands.run(command.COMMAND, [str(path), f'--out={run}'])
  with pytest.raises(
    SystemExit, match=r'error: cannot write .*/no/x: No such file or directory; ch'
  ):
    commands.run(EXPORT, [str(run), f'--out={tmp_path}/no/x'])
  with pytest.raises(SystemExit, match=r'none that a published system can run \(llamagen: '):
    commands.run(EXPORT, [str(run), '--format=llamagen', f'--out={out}', '--overwrite'])
  assert load_file(out).keys() == tensors.keys()  # as it was
  with pytest.raises(
    SystemExit, match=r'out\.safetensors is there already; choose another --out, '
  ):
    commands.run(EXPORT, [str(run), f'--out={out}'])


def test_a_network_with_other_norms_is_not_exported():
  tok = vqjax.load(checkpoint(LDM)[0])
  tok.config.model.norm_groups = 8
  model = tokenizer.build(tok.config.model.to_dict(), tok.config.quantizer.to_dict())
  other = pretrained.Pretrained(model, tok.variables, tok.config)
  with pytest.raises(UserError, match=r'vqgan: model\.norm_groups is 8, there 32'):
    export(other, 'vqgan')


SETTINGS = {
  'vector': {'num_codes': 16, 'replacement': 'rarely_used', 'learner': 'ema'},
  'residual': {'name': 'residual', 'depth': 2, 'base': {'name': 'vector', 'num_codes': 16}},
  'fsq': {'name': 'fsq', 'levels': (5, 5, 3)},
}


@pytest.mark.parametrize('name', SETTINGS)
def test_a_file_of_ours_holds_any_tokenizer(name, tmp_path, capsys):
  network = common.model('edsr', head='none', code_dim=3)
  network.update({'channels': 8, 'num_blocks': 1, 'patch_size': 2, 'z_channels': 3})
  fields = ConfigDict({'model': network, 'quantizer': SETTINGS[name]})
  model = tokenizer.build(fields.model.to_dict(), fields.quantizer.to_dict())
  tok = pretrained.Pretrained(model, convert.initial_variables(model)(), fields)
  assert write_tokenizer(tok, tmp_path / 'whole.safetensors', 'vqjax') == 'vqjax'
  whole = vqjax.load(tmp_path / 'whole.safetensors')
  assert whole.model == tok.model
  same = functools.partial(np.testing.assert_array_equal, strict=True)  # dtypes too
  jax.tree.map(same, whole.variables, tok.variables)
  with pytest.raises(UserError, match=r'none that a .* can run .*; --format=vqjax writes'):
    export(tok)

  run = [str(tmp_path / 'whole.safetensors'), '--format=vqjax', '--dtype=float16']
  commands.run(EXPORT, [*run, f'--out={tmp_path}/half.safetensors'])
  assert 'MB under the keys of vqjax' in capsys.readouterr().out
  half = vqjax.load(tmp_path / 'half.safetensors')
  halve = lambda x: np.float32(np.float16(x)) if np.issubdtype(x.dtype, np.floating) else x
  jax.tree.map(same, half.variables, jax.tree.map(halve, tok.variables))


@pytest.mark.parametrize('dtype', DTYPES)
def test_numbers_may_have_half_precision_in_every_format(dtype, tmp_path):
  for name in [LDM, *(name for name in CHECKPOINTS if name.startswith('maskgit'))]:
    tok = vqjax.load(checkpoint(name)[0])
    for format in ('maskgit_flax',) if name.startswith('maskgit') else ('vqgan', 'vqjax'):
      path = tmp_path / f'{format}.any'
      assert write_tokenizer(tok, path, format, dtype) == format
      again = vqjax.load(path)
      round_off = lambda x: np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float32)
      expected = jax.tree.map(round_off, tok.variables)
      jax.tree.map(np.testing.assert_array_equal, again.variables, expected)


def test_metadata_of_others_are_no_concern(tmp_path):
  """Theirs may have a `config` too; a folder's config.json is what counts there."""
  tensors = dict(convert.open_published(checkpoint(LDM)[0]).tensors)
  save_file(tensors, tmp_path / 'model.safetensors', {'config': 'yaml: x'})
  assert vqjax.load(tmp_path / 'model.safetensors').model == vqjax.load(checkpoint(LDM)[0]).model
  (tmp_path / 'config.json').write_text('{"of": "theirs"}')
  assert tensor_files.read(tmp_path)['config'] == {'of': 'theirs'}


def test_a_file_of_ours_without_its_config_is_refused(tmp_path):
  save_file({f'{side}coder/x': np.ones(2, np.float32) for side in ('en', 'de')}, tmp_path / 'x')
  with pytest.raises(UserError, match=r"looks like a checkpoint of vqjax but lacks .* 'config'"):
    vqjax.load(tmp_path / 'x')


def test_what_cannot_be_written_is_named(tmp_path):
  tok = vqjax.load(checkpoint(LDM)[0])
  with pytest.raises(UserError, match="dtype is 'int8'; legal: float32, float16, bfloat16"):
    write_tokenizer(tok, tmp_path / 'x', 'vqjax', 'int8')
  assert not list(tmp_path.iterdir())


def test_numbers_beyond_half_precision_are_named(tmp_path):
  tok = vqjax.load(checkpoint(LDM)[0])
  tok.variables['params']['quantizer']['codebook'] *= 1e6
  with pytest.raises(UserError, match=r'quantizer/codebook has numbers beyond float16; legal: --d'):
    write_tokenizer(tok, tmp_path / 'x.safetensors', 'vqjax', 'float16')


def test_maskgit_of_flax_and_of_pytorch_are_one(tmp_path):
  (name,) = (name for name in CHECKPOINTS if name.startswith('maskgit'))
  tok = vqjax.load(checkpoint(name)[0])
  _, tensors = export(tok, 'maskgit_flax')
  names = set(tensors)
  assert {'params/encoder/Conv_0/kernel', 'params/decoder/Conv_3/bias'} <= names
  assert 'params/decoder/ResBlock_2/Conv_2/kernel' in names
  assert tensors['params/encoder/Conv_1/kernel'].ndim == 4
  tree = traverse_util.unflatten_dict(tensors, '/')
  (tmp_path / 'maskgit.msgpack').write_bytes(serialization.to_bytes(tree))
  again = vqjax.load(tmp_path / 'maskgit.msgpack')
  assert again.model == tok.model
  x = np.random.default_rng(0).random((1, 16, 24, 3), np.float32)
  np.testing.assert_array_equal(again.reconstruct(x), tok.reconstruct(x))


def tampered(tmp_path, change):
  """A copy of the tiny checkpoint with its state dict changed."""
  arrays = {
    k: np.asarray(v) for k, v in tensor_files.read(checkpoint(LDM)[0])['state_dict'].items()
  }
  change(arrays)
  body = write.mapping({'state_dict': write.state_dict(arrays)})
  return write.write_zip(tmp_path / 'tampered.ckpt', body, arrays)


def test_a_missing_key_is_named(tmp_path):
  path = tampered(tmp_path, lambda arrays: arrays.pop('decoder.mid.block_2.norm1.weight'))
  with pytest.raises(UserError, match=r'  missing: decoder\.mid\.block_2\.norm1\.weight') as error:
    vqjax.load(path)
  assert 'tampered.ckpt does not fit' in str(error.value)
  assert 'unexpected' not in str(error.value)


def test_an_unknown_key_is_named(tmp_path):
  key = 'encoder.mid.block_3.conv1.weight'
  path = tampered(tmp_path, lambda arrays: arrays.update({key: np.ones((2, 2), np.float32)}))
  with pytest.raises(UserError, match=r'unexpected: encoder\.mid\.block_3\.conv1\.weight \[2'):
    vqjax.load(path)


def test_a_wrong_shape_is_named_in_their_layout(tmp_path):
  def change(arrays):
    key = 'quant_conv.weight'
    arrays[key] = np.concatenate([arrays[key], arrays[key][:1]])

  with pytest.raises(UserError, match=r'quant_conv\.weight is \[4, 3, 1, 1\], expected \[3, 3'):
    vqjax.load(tampered(tmp_path, change))


def test_learned_positions_are_refused(tmp_path):
  (name,) = (name for name in CHECKPOINTS if name.startswith('vitvq'))
  content = tensor_files.read(checkpoint(name)[0])
  key = 'encoder.en_pos_embedding'
  content['state_dict'][key] = content['state_dict'][key] + np.float32(0.1)
  with pytest.raises(UserError, match=r'en_pos_embedding holds positions of its own'):
    convert.take_apart(content, 'x.ckpt')


def test_half_precision_weights_become_float32():
  content = tensor_files.read(checkpoint(LDM)[0])['state_dict']
  content = {key: np.asarray(value, np.float16) for key, value in content.items()}
  published = convert.take_apart(content, 'x')
  model = vqjax.load(checkpoint(LDM)[0]).model
  variables = convert.variables_from(published, model, 'x')
  assert variables['params']['encoder']['conv_in']['kernel'].dtype == np.float32


def test_what_is_of_no_known_system(tmp_path):
  arrays = {'layer.weight': np.ones(3, np.float32)}
  path = write.write_zip(tmp_path / 'x.pt', write.state_dict(arrays), arrays)
  with pytest.raises(UserError, match=r'x\.pt is no checkpoint of any system known here; legal'):
    vqjax.load(path)
  with pytest.raises(UserError, match=r'is no checkpoint of optvq; legal: .* keys are enc'):
    vqjax.load(checkpoint(LDM)[0], format='optvq')
  with pytest.raises(UserError, match=r"format is 'onnx'; legal: auto, rotation_vqvae"):
    vqjax.load(checkpoint(LDM)[0], format='onnx')
  path = write.write_zip(tmp_path / 'y.pt', write.mapping({'epoch': write.integer(3)}), {})
  with pytest.raises(UserError, match=r'y\.pt holds no weights; its entries are epoch'):
    vqjax.load(path)


@pytest.fixture
def download(monkeypatch):
  """Puts a function of (repository, file, local_files_only) in the place of a download."""
  monkeypatch.setattr(hub.urllib.request, 'getproxies', dict)
  monkeypatch.setattr(hub.socket, 'getaddrinfo', lambda host, port: [host])
  return lambda f: monkeypatch.setattr(hub.huggingface_hub, 'hf_hub_download', f)


def test_a_name_on_the_hub(download, tmp_path, monkeypatch):
  (name,) = (name for name in CHECKPOINTS if name.startswith('optvq_hf'))
  path, io, _ = checkpoint(name)
  download(lambda repo, part, *, local_files_only: str(path / part))
  tok = vqjax.load('owner/name')
  np.testing.assert_array_equal(tok.encode(io['x'] * 0.5 + 0.5), io['indices_nearest'])

  def fail(repo, part, *, local_files_only):
    raise hub.LocalEntryNotFoundError('no connection' if not local_files_only else 'not cached')

  download(fail)
  with pytest.raises(UserError, match=r'owner/name is no path .* could not be fetched .*no conn'):
    vqjax.load('owner/name')
  with pytest.raises(UserError, match=r'does not exist; legal: a run folder, a checkpoint file'):
    vqjax.load(tmp_path / 'nothing.ckpt')
  # The hub is not asked for what looks like a name of a folder here.
  (tmp_path / 'runs').mkdir()
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r'runs/nothing does not exist; legal: a run folder, a check'):
    vqjax.load('runs/nothing')


def test_without_a_connection_only_the_cache_is_asked(download, monkeypatch):
  (name,) = (name for name in CHECKPOINTS if name.startswith('optvq_hf'))
  path, _, _ = checkpoint(name)

  def no_address(host, port):
    raise hub.socket.gaierror(-2, 'Name or service not known')

  def cached(repo, part, *, local_files_only):
    assert local_files_only
    if repo == 'owner/cached':
      return str(path / part)
    raise hub.LocalEntryNotFoundError('not in the cache')

  download(cached)
  monkeypatch.setattr(hub.socket, 'getaddrinfo', no_address)
  vqjax.load('owner/cached')
  with pytest.raises(UserError, match=r'hub \(https://.* has no address from here'):
    vqjax.load('owner/name')
