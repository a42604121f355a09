"""Photographs out of GCompris's package: a made-up one."""

import io
import os
import pathlib
import struct

import numpy as np
import pytest
from PIL import Image

from studies import photographs, qt_resources
from vqjax import commands
from vqjax.errors import UserError


def collection(files, flags=0, version=3):
  """A Qt resource collection of {path: content}; `flags` of every file."""
  tree = {}
  for path, content in files.items():
    at = tree
    *folders, name = path.strip('/').split('/')
    for folder in folders:
      at = at.setdefault(folder, {})
    at[name] = content
  nodes, names, data = [[b'', 2, tree]], b'', b''
  packed = b''
  children = 1
  for name, _, content in nodes:
    text = name.encode('utf-16-be') if isinstance(name, str) else b''
    at, names = len(names), names + struct.pack('>HI', len(text) // 2, 7) + text
    if isinstance(content, dict):
      nodes += [[child, 2, below] for child, below in content.items()]
      packed += struct.pack('>IHII', at, 2, len(content), children)
      children += len(content)
    else:
      packed += struct.pack('>IHII', at, flags, 0, len(data))
      data += struct.pack('>I', len(content)) + content
    packed += b'\0' * 8 * (version > 1)
  head = 24 if version > 2 else 20
  offsets = (head, head + len(packed), head + len(packed) + len(data))
  return (
    struct.pack('>4sIIII', b'qres', version, *offsets).ljust(head, b'\0') + packed + data + names
  )


def picture(seed, size=(240, 220), alpha=255):
  rng = np.random.default_rng(seed)
  small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
  large = small.resize(size, Image.Resampling.BICUBIC)
  large.putalpha(alpha)
  buffer = io.BytesIO()
  large.save(buffer, 'webp', quality=90)
  return buffer.getvalue()


@pytest.mark.parametrize('version', [1, 2, 3])
def test_files_of_a_collection(version):
  files = {'/a/b/one.webp': b'1', '/a/two': b'22', '/three': b''}
  assert dict(qt_resources.files(collection(files, version=version))) == files
  assert not dict(qt_resources.files(collection(files, flags=4, version=version)))  # compressed


@pytest.mark.parametrize(
  'broken', [b'', b'qres', b'RIFF' + bytes(40), collection({'/a': b''})[:30]]
)
def test_what_is_no_collection_is_an_error(broken):
  with pytest.raises(ValueError, match='Qt resource collection'):
    list(qt_resources.files(broken))


@pytest.fixture
def unpacked(tmp_path):
  """As dpkg -x leaves it: 30 photographs of an activity, and what is none."""
  root = tmp_path / 'unpacked'
  (root / 'usr/share/doc' / photographs.PACKAGE).mkdir(parents=True)
  (root / 'usr/share/doc' / photographs.PACKAGE / 'copyright').write_text('free')
  (root / 'usr/share/rcc').mkdir()
  below = '/gcompris/src/activities/'
  animals = {f'{below}erase/resource/{i:02}.webp': picture(i) for i in range(30)}
  others = {
    f'{below}erase/resource/small.webp': picture(40, (240, 190)),
    f'{below}erase/resource/cut_out.webp': picture(41, alpha=128),
    f'{below}erase/resource/readme.txt': b'text',
    f'{below}chess/resource/board.webp': picture(42),
  }
  (root / 'usr/share/rcc/erase.rcc').write_bytes(collection(animals | others))
  again = {
    f'{below}details/resource/image/05_background.webp': picture(50),  # by name
    f'{below}details/resource/image/tower.webp': picture(6, (300, 275)),  # by looks
  }
  (root / 'usr/share/rcc/details.rcc').write_bytes(collection(again))
  return root


def test_photographs_are_told_from_what_else_there_is(unpacked):
  found = photographs.photographs(unpacked)
  assert list(found) == [
    'details/resource/image/05_background.webp',
    'details/resource/image/tower.webp',
    *(f'erase/resource/{i:02}.webp' for i in range(30)),
  ]
  assert found['erase/resource/07.webp'] == picture(7)


def test_one_scene_is_not_divided(unpacked):
  scenes = photographs.scenes(photographs.photographs(unpacked))
  assert [scene for scene in scenes if len(scene) > 1] == [
    ['details/resource/image/05_background.webp', 'erase/resource/05.webp'],
    ['details/resource/image/tower.webp', 'erase/resource/06.webp'],
  ]
  assert len(scenes) == 30


def names(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.webp'))


@pytest.fixture
def debian(unpacked, tmp_path, monkeypatch):
  """Stand-ins for apt-get and dpkg; gives what to write into the first."""
  (tmp_path / 'bin').mkdir()

  def program(name, lines):
    path = tmp_path / 'bin' / name
    path.write_text(f'#!/bin/sh\n{lines}\n')
    path.chmod(0o755)

  program('dpkg', f'[ "$1" = -x ] && cp -r {unpacked}/. "$3"')
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  return lambda lines: program('apt-get', lines)


def start(tmp_path):
  commands.run(photographs.COMMAND, [str(tmp_path / 'out')])


def test_the_command_writes_both_sides_and_the_licences(debian, tmp_path, capsys):
  debian('[ "$1 $2" = "download gcompris-qt-data" ] && echo deb > gcompris-qt-data_9-9_all.deb')
  start(tmp_path)
  train, val = names(tmp_path / 'out/train'), names(tmp_path / 'out/val')
  assert len(train) == 29
  # Every tenth scene from the sixth on; the first two hold two photographs each.
  assert val == [f'erase/resource/{i}.webp' for i in ('03', '15', '25')]
  assert (tmp_path / 'out/copyright').read_text() == 'free'
  assert (tmp_path / 'out/val/erase/resource/15.webp').read_bytes() == picture(15)
  assert 'is of version 9-9 with 32 photographs' in capsys.readouterr().out
  assert sorted(path.name for path in tmp_path.iterdir()) == ['bin', 'out', 'unpacked']
  with pytest.raises(SystemExit, match='out is there already; remove it, or'):
    start(tmp_path)


def test_large_photographs_are_shrunk_without_loss(unpacked, tmp_path):
  photographs.write(unpacked, tmp_path / 'out', 200)
  path = tmp_path / 'out/train/details/resource/image/tower.webp'
  with Image.open(path) as shrunk:
    assert shrunk.size == (218, 200)
    with Image.open(io.BytesIO(picture(6, (300, 275)))) as original:
      expected = original.convert('RGB').resize((218, 200), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(shrunk.convert('RGB'), expected)
  photographs.write(unpacked, tmp_path / 'small', 260)
  as_it_was = tmp_path / 'small/train/erase/resource/07.webp'
  assert as_it_was.read_bytes() == picture(7)


@pytest.mark.parametrize(
  ('lines', 'message'),
  [
    ('echo x > gcompris-qt-data_3.1-2_all.deb', r'3\.1-2_all\.deb has sha256 73cb3858.*, not e9cf'),
    (
      'echo "E: Unable to locate package gcompris-qt-data" >&2; exit 100',
      r'^error: apt-get download gcompris-qt-data: Unable to locate package gcompris-qt-data; run',
    ),
    ('exit 7', 'exit status 7; run'),
  ],
)
def test_a_package_that_does_not_come_is_said_in_one_sentence(debian, tmp_path, lines, message):
  debian(lines)
  with pytest.raises(SystemExit, match=message):
    start(tmp_path)
  assert not (tmp_path / 'out').exists()


def test_a_machine_without_apt_is_told_so(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(SystemExit, match=r'^error: apt-get is not on this machine, which Debian'):
    start(tmp_path)


def test_an_empty_or_broken_package_is_said_in_one_sentence(tmp_path):
  with pytest.raises(UserError, match='has no photographs in it'):
    photographs.write(tmp_path, tmp_path / 'out')
  pathlib.Path(tmp_path, 'x.rcc').write_bytes(b'qres')
  with pytest.raises(UserError, match=r'^x\.rcc of gcompris-qt-data cannot be read: '):
    photographs.write(tmp_path, tmp_path / 'out')
