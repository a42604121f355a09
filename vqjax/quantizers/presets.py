"""The published systems with their constants, one function each.

Where the original tokenizes with a batch-dependent or random assignment, the preset tokenizes with
the nearest code; everything else is as published, quirks listed in each docstring.
"""

from vqjax.quantizers.assignments import Assignment, Nearest
from vqjax.quantizers.binary import BSQ, LFQ
from vqjax.quantizers.composite import Grouped, Residual
from vqjax.quantizers.estimators import (
  Directional,
  Sync,
  rotation,
  straight_through,
  tangent_rotation,
)
from vqjax.quantizers.initializers import NormalCodebook, kaiming, lecun_uniform, unit_normal
from vqjax.quantizers.lattice import FSQ
from vqjax.quantizers.learners import Alternating, Ema, Frozen
from vqjax.quantizers.optimizers import NamedOptimizer
from vqjax.quantizers.regularizers import Entropy
from vqjax.quantizers.replacement import LeastRecent, RarelyUsed
from vqjax.quantizers.sinkhorn import Sinkhorn
from vqjax.quantizers.transforms import Affine, Linear
from vqjax.quantizers.vector import VectorQuantizer

STEPS = ('baseline', 'kmeans', 'sync', 'affine', 'replacement', 'alternating')
TASKS = ('autoencoder', 'classifier')


def rotation_vqvae(num_codes: int = 1024, *, cosine: bool = True) -> VectorQuantizer:
  """VQ-VAE with the rotation trick (Fifty et al., ICLR 2025, Table 1).

  An EMA codebook of decay 0.8 whose counts start at 0. 1024 codes of width 32, or 8192 of
  width 3; on the sphere (`cosine`) or not. On the sphere the original normalises before and after
  the quantizer.
  """
  return VectorQuantizer(
    num_codes,
    estimator=rotation,
    learner=Ema(0.8, init_count=0.0, hold=False),
    sphere=cosine,
    commitment_weight=1.0,
    codebook_init=kaiming,
  )


def rotation_vqgan(num_codes: int = 8192) -> VectorQuantizer:
  """VQGAN with the rotation trick (ICLR 2025, Table 3): 8192 codes of width 3, or 16384 of 4.

  The radial part of the gradient is dropped; weights as in taming's legacy quantizer.
  """
  return VectorQuantizer(
    num_codes, estimator=tangent_rotation, commitment_weight=1.0, codebook_weight=0.25
  )


def rotation_vit_vqgan(num_codes: int = 8192) -> VectorQuantizer:
  """ViT-VQGAN with the rotation trick (ICLR 2025, Table 4): 8192 unit codes of width 32."""
  return vit_vqgan(num_codes).clone(estimator=tangent_rotation)


def vit_vqgan(num_codes: int = 8192) -> VectorQuantizer:
  """ViT-VQGAN (Yu et al., arXiv 2110.04627), as enhancing-transformers: unit codes of width 32."""
  return VectorQuantizer(
    num_codes,
    sphere=True,
    commitment_weight=0.25,
    codebook_weight=1.0,
    codebook_init=NormalCodebook(),
  )


def taming(num_codes: int = 1024) -> VectorQuantizer:
  """VQGAN (Esser et al., arXiv 2012.09841): 1024 or 16384 codes of width 256; also LDM's.

  The published weights, 1 on the commitment and 0.25 on the codebook term, are the other way round
  than in the paper's formula; taming's code calls that `legacy`.
  """
  return VectorQuantizer(num_codes, commitment_weight=1.0, codebook_weight=0.25)


def maskgit(num_codes: int = 1024) -> VectorQuantizer:
  """MaskGIT's VQGAN (arXiv 2202.04200): 1024 codes of width 256, entropy term 0.1 at T = 0.01."""
  return VectorQuantizer(
    num_codes,
    regularizers=(Entropy(0.1, temperature=0.01),),
    codebook_init=lecun_uniform,
  )


def llamagen(num_codes: int = 16384) -> VectorQuantizer:
  """LlamaGen's VQ (arXiv 2406.06525): 16384 codes of width 8, rows and codes of length one."""
  return VectorQuantizer(num_codes, sphere=True, unit_input=True)


def vqtorch(
  num_codes: int = 256, step: str = 'affine', *, task: str = 'autoencoder'
) -> VectorQuantizer:
  """The ladder of vqtorch's examples (Huh et al., ICML 2023).

  `baseline`; `kmeans` is the same layer after `seed_codebooks`, with which all that follow start
  too; `sync` adds nu = 2 (autoencoder) or 1 (classifier); `affine` adds to that lr = 2 or 10;
  `replacement` adds to that new codes for those unused for 20 steps. `alternating` stands by
  itself: one SGD step (lr 50, momentum 0.9) of the codebook in place of the gradient, no commitment
  and no seeding. Weights are 10 times (1 - beta, beta), beta = 0.95.
  """
  if step not in STEPS:
    raise ValueError(f'step is {step!r}; legal: {", ".join(STEPS)}.')
  if task not in TASKS:
    raise ValueError(f'task is {task!r}; legal: {", ".join(TASKS)}.')
  nu, lr = {'autoencoder': (2.0, 2.0), 'classifier': (1.0, 10.0)}[task]
  affine = Affine(lr) if step in ('affine', 'replacement') else None
  synced = step in ('sync', 'affine', 'replacement')
  alternating = step == 'alternating'
  sgd = NamedOptimizer.of('sgd', learning_rate=50.0, momentum=0.9)
  return VectorQuantizer(
    num_codes,
    estimator=Sync(straight_through, nu) if synced else straight_through,
    transform=affine,
    learner=Alternating(sgd) if alternating else None,
    replacement=LeastRecent(20) if step == 'replacement' else None,
    commitment_weight=0.0 if alternating else 0.5,
    codebook_weight=9.5,
    codebook_init=NormalCodebook(),
  )


def optvq(
  num_codes: int = 16384, heads: int = 4, *, eval_assign: Assignment | None = None
) -> Grouped:
  """OptVQ (Zhang et al., arXiv 2412.15195): Sinkhorn over all tokens and heads, one codebook.

  Width 256 in 4 or 8 heads. The authors tokenize by Sinkhorn too, so that a token depends on the
  rest of the batch: `eval_assign=Sinkhorn()`. Deviation: statistics of the cost are of the whole
  batch on all devices.
  """
  base = VectorQuantizer(
    num_codes,
    assign=Sinkhorn(epsilon=10.0, iters=5),
    eval_assign=Nearest() if eval_assign is None else eval_assign,
    transform=Linear(bias=True),
    commitment_weight=1.0,
    codebook_weight=0.25,
    codebook_init=NormalCodebook(),
  )
  return Grouped(base, heads)


def optvq_baseline(num_codes: int = 16384, heads: int = 4, *, projection: bool = True) -> Grouped:
  """OptVQ's plain baselines: nearest code, cross-entropy in place of distances.

  VQ-base, of 4 or 8 heads; VQGAN with `heads=1, projection=False`: no linear map.
  """
  base = VectorQuantizer(
    num_codes,
    transform=Linear(bias=True) if projection else None,
    loss='cross_entropy',
    commitment_weight=1.0,
    codebook_weight=0.0,
    codebook_init=NormalCodebook(),
  )
  return Grouped(base, heads)


def simvq(num_codes: int = 65536) -> VectorQuantizer:
  """SimVQ (Zhu et al., arXiv 2411.02038): frozen normal weights under one learned linear map."""
  return VectorQuantizer(
    num_codes,
    transform=Linear(),
    learner=Frozen(),
    commitment_weight=0.25,
    codebook_weight=1.0,
    codebook_init=unit_normal,
  )


def rq_vae(num_codes: int = 16384, depth: int = 4) -> Residual:
  """RQ-VAE (Lee et al., arXiv 2203.01941): width 256, depth 4, one EMA codebook for all levels.

  Unused codes restart. Deviations: the commitment is per level and not to each partial sum; a
  code restarts once it is rare by `RarelyUsed()`, where the original's restarts once its average
  count is below 1.
  """
  base = VectorQuantizer(
    num_codes, learner=Ema(0.99), replacement=RarelyUsed(), codebook_init=NormalCodebook()
  )
  return Residual(base, depth, share=True, level_loss='mean')


def diveq(num_codes: int = 1024) -> VectorQuantizer:
  """DiVeQ (arXiv 2509.26469): the task's gradient alone moves the codes; rare ones restart."""
  return VectorQuantizer(
    num_codes,
    estimator=Directional(),
    replacement=RarelyUsed(),
    commitment_weight=0.0,
    codebook_weight=0.0,
    codebook_init=NormalCodebook(),
  )


def fsq(levels: tuple[int, ...] = (8, 5, 5, 5)) -> FSQ:
  """FSQ (Mentzer et al., arXiv 2309.15505); levels by codebook size as in its Table 1.

  2^8: 8 6 5; 2^10: 8 5 5 5; 2^12: 7 5 5 5 5; 2^14: 8 8 8 6 5; 2^16: 8 8 8 5 5 5.
  """
  return FSQ(levels)


def magvit2(bits: int = 18) -> LFQ:
  """MAGVIT-v2's lookup-free quantizer (Yu et al., arXiv 2310.05737): 2^18 codes.

  Weights as in Open-MAGVIT2 (arXiv 2409.04410): entropy 0.1, commitment 0.25.
  """
  return LFQ(bits, tokens=_tokens(bits), commitment_weight=0.25, entropy_bits=9)


def bsq(bits: int = 18) -> BSQ:
  """BSQ-ViT (Zhao et al., arXiv 2406.07548): 18 bits a token; 36 are written as two tokens."""
  return BSQ(bits, tokens=_tokens(bits), entropy_bits=9)


def _tokens(bits: int) -> int:
  """The least number of equal tokens of at most 30 bits."""
  return next(n for n in range(1, bits + 1) if bits % n == 0 and bits // n <= 30)
