"""Views, windows, scales and flips: against literal sums over full-resolution maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from warpseg.kernels import normalize
from warpseg.pipelines import NORMALIZATIONS
from warpseg.pipelines.batches import PlainBatch
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring import prediction as prediction_module
from warpseg.trainers.scoring.evaluate import evaluate_network
from warpseg.trainers.scoring.inference import (
    evaluating,
    predict_logits,
    resize_image,
    window_starts,
    windows_along,
)

ODD = (37, 53)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def full(prediction):
    """Return the probabilities of all rows at full resolution, (N, C, H, W)."""
    height, width = prediction.size
    bands = []
    for rows, logits, covered in prediction.bands():
        stride = -(-covered[0] // logits.shape[2])
        whole = (
            F.interpolate(logits, scale_factor=stride, mode="bilinear") if stride > 1 else logits
        )
        bands.append(whole[:, :, : rows.stop - rows.start, :width].softmax(1))
    result = torch.cat(bands, dim=2)
    assert result.shape[2:] == (height, width)
    return result


def upsampled(network, image):
    """Return full-resolution logits by the book: stride-s logits, enlarged s times, cut."""
    logits = network(image)
    if network.output_stride > 1:
        scale = network.output_stride
        logits = F.interpolate(logits, scale_factor=scale, mode="bilinear")
    return logits[..., : image.shape[2], : image.shape[3]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "sliding"}, "sliding needs --evaluation.crop-size"),
        ({"mode": "center_crop"}, "center_crop needs --evaluation.crop-size"),
        ({"crop_size": (8, 8)}, "whole does not take --evaluation.crop-size"),
        ({"mode": "resize"}, "resize needs --evaluation.size"),
        (
            {"size": (8, 8)},
            r"take --evaluation.size, which is \(8, 8\): add --evaluation.size None",
        ),
        ({"pad_to": (0, 8)}, "pad-to takes two lengths of 1 pixel or more"),
        ({"mode": "resize", "size": (8, 8), "pad_to": (9, 9)}, "pad-to is for mode whole"),
        ({"bound": (8, 8), "pad_to": (9, 9)}, "pad-to is for mode whole"),
        ({"mode": "center_crop", "crop_size": (8, 8), "bound": (9, 9)}, "not center_crop"),
        ({"padding_class": 0}, "for mode center_crop; got 0 for mode whole"),
        ({"pad_to": (9, 9), "fill": (0, 0, 256)}, "fill takes three levels from 0 to 255 or None"),
        ({"stride": 0.0}, "stride must be above 0"),
        ({"border": "cut"}, "border cut is for mode sliding, not whole"),
        ({"multiple": 0}, "multiple must be at least 1; got 0"),
        ({"multiple": 14, "pad_to": (9, 9)}, "multiple is for mode whole, without"),
        ({"multiple": 14, "mode": "resize", "size": (8, 8)}, "multiple is for mode whole"),
        ({"window_batch": 0}, "window-batch must be at least 1; got 0"),
        ({"scales": ()}, "scales takes one or more factors"),
        ({"scales": (1.0, -1.0)}, "scales takes one or more factors"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationSettings(**values)


def test_the_protocol_is_described_in_words():
    occurring = "mIoU over classes that occur"
    assert EvaluationSettings().describe() == f"whole, {occurring}"
    sliding = EvaluationSettings(mode="sliding", crop_size=(769, 769), average="logits")
    assert sliding.describe() == f"sliding, 769x769, stride 0.667, mean logits, {occurring}"
    unimatch = EvaluationSettings(
        mode="sliding", crop_size=(801, 801), border="cut", mean_over="all"
    )
    assert unimatch.describe() == (
        "sliding, 801x801, stride 0.667, cut at the border, mean softmax, mIoU over all classes"
    )
    patches = EvaluationSettings(multiple=14, mean_over="all")
    assert patches.describe() == "whole, to multiples of 14, mIoU over all classes"
    several = EvaluationSettings(scales=(0.5, 1.0), flip=True, bound=(512, 512))
    assert several.describe() == (
        f"whole, bound 512x512, scales 0.5 1, flip, mean softmax, {occurring}"
    )
    padded = EvaluationSettings(pad_to=(505, 505), fill=(0, 0, 0))
    assert padded.describe() == f"whole, padded to 505x505, fill 0 0 0, {occurring}"


def test_windows_cover_an_axis_and_end_at_its_end():
    assert window_starts(2048, 769, 2 / 3) == [0, 513, 1026, 1279]
    assert window_starts(1024, 769, 2 / 3) == [0, 255]
    assert window_starts(769, 769, 2 / 3) == [0]
    assert window_starts(20, 10, 1.0) == [0, 10]
    # A shorter axis is padded by 3 before and 4 behind.
    assert window_starts(10, 17, 2 / 3) == [-3]


def test_windows_that_end_at_the_border():
    """UniMatch on Cityscapes: windows of 801, 534 apart from 0, the last ones cut off."""
    assert windows_along(2048, 801, 2 / 3, "cut") == [
        *((0, 801), (534, 801), (1068, 801), (1602, 446))
    ]
    assert windows_along(1024, 801, 2 / 3, "cut") == [(0, 801), (534, 490)]
    assert windows_along(2048, 798, 2 / 3, "shift")[-1] == (1250, 798)
    assert windows_along(20, 10, 1.0, "cut") == [(0, 10), (10, 10)]


def test_cut_windows_are_averaged_as_the_published_loop_does(pooled, draw):
    """Softmax of each window at full resolution, summed where it lies."""
    network, image = pooled(4, 4), draw(26, 37)
    settings = EvaluationSettings(mode="sliding", crop_size=(16, 16), border="cut", stride=0.5)
    label, _ = predict_logits(network, image, settings).label()
    total = torch.zeros(1, 4, 26, 37)
    for top in range(0, 26, 8):
        for left in range(0, 37, 8):
            window = image[:, :, top : top + 16, left : left + 16]
            logits = network(window)
            tall, wide = window.shape[-2:]
            enlarged = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :tall, :wide]
            total[:, :, top : top + 16, left : left + 16] += enlarged.softmax(1)
    assert torch.equal(label, total.argmax(1).to(torch.uint8))
    shifted = EvaluationSettings(mode="sliding", crop_size=(16, 16), stride=0.5)
    assert not torch.equal(predict_logits(network, image, shifted).label()[0], label)


@pytest.mark.parametrize(
    ("size", "seen"), [((375, 500), (378, 504)), ((20, 7), (14, 14)), ((28, 6), (28, 14))]
)
def test_images_are_brought_to_the_nearest_multiple(size, seen, draw):
    shapes = []

    class Watching(nn.Module):
        output_stride = 7

        def forward(self, image):
            shapes.append(tuple(image.shape[-2:]))
            return F.avg_pool2d(image, 7)

    said = predict_logits(Watching(), draw(*size), EvaluationSettings(multiple=14))
    assert shapes == [seen]
    assert said.label()[0].shape[1:] == size


def test_a_whole_image_keeps_the_networks_own_logits(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD)
    made = []
    network.register_forward_hook(lambda module, inputs, output: made.append(output))
    bands = list(predict_logits(network, image).bands())
    assert len(bands) == 1
    rows, logits, covered = bands[0]
    assert logits is made[0]
    assert (rows, covered) == (slice(0, 37), ODD)


def test_padding_is_seen_by_the_network_alone(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD)
    settings = EvaluationSettings(pad_to=(45, 30))
    padded = torch.zeros(1, 3, 45, 53)
    padded[..., :37, :53] = image
    prediction = predict_logits(network, image, settings)
    _, logits, covered = next(prediction.bands())
    # The width, 53, is more than the least one and stays.
    assert covered == (45, 53)
    torch.testing.assert_close(logits, network(padded))
    mask = torch.zeros(1, *ODD, dtype=torch.uint8)
    assert prediction.confusion(mask, 4).sum() == 37 * 53
    assert prediction.label()[0].shape == (1, *ODD)


@pytest.mark.parametrize("look", ["imagenet", "caffe"])
@pytest.mark.parametrize("fill", [(0, 0, 0), (7, 9, 201)])
@pytest.mark.parametrize(
    ("settings", "corner"),
    [
        ({"pad_to": (45, 60)}, (0, 0)),
        ({"mode": "center_crop", "crop_size": (45, 60)}, (4, 3)),
        ({"mode": "sliding", "crop_size": (45, 60)}, (4, 3)),
    ],
    ids=["whole", "center_crop", "sliding"],
)
def test_padding_in_levels_is_that_of_the_pixels_under_any_normalization(
    pooled, settings, corner, fill, look
):
    look = NORMALIZATIONS[look]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, *ODD, 3), generator=generator).to(torch.uint8)
    padded = torch.tensor(fill, dtype=torch.uint8).expand(1, 45, 60, 3).clone()
    padded[:, corner[0] : corner[0] + 37, corner[1] : corner[1] + 53] = pixels
    network = pooled(stride=4)
    wanted = network(normalize(padded, look.mean, look.std))
    image = normalize(pixels, look.mean, look.std)
    settings = EvaluationSettings(**settings, fill=fill)
    prediction = predict_logits(network, image, settings, normalization=look)
    assert torch.equal(prediction.views[0].parts[0].logits, wanted)
    with pytest.raises(
        ValueError, match=r"fill \(.*\) is in RGB levels: hand in the normalization"
    ):
        predict_logits(network, image, settings)


@pytest.mark.parametrize("size", [ODD, (12, 53), (12, 9), (16, 24)])
@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_sliding_windows_of_a_per_pixel_network_are_the_whole(pooled, draw, size, average):
    network, image = pooled(), draw(*size, images=2)
    settings = EvaluationSettings(
        mode="sliding", crop_size=(16, 24), average=average, window_batch=3
    )
    whole = network(image).softmax(1)
    torch.testing.assert_close(full(predict_logits(network, image, settings)), whole)


def test_sliding_windows_are_summed_as_by_the_book(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD)
    settings = EvaluationSettings(mode="sliding", crop_size=(18, 22), stride=0.5)
    total, count = torch.zeros(1, 4, *ODD), torch.zeros(ODD)
    for top in (0, 9, 18, 19):
        for left in (0, 11, 22, 31):
            area = (slice(None), slice(None), slice(top, top + 18), slice(left, left + 22))
            total[area] += upsampled(network, image[area]).softmax(1)
            count[area[2:]] += 1
    found = full(predict_logits(network, image, settings))
    torch.testing.assert_close(found, total / count)


def test_scales_and_flips_are_averaged_as_by_the_book(pooled, draw):
    network, image = pooled(), draw(*ODD)
    settings = EvaluationSettings(scales=(0.5, 1.0, 1.5), flip=True)
    total = torch.zeros(1, 4, *ODD)
    for size in ((18, 26), ODD, (56, 80)):
        scaled = resize_image(image, size)
        for flipped in (False, True):
            logits = network(scaled.flip(-1) if flipped else scaled)
            logits = F.interpolate(logits, size=ODD, mode="bilinear").softmax(1)
            total += logits.flip(-1) if flipped else logits
    torch.testing.assert_close(full(predict_logits(network, image, settings)), total / 6)


def test_averaged_logits_are_averaged_before_the_softmax(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD)
    settings = EvaluationSettings(flip=True, average="logits")
    mirrored = upsampled(network, image.flip(-1)).flip(-1)
    wanted = ((upsampled(network, image) + mirrored) / 2).softmax(1)
    torch.testing.assert_close(full(predict_logits(network, image, settings)), wanted)


@pytest.mark.parametrize("size", [(33, 41), (32, 40)])
def test_with_flips_a_mirrored_image_has_mirrored_labels(pooled, draw, size):
    network, image = pooled(stride=4), draw(*size)
    settings = EvaluationSettings(
        mode="sliding", crop_size=(20, 20), flip=True, scales=(0.75, 1.25)
    )
    found = full(predict_logits(network, image, settings))
    mirrored = full(predict_logits(network, image.flip(-1), settings))
    torch.testing.assert_close(mirrored.flip(-1), found)


def test_windows_that_abut_at_any_scale_leave_no_pixel_out(pooled, draw):
    settings = EvaluationSettings(
        mode="sliding", crop_size=(7, 11), stride=1.0, scales=(0.63, 1.37), flip=True
    )
    for height in range(12, 20):
        found = full(predict_logits(pooled(), draw(height, 29), settings))
        torch.testing.assert_close(found.sum(1), torch.ones(1, height, 29))


@pytest.mark.parametrize(
    "settings",
    [
        EvaluationSettings(scales=(0.5, 1.5), flip=True),
        EvaluationSettings(mode="sliding", crop_size=(16, 16)),
        EvaluationSettings(bound=(20, 90)),
    ],
)
def test_bands_of_few_rows_make_the_same_labels(pooled, draw, settings, monkeypatch):
    prediction = predict_logits(pooled(stride=4), draw(*ODD), settings)
    assert len(list(prediction.bands())) == 1
    at_once = full(prediction)
    monkeypatch.setattr(prediction_module, "BAND_ELEMENTS", 5 * 4 * 53)
    assert [rows.stop - rows.start for rows, _, _ in prediction.bands()] == [5] * 7 + [2]
    torch.testing.assert_close(full(prediction), at_once)


@pytest.mark.parametrize("padding", [None, (45, 60)])
def test_without_a_gpu_a_huge_image_is_labeled_in_bands(pooled, draw, padding, monkeypatch):
    prediction = predict_logits(pooled(stride=4), draw(*ODD), EvaluationSettings(pad_to=padding))
    mask = torch.zeros(1, *ODD, dtype=torch.uint8)
    at_once, counts = prediction.label(), prediction.confusion(mask, 4)
    monkeypatch.setattr(prediction_module, "REFERENCE_ELEMENTS", 1000)
    monkeypatch.setattr(prediction_module, "BAND_ELEMENTS", 5 * 4 * 53)
    assert len(list(prediction.bands())) == 8
    banded = prediction.label()
    assert torch.equal(banded[0], at_once[0])
    torch.testing.assert_close(banded[1], at_once[1])
    assert torch.equal(prediction.confusion(mask, 4), counts)


@pytest.mark.parametrize("size", [(18, 26), (12, 26), (9, 13)])
def test_logits_of_a_smaller_view_are_enlarged_at_once_where_its_size_divides_the_images(
    pooled, draw, size, monkeypatch
):
    settings = EvaluationSettings(mode="resize", size=size)
    prediction = predict_logits(pooled(stride=4), draw(36, 52), settings)
    at_once = prediction.label()
    ((_, logits, covered),) = prediction.bands()
    divides = size != (12, 26)
    assert (logits is prediction.views[0].parts[0].logits) == divides
    assert covered == (36, 52)
    monkeypatch.setattr(prediction_module, "REFERENCE_ELEMENTS", 0)
    banded = prediction.label()
    assert torch.equal(banded[0], at_once[0])
    torch.testing.assert_close(banded[1], at_once[1])


@pytest.mark.parametrize(
    ("size", "bound", "seen"),
    [
        ((30, 60), (512, 512), (256, 512)),
        ((60, 30), (512, 1024), (1024, 512)),
        ((100, 120), (50, 1000), (50, 60)),
        ((33, 77), (16, 16), (7, 16)),
    ],
)
def test_a_bound_keeps_the_shape_and_labels_the_image_at_its_own_size(
    pooled, draw, size, bound, seen
):
    network, image = pooled(), draw(*size)
    shapes = []
    network.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[2:]))
    prediction = predict_logits(network, image, EvaluationSettings(bound=bound))
    assert shapes == [seen]
    logits = F.interpolate(network(resize_image(image, seen)), size=size, mode="bilinear")
    torch.testing.assert_close(full(prediction), logits.softmax(1))


@pytest.mark.parametrize("crop", [(16, 20), (64, 70), (16, 70)])
def test_a_centre_crop_counts_the_middle_alone(copying, crop):
    image, mask = torch.zeros(1, 3, 40, 50), torch.zeros(1, 40, 50, dtype=torch.uint8)
    image[:, 1] = 1
    mask[:, 20, 25] = 2
    settings = EvaluationSettings(mode="center_crop", crop_size=crop, fill=(0, 0, 255))
    look = NORMALIZATIONS["none"]
    counts = predict_logits(copying, image, settings, normalization=look).confusion(mask, 3)
    counted = min(crop[0], 40) * min(crop[1], 50)
    # Everything is predicted 1: the one pixel of class 2 lies in every crop, padding in none.
    assert counts.tolist() == [[0, counted - 1, 0], [0, 0, 0], [0, 1, 0]]


def test_padding_counts_as_a_class_where_asked(copying):
    image, mask = torch.zeros(1, 3, 40, 50), torch.ones(1, 40, 50, dtype=torch.uint8)
    image[:, 1] = 1
    settings = EvaluationSettings(
        mode="center_crop", crop_size=(30, 60), fill=(255, 0, 0), padding_class=0
    )
    assert settings.describe() == (
        "center crop, 30x60, fill 255 0 0, padding as class 0, mIoU over classes that occur"
    )
    counts = evaluate_network(
        copying,
        [PlainBatch(image=image, mask=mask, size=(40, 50), keys=("a",))],
        settings,
        class_names=("background", "road", "tree"),
        device=torch.device("cpu"),
        normalization=NORMALIZATIONS["none"],
    ).confusion
    # Red padding, five columns at each side, is predicted as class 0.
    assert counts.tolist() == [[30 * 10, 0, 0], [0, 30 * 50, 0], [0, 0, 0]]


def test_an_even_crop_is_cut_where_the_eye_expects_it(copying, draw):
    image = draw(40, 50)
    settings = EvaluationSettings(mode="center_crop", crop_size=(16, 20))
    prediction = predict_logits(copying, image, settings)
    torch.testing.assert_close(next(prediction.bands())[1], image[..., 12:28, 15:35])


def test_labels_and_confidences_are_the_softmaxs(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD, images=2)
    for settings in (EvaluationSettings(), EvaluationSettings(flip=True)):
        prediction = predict_logits(network, image, settings)
        label, confidence = prediction.label()
        wanted, ids = full(prediction).max(1)
        assert label.dtype == torch.uint8
        torch.testing.assert_close(confidence, wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(label.long(), ids)


def test_half_precision_runs_under_autocast(pooled, draw):
    network, image = pooled(stride=4), draw(*ODD)
    logits = next(predict_logits(network, image, dtype=torch.bfloat16).bands())[1]
    assert logits.dtype == torch.bfloat16


def test_images_are_shrunk_without_aliasing():
    # Stripes of one pixel become grey; sampling alone would hit the light ones.
    stripes = torch.zeros(1, 3, 9, 30)
    stripes[..., ::2] = 1
    shrunk = resize_image(stripes, (9, 10))
    assert (shrunk - 0.5).abs().max() < 0.1


def test_evaluating_gives_each_module_its_mode_back():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    network.train()
    network[1].eval()
    with torch.enable_grad(), evaluating(network):
        assert not any(module.training for module in network.modules())
        assert not network(torch.zeros(1, 3, 2, 2)).requires_grad
    assert [module.training for module in network.modules()] == [True, True, False, True]


def test_a_classifier_is_no_segmentation_network(draw):
    network = nn.AdaptiveAvgPool2d(1)
    network.output_stride = 1
    with pytest.raises(ValueError, match="returned 1x1 logits for an image of 37x53 pixels"):
        predict_logits(network, draw(*ODD))


def test_corners_are_aligned_where_asked(pooled, draw):
    """As codes that enlarge logits so do: whole, and in windows of a flipped view."""
    network, image = pooled(4, 4), draw(33, 47)
    settings = EvaluationSettings(align_corners=True)
    assert settings.describe() == "whole, corners aligned, mIoU over classes that occur"
    label, confidence = predict_logits(network, image, settings).label()
    logits = network(image)
    large = F.interpolate(logits, (33, 47), mode="bilinear", align_corners=True)
    prob, expected = large.softmax(1).max(1)
    assert (label == expected).float().mean() > 0.999
    torch.testing.assert_close(confidence, prob, rtol=1e-4, atol=1e-5)
    plain, _ = predict_logits(network, image).label()
    assert (plain != label).any()
    windows = EvaluationSettings(
        mode="sliding", crop_size=(24, 24), stride=0.5, flip=True, align_corners=True
    )
    total = torch.zeros(1, 4, 33, 47)
    for flip in (False, True):
        seen = image.flip(-1) if flip else image
        views, counts = torch.zeros(1, 4, 33, 47), torch.zeros(33, 47)
        for top in window_starts(33, 24, 0.5):
            for left in window_starts(47, 24, 0.5):
                part = (..., slice(top, top + 24), slice(left, left + 24))
                own = F.interpolate(
                    network(seen[part]), (24, 24), mode="bilinear", align_corners=True
                )
                views[part] += own.softmax(1)
                counts[part[1:]] += 1
        views = views / counts
        total += views.flip(-1) if flip else views
    label, confidence = predict_logits(network, image, windows).label()
    prob, expected = (total / 2).max(1)
    assert (label == expected).float().mean() > 0.999
    torch.testing.assert_close(confidence, prob, rtol=1e-4, atol=1e-5)
