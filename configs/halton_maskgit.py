r"""Halton-MaskGIT: a masked transformer, whose sampler reveals tokens in a fixed, spread-out order.

Besnier et al., Halton Scheduler for Masked Generative Image Transformer (ICLR 2025).

  python train.py --config=configs/halton_maskgit.py                   # base, 256 pixels
  python train.py --config=configs/halton_maskgit.py:model=tiny|small|base|large,size=256|384
  python train.py --config=configs/halton_maskgit.py:sampler=halton|confidence|maskgit
  python train.py --config=configs/halton_maskgit.py:demo              # digits, two CPU cores
  python train.py --config=configs/halton_maskgit.py:demo,data=photos  # photographs, no classes

The demo of digits has a tokenizer of its own, which it needs first:
python train.py --config=configs/llamagen.py:demo,data=digits

Data: ImageNet; shorter side to 256 or 384 pixels, centre crop, no flip, as tokens of LlamaGen's
tokenizer VQ-16: --config.tokens.path, a folder that `python -m vqjax.tokenize` wrote, or
--config.data.path and --config.tokenizer, and images are tokenized while training.

Expected, by the authors at 32 steps: FID 10.2 (tiny), 6.40 (small), 4.17 (base) at 256 pixels, 2.59
(large) at 384. Their FID is not the ADM evaluator's: images are resized by PIL's bicubic filter
and labels come from the validation set. Their checkpoints load with `vqjax.load_generator`. We have
not trained this at full size; no figure of ours stands here yet.

Hardware: published at batch 256 in bfloat16, 1.5 million steps.

Every token is masked by itself with a probability arccos(u) / (pi / 2), u uniform; the loss is over
all positions, masked or not, and the mask is one of the classes, as in the original. Guidance of
the sampler is s of u + s (c - u): the original's w is s - 1.

Deviation: the last tenth of the learning rate's course is a cosine that ends at a hundredth of it,
where the original's goes to 0 and is cut off there.
"""

from configs import common, generation
from vqjax.generation.build import SAMPLERS
from vqjax.generation.halton_maskgit import SIZES
from vqjax.generation.objectives import Halton

# The original's guidance w at 256 and at 384 pixels, plus 1; of those without a figure base's.
GUIDANCE = {
  256: {'tiny': 2.5, 'small': 2.0, 'base': 1.7, 'large': 1.7, 'xlarge': 1.7},
  384: {'tiny': 2.5, 'small': 2.0, 'base': 1.7, 'large': 1.5, 'xlarge': 1.5},
}


def get_config(arg=''):
  """`demo`, `data=digits|photos` of the demo, `model=tiny|...|xlarge`, `size=256|384`.

  And `sampler=halton|confidence|maskgit`, on which training does not depend.
  """
  arg = common.parse_arg(
    arg,
    demo=False,
    data=('digits', 'photos'),
    model=('base', 'tiny', 'small', 'large', 'xlarge'),
    size=('256', '384'),
    sampler=('halton', 'confidence', 'maskgit'),
  )
  size = int(arg.size)
  config = generation.default(
    'halton_maskgit',
    SAMPLERS[arg.sampler](steps=32, guidance=GUIDANCE[size][arg.model]),
    Halton(),
    **SIZES[arg.model],
    registers=1,
    dropout=0.1,
  )
  config.name = f'halton_maskgit_{arg.model}_{arg.size}'
  config.total_steps = 1_500_000
  config.batch_size = 256

  config.data.image_size = size
  for split in (config.data.train, config.data.eval):
    split.crop, split.antialias = 'center', True

  config.optimizer.learning_rate = 1e-4
  config.optimizer.weight_decay = 0.03
  config.optimizer.clip_norm = 1.0
  config.optimizer.schedule = 'wsd'
  config.optimizer.warmup_steps = 2_500
  del config.optimizer.decay_steps
  config.optimizer.decay_percent = 10
  config.optimizer.final_fraction = 0.01

  if arg.demo:
    generation.demo(config, arg.data)
    config.sampler.steps = 16
  return config
