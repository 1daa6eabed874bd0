"""Fused pixel operations on stride-s logits, each with its plain PyTorch reference."""

from .ema import ema_update, ema_update_reference
from .labels.confusion import confusion, confusion_reference
from .labels.ohem import hard_pixels, target_prob, target_prob_reference
from .labels.pseudo_label import (
    PseudoLabel,
    class_thresholds,
    drop_unsure,
    pseudo_label,
    pseudo_label_reference,
)
from .labels.quantile import quantile, select, select_reference
from .losses.consistency_kl import consistency_kl, consistency_kl_reference
from .losses.cross_entropy import cross_entropy, cross_entropy_reference
from .losses.dice import class_sums, class_sums_reference, dice
from .losses.dynamic_ce import Cases, dynamic_ce, dynamic_ce_reference, dynamic_weights
from .losses.feature_shift import (
    ClassStatistics,
    feature_shift,
    feature_shift_reference,
    shift_table,
)
from .losses.focal import focal, focal_reference
from .losses.reweight import reweight, reweight_reference
from .losses.self_correction import self_correction, self_correction_reference
from .nearest import at_centres
from .upsample import stride_of, upsample
from .views.classmix import ClassMasks, Mixing, class_masks, mix
from .views.cutmix import CutMixBoxes, cutmix, cutmix_boxes, cutmix_reference
from .views.photometric import Photometric, photometric, sample_photometric
from .views.random_crop import random_crop, random_crop_reference
from .views.resident import CropPlan, Crops, ResidentImages
from .views.strong_view import StrongView, normalize, strong_view, strong_view_reference
from .views.tps import TPS, sample_tps, solve_tps, tps_displacement, valid_mask
from .views.warp import inverse_splat, inverse_splat_reference, warp, warp_reference
from .window import window_mask, window_mask_reference

__all__ = [
    "TPS",
    "Cases",
    "ClassMasks",
    "ClassStatistics",
    "CropPlan",
    "Crops",
    "CutMixBoxes",
    "Mixing",
    "Photometric",
    "PseudoLabel",
    "ResidentImages",
    "StrongView",
    "at_centres",
    "class_masks",
    "class_sums",
    "class_sums_reference",
    "class_thresholds",
    "confusion",
    "confusion_reference",
    "consistency_kl",
    "consistency_kl_reference",
    "cross_entropy",
    "cross_entropy_reference",
    "cutmix",
    "cutmix_boxes",
    "cutmix_reference",
    "dice",
    "drop_unsure",
    "dynamic_ce",
    "dynamic_ce_reference",
    "dynamic_weights",
    "ema_update",
    "ema_update_reference",
    "feature_shift",
    "feature_shift_reference",
    "focal",
    "focal_reference",
    "hard_pixels",
    "inverse_splat",
    "inverse_splat_reference",
    "mix",
    "normalize",
    "photometric",
    "pseudo_label",
    "pseudo_label_reference",
    "quantile",
    "random_crop",
    "random_crop_reference",
    "reweight",
    "reweight_reference",
    "sample_photometric",
    "sample_tps",
    "select",
    "select_reference",
    "self_correction",
    "self_correction_reference",
    "shift_table",
    "solve_tps",
    "stride_of",
    "strong_view",
    "strong_view_reference",
    "target_prob",
    "target_prob_reference",
    "tps_displacement",
    "upsample",
    "valid_mask",
    "warp",
    "warp_reference",
    "window_mask",
    "window_mask_reference",
]
