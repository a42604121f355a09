r"""RAR: token after token, in random orders first and in raster order in the end.

Yu et al., Randomized Autoregressive Visual Generation (arXiv 2411.00776).

  python train.py --config=configs/rar.py                   # B, 256 pixels
  python train.py --config=configs/rar.py:model=b|l|xl|xxl
  python train.py --config=configs/rar.py:demo              # digits, two CPU cores
  python train.py --config=configs/rar.py:demo,data=photos  # photographs, no classes

The demo of digits has a tokenizer of its own, which it needs first:
python train.py --config=configs/llamagen.py:demo,data=digits

Data: ImageNet as tokens of MaskGIT's tokenizer (configs/maskgit.py), of every image and its mirror
image: --config.tokens.path, a folder that
`python -m vqjax.tokenize SOURCE --out=DIR --augment=flip` wrote. Or --config.data.path and
--config.tokenizer, and images are tokenized while training.

Expected, by the authors, ADM's evaluator: FID 1.95 (B), 1.70 (L), 1.50 (XL), 1.48 (XXL), with a
guidance that grows along the sequence. Their checkpoints load with `vqjax.load_generator`. We have
not trained this at full size; no figure of ours stands here yet.

Hardware: published at batch 2048, 250,000 steps, bfloat16, 32 GPUs.

Orders are random up to half of the run, raster from three quarters on. What weight decay spares is
what the names of the original spare, its last modulation by chance among them.
"""

from configs import common, generation
from vqjax.generation.causal_sampler import CausalSampler
from vqjax.generation.objectives import Permuted
from vqjax.generation.rar import SIZES

# The authors' temperature, scale of the guidance, and power of its growth.
SAMPLING = {'b': (1.0, 16.0, 2.75), 'l': (1.02, 15.5, 2.5), 'xl': (1.02, 6.9, 1.5)}
SAMPLING['xxl'] = (1.02, 8.0, 1.2)


def get_config(arg=''):
  """`demo`, `data=digits|photos` of the demo, `model=b|l|xl|xxl`."""
  arg = common.parse_arg(arg, demo=False, data=('digits', 'photos'), model=tuple(SAMPLING))
  temperature, guidance, power = SAMPLING[arg.model]
  config = generation.default(
    'rar',
    CausalSampler(temperature=temperature, guidance=guidance, guidance_power=power),
    Permuted(),
    **SIZES[arg.model.upper()],
    dropout=0.1,
  )
  config.name = f'rar_{arg.model}'
  config.total_steps = 250_000
  config.batch_size = 2048

  config.data.train.antialias = config.data.eval.antialias = True
  config.data.train.crop = 'center'
  config.data.train.flip = True

  optimizer = config.optimizer
  optimizer.learning_rate = 4e-4
  optimizer.b2 = 0.96
  optimizer.weight_decay = 0.03
  optimizer.weight_decay_on = 'matrices'
  optimizer.no_weight_decay = ('*embed*', 'adaln_before_head/*')
  optimizer.clip_norm = 1.0
  optimizer.schedule = 'cosine'
  optimizer.warmup_steps = 62_500
  optimizer.decay_steps = 250_000
  optimizer.final_fraction = 0.025  # down to 1e-5

  if arg.demo:
    generation.demo(config, arg.data)
    config.generator.mlp_width = 4 * config.generator.width
  return config
