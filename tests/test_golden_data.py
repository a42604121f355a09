"""The folder of golden files holds what is listed here: nothing leaves it or joins it unnoticed."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent / 'golden'
FILES = {
  '.': 'README.md',
  'checkpoints': """
    llamagen_vq16_a.io.npz llamagen_vq16_a.json llamagen_vq16_a.pt.xz
    maskgit_f16_a.bin.xz maskgit_f16_a.io.npz maskgit_f16_a.json
    optvq_cifar10_compiled_a.io.npz optvq_cifar10_compiled_a.json optvq_cifar10_compiled_a.pth.xz
    optvq_hf_a.io.npz optvq_hf_a.json
    rot_t1_f8_cosine_a.io.npz rot_t1_f8_cosine_a.json rot_t1_f8_cosine_a.pth.xz
    taming_flat_legacy_a.bin.xz taming_flat_legacy_a.io.npz taming_flat_legacy_a.json
    tiny_ok.ckpt.xz tiny_ok.io.npz tiny_ok.json
    vitvq_rot_small_a.ckpt.xz vitvq_rot_small_a.io.npz vitvq_rot_small_a.json
  """,
  'checkpoints/optvq_hf_a': 'config.json model.safetensors.xz',
  'generation': """
    adm_features_a.io.npz adm_features_a.json adm_npz_a.json adm_npz_a_ref.npz
    adm_npz_a_sample.npz evaluator_a.io.npz evaluator_a.json halton_16_a.io.npz halton_16_a.json
    halton_16_a.pth.xz halton_24_a.io.npz halton_24_a.json halton_24_a.pth.xz
    halton_conf_8_a.io.npz halton_conf_8_a.json halton_conf_8_a.pth.xz halton_order.io.npz
    halton_order.json llamagen_filter_a.io.npz llamagen_filter_a.json llamagen_gpt_16_a.io.npz
    llamagen_gpt_16_a.json llamagen_gpt_16_a.pt.xz llamagen_gpt_24_a.io.npz llamagen_gpt_24_a.json
    llamagen_gpt_24_a.pth.xz maskgit_16_a.io.npz maskgit_16_a.json maskgit_16_a.msgpack.xz
    maskgit_8_a.io.npz maskgit_8_a.json maskgit_8_a.msgpack.xz maskgit_schedule_a.io.npz
    maskgit_schedule_a.json rar_a.bin.xz rar_a.io.npz rar_a.json rar_schedules_a.io.npz
    rar_schedules_a.json tf1_resize_a.io.npz tf1_resize_a.json
  """,
  'losses': """
    LICENSE-lpips.txt gan_losses.npz lpips_lin_check.npz lpips_vgg_small.npz
    patchgan_actnorm.npz patchgan_n2.npz stylegan2_d32.npz
    vqloss_enh_hinge_adaptive.npz vqloss_taming_vanilla.npz
  """,
  'metrics': """
    codebook_stats.npz frechet.npz images.npz inception_photos.npz inception_score.npz
  """,
  'quantizers': """
    binary_mapper_aux.npz bsq.npz
    ema_lucid_affine.npz ema_lucid_cos.npz ema_lucid_euc.npz ema_rt_cos.npz ema_rt_euc.npz
    fsq_8555.npz fsq_sym.npz grad_vhp_dfp.npz lfq.npz
    opt_ce_nn.npz opt_l1_nn.npz opt_l2.npz opt_sinkhorn0.npz opt_sinkhorn1.npz rfsq.npz
    rot_edge_lucid.npz rot_gan_noscale.npz rot_gan_ref.npz rot_gan_rot.npz rot_lucid.npz
    rot_vae.npz rot_vit.npz
    rvq_rot.npz rvq_ste.npz rvq_ste_frac1.npz simvq.npz
    taming_gumbel_kl.npz taming_vq2.npz taming_vq2_legacy.npz vitvq.npz vitvq_residual.npz
    vqt_affine.npz vqt_affine_running.npz vqt_base.npz vqt_group_share0.npz vqt_group_share1.npz
    vqt_inplace.npz vqt_lru_counts.npz vqt_norm_l2.npz vqt_norm_l2c.npz
    vqt_residual_share0.npz vqt_residual_share1.npz vqt_sync.npz
  """,
  'training': """
    vqgan_rotation.json vqgan_rotation.npz
    vqgan_straight_through.json vqgan_straight_through.npz
  """,
}
MEGABYTES = 27


def test_every_folder_is_listed():
  folders = {FOLDER, *(path for path in FOLDER.rglob('*') if path.is_dir())}
  assert {path.relative_to(FOLDER).as_posix() for path in folders} == set(FILES)


@pytest.mark.parametrize('folder', FILES)
def test_a_folder_holds_what_is_listed(folder):
  found = {path.name for path in (FOLDER / folder).iterdir() if path.is_file()}
  assert found == set(FILES[folder].split())


def test_the_folder_stays_small():
  size = sum(path.stat().st_size for path in FOLDER.rglob('*') if path.is_file())
  assert size < MEGABYTES * 2**20
