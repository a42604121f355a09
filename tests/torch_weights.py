"""Weights of the original implementations: files read without running anything, and key names."""

import json
import pickle
import re
import zipfile

import jax
import numpy as np
from golden_data import GOLDEN

_DTYPES = {'FloatStorage': np.float32, 'LongStorage': np.int64}


class _Inert(dict):
  """Stands for every class and function that a file names; takes anything, does nothing."""

  __hash__ = object.__hash__

  def __new__(cls, *args, **kwargs):
    return dict.__new__(cls)

  def __init__(self, *args, **kwargs):
    pass


def _tensor(storage, offset, shape, stride, *_):
  itemsize = storage.itemsize
  view = np.lib.stride_tricks.as_strided(
    storage[offset:], shape, [s * itemsize for s in stride], writeable=False
  )
  return view.copy()


class _Reader(pickle.Unpickler):
  def __init__(self, file, archive, root):
    super().__init__(file)
    self.archive, self.root = archive, root

  def find_class(self, module, name):
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _tensor
    if module == 'torch' and name in _DTYPES:
      return _DTYPES[name]
    return type(name, (_Inert,), {})

  def persistent_load(self, pid):
    _, dtype, key, _, _ = pid
    return np.frombuffer(self.archive.read(f'{self.root}/data/{key}'), dtype)


def read_checkpoint(name):
  """(state dict, io arrays, sidecar) of a golden checkpoint."""
  (path,) = (p for p in GOLDEN.glob(f'checkpoints/{name}.*') if p.suffix in ('.ckpt', '.pth'))
  sidecar = json.loads(path.with_suffix('.json').read_text())
  with zipfile.ZipFile(path) as archive:
    (data,) = (n for n in archive.namelist() if n.endswith('/data.pkl'))
    with archive.open(data) as file:
      content = _Reader(file, archive, data.removesuffix('/data.pkl')).load()
  prefix = sidecar['container']['key_prefix']
  weights = content[sidecar['container']['weights_at']]
  weights = {
    key.removeprefix(prefix): value
    for key, value in weights.items()
    if not key.startswith(tuple(sidecar['ignorable_prefixes']))
  }
  with np.load(path.with_suffix('.io.npz'), allow_pickle=False) as io:
    return weights, dict(io), sidecar


_NAMES = [
  (r'^(down|up)_(\d)_(block|attn)_(\d)', r'\1.\2.\3.\4'),
  (r'^(down|up)_(\d)_(downsample|upsample)', r'\1.\2.\3.conv'),
  (r'^mid_', 'mid.'),
  (r'^quantizer/codebook', 'quantize.embedding/weight'),
  (r'/(kernel|scale)$', '/weight'),
]
LDM = [(r'^(pre|post)_quant/linear', lambda m: {'pre': '', 'post': 'post_'}[m[1]] + 'quant_conv')]
TABLE_1 = [
  ('^pre_quant/linear', 'pre_quant_proj.0'),
  ('^pre_quant/norm', 'pre_quant_proj.1'),
  ('^post_quant/linear', 'post_quant_proj'),
]
PATCHGAN = [
  (r'^conv_(\d)', lambda m: f'main.{max(3 * int(m[1]) - 1, 0)}'),
  (r'^norm_(\d)', lambda m: f'main.{3 * int(m[1])}'),
]


def torch_key(path, names):
  """Path of a parameter in our tree -> key in the original's state dict."""
  head, _, rest = path.partition('/')
  prefix = head + '.' if head in ('encoder', 'decoder') else ''
  path = rest if prefix else path
  for pattern, to in (*names, *_NAMES):
    path = re.sub(pattern, to, path)
  return prefix + path.replace('/', '.')


def convert(weights, abstract, names, used=None):
  """State dict -> tree like `abstract`; every key that is taken is added to `used`."""

  def leaf(path, like):
    key = torch_key('/'.join(k.key for k in path), names)
    if used is not None:
      used.add(key)
    tensor = weights[key]
    if path[-1].key == 'kernel':  # (O, I) or (O, I, h, w); 1x1 convolutions are dense layers here
      tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
      tensor = tensor[0, 0] if tensor.ndim > like.ndim else tensor
    assert tensor.shape == like.shape, (key, tensor.shape, like.shape)
    return np.array(tensor)

  return jax.tree_util.tree_map_with_path(leaf, abstract)
