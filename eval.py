"""Evaluates a trained tokenizer on held-out images, two folders of images, or generated images.

python eval.py --workdir=runs/NAME [--out=FOLDER] [--step=N] [--data_path=FOLDER]
               [--rounding=uint8|none|wrap] [--eval_assign=NAME] [--nobaselines]
python eval.py --originals=FOLDER --reconstructions=FOLDER --out=FOLDER
python eval.py --workdir=runs/GENERATOR [--reference=FILE_OR_FOLDER] [--out=FOLDER] [--step=N]
python eval.py --samples=FILE_OR_FOLDER --reference=FILE_OR_FOLDER --out=FOLDER

All take --num_images=N, --batch_size=N and --save_reference=FILE, the first two --reference=FILE
and --quick. Writes metrics.json, reconstructions.png, pictures.npz and report.html into the run's
folder eval/, or into --out, and prints the numbers, each with its protocol, and beside a run what
JPEG, WebP and k-means on patches make of the same images in as many bits. --samples, and what the
generator of a run makes, are judged by the protocol of the ADM evaluator: gFID, sFID, Inception
score, precision and recall; a generator's reference is by default what it was trained on.
"""

import logging
import pathlib

import jax
from absl import flags

from vqjax import commands, saved_models
from vqjax import data as datasets
from vqjax.errors import UserError
from vqjax.evaluation.makers import evaluate_files, evaluate_generator
from vqjax.evaluation.run import evaluate_folders, evaluate_run, save_statistics
from vqjax.evaluation.scoring import ROUNDINGS
from vqjax.report import report

log = logging.getLogger('vqjax')


def evaluate(config, workdir, *, out=None, **options) -> dict:
  """Evaluates a run, as `evaluate_run` does with these options, and writes the report.

  Returns:
    The numbers of metrics.json.
  """
  folder = report.make_folder(out or pathlib.Path(workdir) / 'eval')
  return _write(folder, evaluate_run(config, workdir, **options), **options)


def compare_folders(originals, reconstructions, out, **options) -> dict:
  """Likewise of two folders of images, as `evaluate_folders` does."""
  folder = report.make_folder(out)
  return _write(folder, evaluate_folders(originals, reconstructions, **options), **options)


def judge_generator(workdir, *, out=None, **options) -> dict:
  """Likewise of what the generator of a run makes, as `evaluate_generator` does."""
  folder = report.make_folder(out or pathlib.Path(workdir) / 'eval')
  return _write(folder, evaluate_generator(workdir, **options))


def judge_samples(samples, reference, out, **options) -> dict:
  """Likewise of images that a generator made, as `evaluate_files` does."""
  folder = report.make_folder(out)
  return _write(folder, evaluate_files(samples, reference, **options))


def _write(folder, found, *, save_reference=None, **_):
  if jax.process_index() == 0:
    report.write(folder, found)
    log.info(report.table(found))
    log.info('written: %s', folder / 'report.html')
    if save_reference:
      save_statistics(found, save_reference)
      log.info('written: %s', save_reference)
  return found.metrics


if __name__ == '__main__':
  string, integer = flags.DEFINE_string, flags.DEFINE_integer
  workdir_flag = string('workdir', None, 'Folder of a run of train.py, or of vqjax.convert.')
  step_flag = integer('step', None, 'Checkpoint; the best by held-out PSNR by default.')
  data_path_flag = string('data_path', None, 'Images in place of those that the run held out.')
  eval_assign_flag = string(
    'eval_assign', None, "How codes are assigned, in place of the quantizer's own eval_assign."
  )
  rounding_flag = flags.DEFINE_enum(
    'rounding', 'uint8', list(ROUNDINGS), 'Of reconstructions before they are compared.'
  )
  baselines_flag = flags.DEFINE_bool(
    'baselines', True, 'With JPEG, WebP and k-means on patches beside the run.'
  )
  originals_flag = string('originals', None, 'Folder of images, in place of a run.')
  reconstructions_flag = string('reconstructions', None, 'Folder of what was made of them.')
  samples_flag = string('samples', None, 'Generated images: a folder, or an .npz with arr_0.')
  out_flag = string('out', None, "Folder for the report; a run's is eval/ in it by default.")
  num_images_flag = integer(
    'num_images', None, 'So many images; all by default, 1,000 of a generator.'
  )
  batch_size_flag = integer(
    'batch_size', None, "Images at a time; by default the run's, or 2 a device; 32 generated ones."
  )
  reference_flag = string(
    'reference', None, 'Statistics (.npz) that rFID compares with; or what --samples are.'
  )
  save_reference_flag = string(
    'save_reference', None, 'Where to write those of the originals, or of the reference images.'
  )
  quick_flag = flags.DEFINE_bool(
    'quick', False, 'Without LPIPS, rFID, Inception score, and k-means on patches.'
  )

  def main():
    """Reads the flags and evaluates."""
    shared = {
      'num_images': num_images_flag.value,
      'batch_size': batch_size_flag.value,
      'reference': reference_flag.value,
      'save_reference': save_reference_flag.value,
      'quick': quick_flag.value,
    }
    of_samples = ('num_images', 'batch_size', 'save_reference')
    of_runs = ('workdir', 'step', 'data_path', 'eval_assign', 'rounding', 'baselines')
    if samples_flag.value:
      paths = samples_flag.value, reference_flag.value, out_flag.value
      others = *of_runs, 'originals', 'reconstructions', 'quick'
      if not all(paths) or any(flags.FLAGS[name].present for name in others):
        raise UserError(
          'generated images are judged by --samples, --reference and --out together, without '
          f'{", ".join(f"--{name}" for name in others)}.'
        )
      judge_samples(*paths, **{name: shared[name] for name in of_samples})
      return
    if originals_flag.value or reconstructions_flag.value:
      folders = originals_flag.value, reconstructions_flag.value, out_flag.value
      if not all(folders) or any(flags.FLAGS[name].present for name in of_runs):
        raise UserError(
          'two folders of images are evaluated by --originals, --reconstructions and --out '
          f'together, without {", ".join(f"--{name}" for name in of_runs)}.'
        )
      compare_folders(*folders, **shared)
      return
    if not workdir_flag.value:
      raise UserError('--workdir is missing; for example --workdir=runs/rot_vqgan_demo.')
    if saved_models.is_generator_run(workdir_flag.value):
      others = 'data_path', 'eval_assign', 'rounding', 'baselines', 'quick'
      if wrong := [name for name in others if flags.FLAGS[name].present]:
        raise UserError(
          f'--{wrong[0]} is for runs of tokenizers, and {workdir_flag.value} is a generator; leave '
          'it out.'
        )
      judge_generator(
        workdir_flag.value,
        reference=reference_flag.value,
        step=step_flag.value,
        out=out_flag.value,
        **{name: shared[name] for name in of_samples},
      )
      return
    workdir, config = saved_models.read_run(workdir_flag.value, data=True)
    datasets.choose_images(config.data, data_path_flag.value)
    saved_models.override(config, eval_assign=eval_assign_flag.value)
    evaluate(
      config,
      workdir,
      step=step_flag.value,
      rounding=rounding_flag.value,
      baselines=baselines_flag.value,
      out=out_flag.value,
      **shared,
    )

  commands.run(
    commands.Program(
      main,
      interrupted='run the same command again',
      memory='fewer images at a time need less: --batch_size=N',
    )
  )
