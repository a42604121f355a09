r"""MaskGIT's transformer: masked tokens, of which the sampler keeps the most confident.

Chang et al., MaskGIT: Masked Generative Image Transformer (CVPR 2022).

  python train.py --config=configs/maskgit_transformer.py                   # 256 pixels
  python train.py --config=configs/maskgit_transformer.py:size=512
  python train.py --config=configs/maskgit_transformer.py:sampler=maskgit|halton|confidence
  python train.py --config=configs/maskgit_transformer.py:demo              # digits, two CPU cores
  python train.py --config=configs/maskgit_transformer.py:demo,data=photos  # without classes

The demo of digits has a tokenizer of its own, which it needs first:
python train.py --config=configs/llamagen.py:demo,data=digits

Data: ImageNet as tokens of MaskGIT's tokenizer (configs/maskgit.py): --config.tokens.path, a folder
that `python -m vqjax.tokenize` wrote, or --config.data.path and --config.tokenizer, and images are
tokenized while training, cropped at random and mirrored.

Expected: FID 6.06 by the authors at 256 pixels, 7.32 at 512. Their checkpoints load with
`vqjax.load_generator`. We have not trained this at full size; no figure of ours stands here yet.

Hardware: published at batch 256, float32, 2 million steps.

The authors released the network, the loss and the config, but no training loop. From the paper:
as many tokens are masked, any of them, as a cosine gives for a number uniform in [0, 1). Guesses:
the config's `min_masking_rate` is the least share that is masked; labels are never dropped, as the
network has no null class; every parameter decays.
"""

from configs import common, generation
from vqjax.generation.build import SAMPLERS
from vqjax.generation.objectives import MaskGIT


def get_config(arg=''):
  """`demo`, `data=digits|photos` of the demo, `size=256|512`.

  And `sampler=maskgit|halton|confidence`, on which training does not depend.
  """
  arg = common.parse_arg(
    arg,
    demo=False,
    data=('digits', 'photos'),
    size=('256', '512'),
    sampler=('maskgit', 'halton', 'confidence'),
  )
  config = generation.default(
    'maskgit',
    SAMPLERS[arg.sampler](steps=12, guidance=0.0),
    MaskGIT(),
    width=768,
    depth=24,
    heads=16,
    mlp_width=3072,
    dropout=0.1,
  )
  config.name = f'maskgit_transformer_{arg.size}'
  config.total_steps = 2_000_000
  config.batch_size = 256
  config.ema_decay = 0.999
  config.generator.dtype = 'float32'

  config.data.image_size = int(arg.size)
  config.data.train.antialias = config.data.eval.antialias = True
  config.data.train.crop = 'random_resized'
  config.data.train.scale = (0.8, 1.0)
  config.data.train.flip = True

  config.optimizer.learning_rate = 1e-4
  config.optimizer.b2 = 0.96
  config.optimizer.weight_decay = 0.045
  config.optimizer.warmup_steps = 5_000

  if arg.demo:
    generation.demo(config, arg.data)
    config.sampler.steps = 12
    config.generator.mlp_width = 4 * config.generator.width
  return config
