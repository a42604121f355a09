r"""LlamaGen's transformer: a class, then token after token.

Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation
(arXiv 2406.06525).

  python train.py --config=configs/llamagen_gpt.py                   # B, 256 pixels
  python train.py --config=configs/llamagen_gpt.py:model=b|l|xl|xxl|3b,size=256|384
  python train.py --config=configs/llamagen_gpt.py:demo              # digits, two CPU cores
  python train.py --config=configs/llamagen_gpt.py:demo,data=photos  # photographs, no classes

The demo of digits has a tokenizer of its own, which it needs first:
python train.py --config=configs/llamagen.py:demo,data=digits

Data: ImageNet as tokens of LlamaGen's tokenizer VQ-16 (configs/llamagen.py). As published, ten
crops of every image, of which each visit draws one: --config.tokens.path, a folder that
`python -m vqjax.tokenize SOURCE --out=DIR --augment=ten_crop` wrote. Or --config.data.path and
--config.tokenizer, and images are tokenized while training: the shorter side to 1.1 times the size,
cropped anywhere, mirrored.

Expected, by the authors, images of 384 pixels resized to 256, ADM's evaluator: FID 6.09 (B), 3.07
(L), 2.62 (XL), 2.34 (XXL), 2.18 (3B), with guidance of 2.0, 2.0, 1.75, 1.75, 1.65; at 256 pixels
5.46 (B) and 3.80 (L). Their checkpoints load with `vqjax.load_generator`. We have not trained this
at full size; no figure of ours stands here yet.

Hardware: published at batch 256, 300 epochs, bfloat16, on 8 GPUs or more.

Deviations: one folder of crops, at 1.1 times the size, where the original may draw from a second
one at 1.05; its trainers' defaults, as settings of each published size are not known.
"""

from configs import common, generation
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.llamagen import SIZES
from vqjax.generation.objectives import Causal

GUIDANCE = {'b': 2.0, 'l': 2.0, 'xl': 1.75, 'xxl': 1.75, '3b': 1.65}


def get_config(arg=''):
  """`demo`, `data=digits|photos` of the demo, `model=b|l|xl|xxl|3b`, `size=256|384`."""
  arg = common.parse_arg(
    arg, demo=False, data=('digits', 'photos'), model=tuple(GUIDANCE), size=('256', '384')
  )
  config = generation.default(
    'llamagen',
    CausalSampler(guidance=GUIDANCE[arg.model]),
    Causal(),
    **SIZES[arg.model.upper()],
    token_dropout=0.1,
    dropout=0.1,
    drop_path=0.0,
  )
  config.name = f'llamagen_gpt_{arg.model}_{arg.size}'
  common.epochs(config, 300)
  config.batch_size = 256

  size = int(arg.size)
  config.data.image_size = size
  for split in (config.data.train, config.data.eval):
    split.filter, split.antialias = 'box_bicubic', True
  config.data.train.resize_size = int(1.1 * size)
  config.data.train.flip = True

  config.optimizer.learning_rate = 1e-4
  config.optimizer.b2 = 0.95
  config.optimizer.weight_decay = 0.05
  config.optimizer.weight_decay_on = 'matrices'
  config.optimizer.clip_norm = 1.0

  if arg.demo:
    generation.demo(config, arg.data)
    # With less it learns so few images by heart.
    config.generator.token_dropout = config.generator.dropout = 0.25
  return config
