"""The training step of `benchmarks.torch_peer`: eager float32, autocast to bfloat16, or compiled.

    python -m benchmarks.torch_step --mode=eager --batch=16
    python -m benchmarks.torch_step --mode=eager --image_size=64 --batch=2 --channels=32

float32 is of full precision: TF32 is off. In bfloat16 images are channels-last, which is faster.
"""

import argparse
import time

import torch

from benchmarks import timing
from benchmarks.torch_peer import LPIPS, VQGAN, PatchGAN, Step

MODES = ('eager', 'bf16', 'compile')  # float32, autocast, autocast and torch.compile


def measure(args):
  """Builds and times one mode: its record."""
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)
  cuda = torch.cuda.is_available()
  device = 'cuda' if cuda else 'cpu'
  layout = torch.contiguous_format if args.mode == 'eager' else torch.channels_last
  networks = VQGAN(channels=args.channels or 128), PatchGAN(), LPIPS()
  model, discriminator, lpips = (n.to(device, memory_format=layout).train() for n in networks)
  amp = None if args.mode == 'eager' else torch.bfloat16
  step = Step(model, discriminator, lpips, amp, compiled=args.mode == 'compile')
  x = torch.rand(args.batch, 3, args.image_size, args.image_size, device=device) * 2 - 1
  x = x.contiguous(memory_format=layout)

  def run():
    loss = step(x)
    if cuda:
      torch.cuda.synchronize()
    return loss

  start = time.perf_counter()
  loss = run()
  first = time.perf_counter() - start
  seconds = timing.median_seconds(run, args.rounds, warm_up=1)
  peak = torch.cuda.max_memory_allocated() if cuda else None
  return {
    'part': 'torch_step',
    'framework': f'torch {torch.__version__}',
    'network': 'rot_vqgan',
    'image_size': args.image_size,
    'batch': args.batch,
    'mode': args.mode,
    'first_step_s': first,
    'loss_of_step_1': float(loss),
    'step_s': seconds,
    'images_per_s': args.batch / seconds,
    'peak_mb': timing.peak_memory_mb(peak),
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--mode', choices=MODES, default='eager')
  parser.add_argument('--image_size', type=int, default=256)
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--channels', type=int, default=0, help='narrower, for a trial; 0: published')
  parser.add_argument('--out', help='file to append results to')
  args = parser.parse_args()
  print(f'torch {torch.__version__}, CUDA {torch.version.cuda}', flush=True)
  timing.keep(measure(args), args.out)


if __name__ == '__main__':
  main()
