"""Damaged and hostile checkpoints of every container: one sentence or arrays, in bounded memory."""

import json
import os
import struct
import zipfile

import containers
import numpy as np
import pytest
import torch_files as write
from flax import serialization
from golden_data import CHECKPOINTS, checkpoint

from benchmarks import mutations
from vqjax import tensor_files

SMALL = 2**20
MIB = 2**20


def test_mutations_are_of_the_seed_alone(tmp_path):
  for path in containers.write_all(tmp_path):
    content = path.read_bytes()
    made = [mutations.mutated(content, seed) for seed in range(40)]
    assert made == [mutations.mutated(content, seed) for seed in range(40)]
    assert len(set(made)) > 30


def test_whole_files_are_arrays(tmp_path):
  for path in containers.write_all(tmp_path):
    assert mutations.outcome(path).kind == 'arrays', path


@pytest.mark.parametrize('container', range(7))
def test_mutations_of_every_container(tmp_path, container):
  counts, violations, _ = mutations.run(containers.write_all(tmp_path)[container], range(60))
  assert not violations
  assert counts['UserError'] > 20
  assert set(counts) <= {'UserError', 'arrays'}


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_mutations_of_published_checkpoints(name):
  path = checkpoint(name)[0]
  path = path / 'model.safetensors' if path.is_dir() else path
  _, violations, _ = mutations.run(path, range(10))
  assert not violations


def test_what_is_measured_is_memory_that_was_used(tmp_path, monkeypatch):
  def read(path):
    return np.ones(300 * MIB // 8)

  monkeypatch.setattr(tensor_files, 'read', read)
  (tmp_path / 'x').write_bytes(b'')
  found = mutations.outcome(tmp_path / 'x')
  assert 290 * MIB < found.memory < 400 * MIB
  assert mutations.wrong(found, 0).startswith('300 MiB for')


def pickled(path, body):
  path.write_bytes(write.PROTOCOL + body + write.STOP)
  return path


def zipped(path, body, arrays=()):
  return write.write_zip(path, write.mapping({'state_dict': body}), dict(arrays))


def nested(opcode, count):
  """A tuple of a tuple of a tuple ..., each twice the one before: it has 2^count parts."""
  return b')' + (b'2' + opcode) * count


ONES = np.ones(24 * 1024 // 4, np.float32)
REFUSED = {}


def refused(make):
  REFUSED[make.__name__.replace('_', ' ')] = make
  return make


@refused
def a_dict_copied_in_every_call(path):
  pairs = b']q\1(' + b''.join(write.text(f'{i}') + b'N\x86' for i in range(1000)) + b'e'
  return pickled(
    path,
    b'('
    + pairs
    + write.named('collections', 'OrderedDict')
    + b'q\2'
    + b'h\2h\1\x85R' * 50_000
    + b't',
  )


@refused
def arguments_copied_in_every_call(path):
  many = b'(' + b'N' * 10_000 + b'tq\1' + write.named('io', 'Thing') + b'q\2'
  return pickled(path, b'(' + many + b'h\2h\1R' * 100_000 + b't')


@refused
def a_class_for_every_name(path):
  return pickled(path, b'(' + b''.join(b'cio\n%d\n' % i for i in range(200_000)) + b't')


@refused
def empty_sets(path):
  return pickled(path, b'(' + b'\x8f' * 3_000_000 + b't')


@refused
def a_tuple_of_tuples_as_a_key(path):
  return pickled(path, b'}' + nested(b'\x86', 100) + b'Ns')


@refused
def a_tuple_of_tuples_as_a_storage(path):
  return zipped(path, nested(b'\x86', 100) + b'Q')


@refused
def a_tuple_of_tuples_as_a_shape(path):
  body = write.storage('a', ONES.dtype, ONES.size) + b'K\0' + nested(b'\x86', 100) + b')'
  return zipped(path, write.call('torch._utils', '_rebuild_tensor', body), {'a': ONES})


@refused
def codes_that_are_one_code(path):
  body = write.tensor('a', ONES, shape=(10**9, 6), stride=(0, 1))
  return zipped(path, write.mapping({'quantize.embedding.weight': body}), {'a': ONES})


@refused
def a_storage_in_a_thousand_tensors(path):
  body = {f'{i}': write.tensor('a', np.ones(SMALL, np.float32)) for i in range(1000)}
  return zipped(path, write.mapping(body), {'a': np.ones(SMALL, np.float32)})


@refused
def a_side_of_nothing_beside_a_giant_one(path):
  body = write.tensor('a', ONES, shape=(2**31 - 1, 0), stride=(0, 0))
  return zipped(path, write.mapping({'x': body}), {'a': ONES})


@refused
def a_length_that_is_not_there(path):
  return pickled(path, b'\x8e' + struct.pack('<Q', 2**40))


@refused
def a_pickle_that_unpacks_without_end(path):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    archive.writestr('archive/data.pkl', bytes(100 * MIB))
  return path


@refused
def an_encrypted_storage(path):
  content = zipped(path, write.tensor('a', ONES), {'a': ONES}).read_bytes()
  path.write_bytes(content.replace(b'PK\1\2\x14\3\x14\0\0\0\0\0', b'PK\1\2\x14\3\x14\0\1\0\0\0'))
  return path


@refused
def an_unknown_compression(path):
  content = zipped(path, write.tensor('a', ONES), {'a': ONES}).read_bytes()
  path.write_bytes(content.replace(b'PK\1\2\x14\3\x14\0\0\0\0\0', b'PK\1\2\x14\3\x14\0\0\0\x63\0'))
  return path


@refused
def one_bit_of_a_storage(path):
  content = bytearray(zipped(path, write.tensor('a', ONES), {'a': ONES}).read_bytes())
  content[content.index(ONES.tobytes()) + 5000] ^= 1
  path.write_bytes(content)
  return path


@refused
def a_directory_of_many_entries(path):
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('data.pkl', b'')
  content = path.read_bytes()
  start = content.index(b'PK\1\2')
  entries = content[start : content.index(b'PK\5\6')] * 200_000
  end = struct.pack('<4s4HIIH', b'PK\5\6', 0, 0, 65535, 65535, len(entries), start, 0)
  path.write_bytes(content[:start] + entries + end)
  return path


@refused
def safetensors_of_a_giant_shape(path):
  entry = {'x': {'dtype': 'F32', 'shape': [0, 2**50], 'data_offsets': [0, 0]}}
  header = json.dumps(entry).encode()
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  return path


@refused
def safetensors_of_many_names(path):
  entries = {f'{i}': {'dtype': 'U8', 'shape': [0], 'data_offsets': [0, 0]} for i in range(100_000)}
  header = json.dumps(entries).encode()
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  return path


@refused
def msgpack_of_lists_within_lists(path):
  count = 500
  lists = b''.join(b'\xdd' + struct.pack('>I', 2 * SMALL) for _ in range(count))
  path.write_bytes(lists + bytes(2 * SMALL))
  return path.rename(path.with_suffix('.msgpack'))


@refused
def msgpack_of_empty_dicts(path):
  many = b'\xdc' + struct.pack('>H', 4000) + b'\x80' * 4000
  path.write_bytes(b'\xdc' + struct.pack('>H', 1000) + many * 1000)
  return path.rename(path.with_suffix('.msgpack'))


@refused
def msgpack_of_objects(path):
  content = serialization.to_bytes({'x': np.ones(3, np.float32)})
  path.write_bytes(content.replace(b'\xa7float32', b'\xa7object_'))
  return path.rename(path.with_suffix('.msgpack'))


@refused
def npz_of_a_giant_shape(path):
  with zipfile.ZipFile(path.with_suffix('.npz'), 'w') as archive:
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }\n"
    for name in ('mu', 'sigma'):
      archive.writestr(
        f'{name}.npy', b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header.encode()
      )
  return path.with_suffix('.npz')


@refused
def npz_that_unpacks_without_end(path):
  path = path.with_suffix('.npz')
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    archive.writestr('mu.npy', bytes(100 * MIB))
    archive.writestr('sigma.npy', b'')
  return path


@refused
def parts_within_themselves(path):
  """A tree of flax's with itself as a branch."""
  body = b'}q\0(' + write.text('params') + b'}q\1(' + write.text('a') + b'h\1uu'
  return pickled(path, body)


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_made_to_deceive_is_refused(tmp_path, name):
  path = REFUSED[name](tmp_path / 'x')
  found = mutations.outcome(path)
  assert not mutations.wrong(found, path.stat().st_size)
  assert found.message.startswith(str(path))


def test_a_pickle_of_a_million_tuples_within_one_another_is_read(tmp_path):
  path = pickled(tmp_path / 'x', b'}' + write.text('x') + b')' + b'\x85' * 100_000 + b's')
  assert not mutations.wrong(mutations.outcome(path), path.stat().st_size)


def test_a_pipe_is_no_checkpoint(tmp_path):
  os.mkfifo(tmp_path / 'x')
  found = mutations.outcome(tmp_path / 'x')
  assert 'is no regular file' in found.message


def test_what_a_file_calls_its_parts_is_no_line_of_the_terminal(tmp_path):
  body = write.mapping({'\x1b[31m\nerror: none': write.tensor('a', ONES)})
  found = mutations.outcome(zipped(tmp_path / 'x', body, {'a': ONES}))
  assert '\\x1b[31m\\nerror: none' in found.message
