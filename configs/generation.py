"""Every field of a generator's config: of what learns to predict the tokens of a tokenizer.

What all runs have in common, tokenizers too, is in `common`.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import common
from vqjax.data import default_data
from vqjax.generation import build, objectives

# Of the demo's digits; see `demo`.
DIGITS_TOKENIZER = 'runs/llamagen_vq16_digits_demo'


def default(network, sampler, objective, **fields):
  """The config that a generator's starts from.

  `network` is a name in `build.NETWORKS` and `fields` are its module's; `sampler` and `objective`
  are objects, whose fields are all shown.
  """
  config = common.run_defaults()
  config.sample_images = 24  # of class after class, or of as many classes
  # What makes tokens of images and images of tokens, frozen: a run folder or a published
  # checkpoint, as `vqjax.load` takes it. Where tokens.path is set, '' stands for what wrote it.
  config.tokenizer = ''

  config.tokens = ConfigDict()
  config.tokens.path = (
    ''  # a folder that `python -m vqjax.tokenize` wrote; '': images of config.data
  )
  config.tokens.eval_path = ''  # held-out ones; '': a part of the folder
  config.tokens.holdout = 0.05  # the fraction of the folder that is held out then
  # Of the tokenizer's run; 0: the checkpoint of the tokens, or the best. This and what follows is
  # filled in as training begins, so that the run says of itself which tokens it is for.
  config.tokens.step = 0
  config.tokens.shape = ()
  config.tokens.num_codes = 0
  config.tokens.weights_sha256 = ''
  config.class_names = ()  # of the labels; filled in likewise, where the data says them

  # Images that are tokenized in every step: cut, recoloured and mirrored as those of a tokenizer.
  # Of a folder of tokens only the fields of reading count.
  config.data = ConfigDict(default_data())

  config.generator = ConfigDict()
  config.generator.network = network
  # Labels are 0 to num_classes - 1, as many as the data has; 0: unconditional.
  config.generator.num_classes = 1000
  # Symbols of a token: with 2, one of 2^18 codes is two symbols below 512, and so is the output.
  config.generator.digits = 1
  config.generator.dtype = 'bfloat16'  # of the arithmetic; or float32
  config.generator.update(fields)

  config.sampler = section(sampler, build.SAMPLERS)  # of the pictures under samples/
  config.objective = section(objective, objectives.OBJECTIVES)
  config.optimizer = common.optimizer_defaults()
  config.optimizer.no_weight_decay = ()  # patterns of what it spares, such as '*norm*'
  return config


def section(of, kinds):
  """An object of one of `kinds`, {name: dataclass}, as the part of a config that describes it."""
  (name,) = (name for name, kind in kinds.items() if kind is type(of))
  return ConfigDict({'name': name, **dataclasses.asdict(of)})


def demo(config, data):
  """The same system in minutes on two cores, on `data`: 'digits' or 'photos'.

  Digits are class-conditional, and their tokenizer is a demo too: it must be there. Photographs are
  unconditional, and tokenized by what comes with the package.
  """
  network, optimizer = config.generator, config.optimizer
  network.width, network.depth, network.heads = 96, 6, 4
  network.dtype = 'float32'
  config.data = ConfigDict(default_data())
  if data == 'digits':
    config.tokenizer = DIGITS_TOKENIZER
    common.digits(config)
    config.data.image_size = 8
    config.data.train.crop = 'center'
    config.data.train.flip = False
    network.num_classes = 10
    config.sampler.guidance = config.sampler.guidance and 2.0
    config.sample_images = 80
    config.batch_size = 64
  else:
    config.name += '_photos'
    config.tokenizer = 'photos'
    common.photos(config, 64)
    network.num_classes = 0
    config.sampler.guidance = 0.0
    config.batch_size = 8
  config.eval_images = 400
  common.steps(config, 1_200 if data == 'digits' else 600)
  config.ema_decay = 0.995
  optimizer.learning_rate = 2e-3
  optimizer.clip_norm = 1.0
  for name in [name for name in optimizer if name.startswith('decay_')]:
    del optimizer[name]
  optimizer.decay_steps = 0
  common.cosine(optimizer, warmup_steps=50, final_fraction=0.02)
