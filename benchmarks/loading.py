"""Time and memory of loading a published checkpoint of 90 million parameters.

python benchmarks/loading.py [FILE]

Without FILE, files like OptVQ's are made, with random values: its tokenizer, PatchGAN and LPIPS,
90.4 million numbers, as safetensors and, where PyTorch is installed, as a .pth file. Each is loaded
in a process of its own; memory is what that process has at its peak beyond what the imports took.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

LOAD = """
import json, resource, sys, time
import jax
import vqjax.pretrained
import vqjax

jax.numpy.zeros(1).block_until_ready()
now = int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
start = time.perf_counter()
tok = vqjax.load(sys.argv[1])
jax.block_until_ready(tok.variables)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({'seconds': seconds, 'peak': peak - now}))
"""


def make(folder):
  """Writes the files; yields their paths."""
  import jax
  import numpy as np
  from safetensors.numpy import save_file

  from configs import optvq
  from vqjax import convert, networks, tokenizer
  from vqjax.convert import FORMATS

  config = optvq.get_config('model=f16_h4')
  model = tokenizer.build(config.model.to_dict(), config.quantizer.to_dict())
  random = np.random.default_rng(0)
  draw = lambda shape: random.standard_normal(shape, np.float32)
  variables = jax.tree.map(
    lambda like: draw(like.shape), jax.eval_shape(convert.initial_variables(model))
  )
  tensors = convert.export(variables, FORMATS['optvq'].names(config.model.to_dict()))
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  nets = {
    'loss.discriminator': (networks.PatchGAN(), (image,)),
    'loss.perceptual_loss': (networks.LPIPS('vgg'), (image, image)),
  }
  for name, (net, images) in nets.items():
    params = jax.eval_shape(net.init, jax.random.key(0), *images)['params']
    for i, leaf in enumerate(jax.tree.leaves(params)):
      tensors[f'{name}.{i}'] = draw(leaf.shape)
  path = folder / 'model.safetensors'
  save_file(tensors, path)
  yield path
  try:
    import torch
  except ImportError:
    print('PyTorch is not installed: no .pth file is measured')
    return
  path = folder / 'model.pth'
  torch.save({'model': {k: torch.from_numpy(v) for k, v in tensors.items()}, 'epoch': 50}, path)
  yield path


def main(paths):
  """Measures each file three times and prints the medians."""
  for path in paths:
    runs = []
    for _ in range(3):
      command = [sys.executable, '-c', LOAD, str(path)]
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = sorted(run['seconds'] for run in runs)[1]
    peak = sorted(run['peak'] for run in runs)[1]
    on_disk = path.stat().st_size
    print(
      f'{path.name}: {on_disk / 1e6:.0f} MB on disk, loaded in {seconds:.2f} s; peak '
      f'{peak / 1e6:.0f} MB beyond the imports, {peak / on_disk:.2f} times the file'
    )


if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
  if sys.argv[1:]:
    main(map(pathlib.Path, sys.argv[1:]))
  else:
    with tempfile.TemporaryDirectory() as folder:
      main(list(make(pathlib.Path(folder))))
