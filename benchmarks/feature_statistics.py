"""Memory and time of streaming the statistics of FID.

python benchmarks/feature_statistics.py [COUNT ...]

Each COUNT (5,000 and 50,000) of random features as wide as Inception's is streamed in batches of 64
by a process of its own; memory is what that process has at its peak. Then the time of one distance.
"""

import json
import pathlib
import subprocess
import sys

STREAM = """
import json, resource, sys, time
import numpy as np
from vqjax.evaluation.statistics import FeatureStatistics

random, statistics, seconds = np.random.default_rng(0), FeatureStatistics(2048), 0.0
remaining = int(sys.argv[1])
while remaining:
  features = random.standard_normal((min(64, remaining), 2048), np.float32)
  remaining -= len(features)
  start = time.perf_counter()
  statistics.add(features)
  seconds += time.perf_counter() - start
statistics.covariance
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({'seconds': seconds, 'peak': peak}))
"""

DISTANCE = """
import json, time
import numpy as np
from vqjax.evaluation.metrics import frechet_distance

random = np.random.default_rng(0)
x, y = (np.cov(random.standard_normal((5000, 2048)), rowvar=False) for _ in range(2))
start = time.perf_counter()
frechet_distance(np.zeros(2048), x, np.zeros(2048), y)
print(json.dumps({'seconds': time.perf_counter() - start}))
"""


def run(code, *args):
  """What a process that runs `code` prints last."""
  command = [sys.executable, '-c', code, *args]
  root = pathlib.Path(__file__).parents[1]
  done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
  return json.loads(done.stdout.splitlines()[-1])


def main(counts):
  """Prints a line for each number of features, and one for the distance."""
  for count in counts:
    found = run(STREAM, str(count))
    print(f'{count} features: {found["seconds"]:.0f} s; peak {found["peak"] / 1e6:.0f} MB')
  print(f'one distance: {run(DISTANCE)["seconds"]:.0f} s')


if __name__ == '__main__':
  main([int(arg) for arg in sys.argv[1:]] or [5_000, 50_000])
