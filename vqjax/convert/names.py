"""How published checkpoints name and lay out what our trees hold: one table, read both ways.

Our paths are joined by '/', without the collection: 'encoder/down_0_block_1/conv1/kernel'. Theirs
are PyTorch's keys, 'encoder.down.0.block.1.conv1.weight'. A `Names` translates a path by rewriting
it from the first rule to the last; arrays are transposed by what the key is.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

# Norms and codebooks keep their layout, so only the kernel's last name matters for it.
_LAST: tuple[Rule, ...] = ((r'/(kernel|scale)$', '/weight'), ('/', '.'))


@dataclasses.dataclass(frozen=True)
class Names:
  """Keys and layouts of one family of checkpoints.

  Attributes:
    rules: (pattern, replacement) for `re.sub`, applied to a path in turn.
    linear: pattern of the keys of matrices; other kernels of two axes are 1x1 convolutions there.
    leading: pattern of the keys with a leading axis of length one there.
    last: the rules that end every path; those of PyTorch by default.
    torch: whether kernels are laid out as PyTorch's; flax's otherwise.
  """

  rules: tuple[Rule, ...]
  linear: str = '$^'
  leading: str = '$^'
  last: tuple[Rule, ...] = _LAST
  torch: bool = True

  def key(self, path: str) -> str:
    """Our path -> their key."""
    for pattern, replacement in (*self.rules, *self.last):
      path = re.sub(pattern, replacement, path)
    return path

  def to_ours(self, path: str, tensor: np.ndarray, ndim: int) -> np.ndarray:
    """Their tensor -> our array of `ndim` axes, as a view."""
    if re.search(self.leading, self.key(path)):
      tensor = tensor[0]
    if not path.endswith('/kernel'):
      return tensor
    if self.torch:
      # (O, I, h, w) -> (h, w, I, O); (O, I) -> (I, O). A transposed convolution's (I, O, h, w)
      # becomes (h, w, O, I), which is how ours keep it.
      tensor = tensor.transpose(*range(2, tensor.ndim), 1, 0)
    one = tensor.ndim == 4 and ndim == 2 and tensor.shape[:2] == (1, 1)
    return tensor[0, 0] if one else tensor

  def to_theirs(self, path: str, array: np.ndarray) -> np.ndarray:
    """The inverse of `to_ours`."""
    key = self.key(path)
    if path.endswith('/kernel'):
      if array.ndim == 2 and not re.search(self.linear, key):
        array = array[None, None]
      if self.torch:
        array = array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return array[None] if re.search(self.leading, key) else array


# The blocks of taming-transformers' autoencoder.
_CNN: tuple[Rule, ...] = (
  (r'/(down|up)_(\d+)_(block|attn)_(\d+)/', r'/\1.\2.\3.\4/'),
  (r'/(down|up)_(\d+)_(downsample|upsample)/', r'/\1.\2.\3.conv/'),
  (r'/mid_', '/mid.'),
)
_HEADS: tuple[Rule, ...] = (
  ('^pre_quant/linear', 'quant_conv'),
  ('^post_quant/linear', 'post_quant_conv'),
)
_CODEBOOK: tuple[Rule, ...] = (
  (r'^quantizer/(base/)?codebook$', 'quantize/embedding/weight'),
  (r'^quantizer/(base/)?transform/', 'quantize/proj/'),
)

OWN = Names((), last=(), torch=False)  # our paths, our layouts
VQGAN = Names((*_CNN, *_HEADS, *_CODEBOOK))
OPTVQ = Names((*_CNN, *_HEADS, *_CODEBOOK), linear=r'^quantize\.proj')
ROTATION_VQVAE = Names(
  (
    *_CNN,
    ('^pre_quant/linear', 'pre_quant_proj.0'),
    ('^pre_quant/norm', 'pre_quant_proj.1'),
    ('^post_quant/linear', 'post_quant_proj'),
    ('^quantizer/codebook$', 'vq/_codebook/embed'),
    ('^quantizer/learner/counts$', 'vq/_codebook/cluster_size'),
    ('^quantizer/learner/sums$', 'vq/_codebook/embed_avg'),
  ),
  linear='^(pre|post)_quant_proj',
  leading=r'^vq\._codebook\.',
)


def llamagen(levels: int) -> Names:
  """LlamaGen's keys; its decoder counts its levels from the lowest resolution."""
  middle = {'block_1': '0', 'attn_1': '1', 'block_2': '2'}

  def level(match):
    side, i, part, j = match.groups()
    i = int(i) if side == 'down' else levels - 1 - int(i)
    part = {'block': 'res', 'downsample': 'downsample.conv', 'upsample': 'upsample.conv'}.get(
      part, part
    )
    return f'/conv_blocks.{i}.{part}' + ('' if j is None else f'.{j}') + '/'

  rules = (
    (r'/(down|up)_(\d+)_([a-z]+)(?:_(\d+))?/', level),
    (r'/mid_(\w+)/', lambda match: f'/mid.{middle[match[1]]}/'),
  )
  return Names((*rules, *_HEADS, *_CODEBOOK))


VIT_VQGAN = Names(
  (
    (r'/layer_(\d+)_attn/norm/', r'/transformer.layers.\1.0.norm/'),
    (r'/layer_(\d+)_attn/', r'/transformer.layers.\1.0.fn.'),
    (r'/layer_(\d+)_ff/norm/', r'/transformer.layers.\1.1.norm/'),
    (r'/layer_(\d+)_ff/net_', r'/transformer.layers.\1.1.fn.net.'),
    (r'^((?:en|de)coder)/norm/', r'\1/transformer.norm/'),
    ('/to_patch_embedding/', '/to_patch_embedding.0/'),
    ('/to_pixel/', '/to_pixel.1/'),
    ('^(pre|post)_quant/linear/', r'\1_quant/'),
    ('^quantizer/codebook$', 'quantizer/embedding/weight'),
  ),
  linear=r'\.(to_qkv|to_out|net\.\d)\.|^(pre|post)_quant\.',
)

# The port to PyTorch in 1d-tokenizer.
MASKGIT = Names(
  (
    (r'/(down|up)_(\d+)_block_(\d+)/', r'/\1.\2.block.\3/'),
    (r'/up_(\d+)_upsample_conv/', r'/up.\1.upsample_conv/'),
    (r'/mid_(\d)/', r'/mid.\1/'),
    *_CODEBOOK,
  )
)


def maskgit_flax(levels: int, blocks: int) -> Names:
  """The keys of MaskGIT's own flax modules, which count their blocks as they are called."""

  def block(match):
    side, i, j = match[1], int(match[2]), int(match[3])
    n = i * blocks + j if side == 'encoder' else (levels - i) * blocks + j
    return f'{side}/ResBlock_{n}/'

  def middle(match):
    n = int(match[2]) + (levels * blocks if match[1] == 'encoder' else 0)
    return f'{match[1]}/ResBlock_{n}/'

  def part(match):
    kind, n = match[1], match[2]
    return f'/{"GroupNorm" if kind == "norm" else "Conv"}_{int(n) - 1}/'

  rules = (
    (r'^(encoder|decoder)/(?:down|up)_(\d+)_block_(\d+)/', block),
    (r'^(encoder|decoder)/mid_(\d)/', middle),
    (r'/(norm|conv)([12])/', part),
    ('/nin_shortcut/', '/Conv_2/'),
    (r'/up_(\d+)_upsample_conv/', lambda match: f'/Conv_{levels - int(match[1])}/'),
    ('/conv_in/', '/Conv_0/'),
    ('^encoder/conv_out/', 'encoder/Conv_1/'),
    ('^decoder/conv_out/', f'decoder/Conv_{levels}/'),
    ('/norm_out/', '/GroupNorm_0/'),
    ('^', 'params/'),
  )
  return Names(rules, last=(), torch=False)


# Discriminators, below 'loss.discriminator.'; blur kernels and counters are constants of theirs.
PATCHGAN = Names(
  (
    (r'^conv_(\d)', lambda match: f'main.{max(3 * int(match[1]) - 1, 0)}'),
    (r'^norm_(\d)', lambda match: f'main.{3 * int(match[1])}'),
    (r'/(mean|var)$', r'/running_\1'),
  )
)
STYLEGAN2 = Names(
  (
    ('(block_0|conv1|final_conv)/kernel', r'\1/0/kernel'),
    ('(block_0|conv1|final_conv)/bias', r'\1/1/bias'),
    ('(conv2|skip)/kernel', r'\1/1/kernel'),
    ('conv2/bias', 'conv2/2/bias'),
    (r'block_(\d+)/', r'blocks.\1.'),
    ('final_linear_', 'final_linear.'),
  ),
  linear=r'^final_linear\.',
)
