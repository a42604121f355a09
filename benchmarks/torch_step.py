"""The training step of a network in PyTorch: eager float32, autocast to bfloat16, or compiled.

    python -m benchmarks.torch_step --mode=eager --batch=16
    python -m benchmarks.torch_step --network=rot_vitvqgan --mode=compile --batch=32
    python -m benchmarks.torch_step --mode=eager --image_size=64 --batch=2 --channels=32

float32 is of full precision: TF32 is off. In bfloat16 images are channels-last, which is faster.
"""

import argparse
import time

import torch

from benchmarks import timing, torch_peer, torch_vit
from benchmarks.torch_stylegan import StyleGAN2

NETWORKS = ('rot_vqgan', 'rot_vitvqgan')
MODES = ('eager', 'bf16', 'compile')  # float32, autocast, autocast and torch.compile


def build(args):
  """Tokenizer, discriminator, step and the lowest value of a pixel, of a network."""
  if args.network == 'rot_vqgan':
    model = torch_peer.VQGAN(channels=args.channels or 128)
    return model, torch_peer.PatchGAN(), torch_peer.Step, -1
  c = args.channels
  sizes = {'dim': c, 'depth': 2, 'heads': 2, 'hidden': 2 * c} if c else {}
  model = torch_vit.ViTVQGAN(args.image_size, **sizes)
  return model, StyleGAN2(args.image_size), torch_vit.Step, 0


def measure(args):
  """Builds and times one mode: its record."""
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)
  cuda = torch.cuda.is_available()
  device = 'cuda' if cuda else 'cpu'
  layout = torch.contiguous_format if args.mode == 'eager' else torch.channels_last
  *networks, step_of, lowest = build(args)
  networks = (n.to(device, memory_format=layout).train() for n in (*networks, torch_peer.LPIPS()))
  amp = None if args.mode == 'eager' else torch.bfloat16
  step = step_of(*networks, amp, compiled=args.mode == 'compile')
  x = torch.rand(args.batch, 3, args.image_size, args.image_size, device=device)
  x = lowest + (1 - lowest) * x
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
    'network': args.network,
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
  parser.add_argument('--network', choices=NETWORKS, default='rot_vqgan')
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
