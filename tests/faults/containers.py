"""A small file of every container that is read, with the keys of a published system."""

import pickle

import numpy as np
import torch_files as write
from flax import serialization, traverse_util
from safetensors.numpy import save_file

# What tells a checkpoint of taming-transformers from others, and one of MaskGIT's own.
_KEYS = ('quantize.embedding.weight', 'quant_conv.weight', 'encoder.down.0.block.0.conv1.weight')
ARRAYS = {key: np.arange(24, dtype=np.float32).reshape(4, 6) for key in _KEYS}
_TREE = {'params/encoder/ResBlock_0/Conv_0/kernel': np.ones((3, 3, 2, 4), np.float32)}


def write_all(folder):
  """Their paths."""
  plain = {name: array.copy() for name, array in ARRAYS.items()}
  body = write.mapping({'state_dict': write.state_dict(ARRAYS), 'step': write.integer(3)})
  legacy = write.mapping({'state_dict': write.state_dict(ARRAYS, legacy=True)})
  paths = [
    write.write_zip(folder / 'zip.ckpt', body, ARRAYS),
    write.write_legacy(folder / 'legacy.ckpt', legacy, ARRAYS),
    *(folder / name for name in ('tensors.safetensors', 'flax.msgpack', 'numpy.pkl', 'fid.npz')),
    folder / 'deflated.npz',
  ]
  save_file(plain, paths[2], {'format': 'pt'})
  tree = traverse_util.unflatten_dict(_TREE, '/')
  paths[3].write_bytes(serialization.to_bytes(tree))
  paths[4].write_bytes(pickle.dumps({'state_dict': plain, 'epoch': 1}, 3))
  statistics = {'mu': np.zeros(8), 'sigma': np.eye(8), 'count': np.asarray(9)}
  np.savez(paths[5], **statistics)
  np.savez_compressed(paths[6], **statistics)
  return paths
