"""Scores against confusion matrices that were counted by hand."""

import json
from pathlib import Path

import pytest
import torch
from ranks import launch
from torch import nn
from warpseg import IGNORE
from warpseg.kernels import normalize
from warpseg.pipelines import NORMALIZATIONS
from warpseg.pipelines.batches import PlainBatch
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring.evaluate import evaluate_network
from warpseg.trainers.scoring.score import Score

NAMES = ("road", "tree", "sky")
CPU = torch.device("cpu")
WORKER = Path(__file__).parents[1] / "rank_worker.py"


def plain(predicted, mask, key="00000000"):
    """Return a batch of one image that the copying network labels as `predicted`."""
    planes = torch.stack([(torch.tensor(predicted) == index).float() for index in range(3)])
    return PlainBatch(
        image=planes[None],
        mask=None if mask is None else torch.tensor([mask], dtype=torch.uint8),
        size=(planes.shape[1], planes.shape[2]),
        keys=(key,),
    )


FIRST = plain([[0, 0, 1], [1, 2, 2]], [[0, 0, 0], [1, IGNORE, 2]], "00000000")
SECOND = plain([[0, 2], [2, 1], [1, 1]], [[0, 2], [2, 2], [1, 1]], "00000001")
# Rows true, columns predicted, of FIRST and SECOND together.
COUNTS = [[3, 1, 0], [0, 3, 0], [0, 1, 3]]
IOU = [3 / 4, 3 / 5, 3 / 4]


def evaluate(network, batches, settings=None, **options):
    return evaluate_network(
        network, batches, settings, **{"class_names": NAMES, "device": CPU, **options}
    )


def test_one_matrix_is_counted_over_the_data_set(copying):
    score = evaluate(copying, [FIRST, SECOND], expected_images=2)
    assert score.confusion.tolist() == COUNTS
    assert score.iou.tolist() == pytest.approx(IOU)
    assert score.miou == pytest.approx(0.7)
    assert score.accuracy == pytest.approx(9 / 11)
    assert (score.images, score.absent) == (2, ())


def test_the_score_is_one_json_object(copying):
    text = json.dumps(evaluate(copying, [FIRST, SECOND]).to_json(), allow_nan=False)
    assert json.loads(text) == {
        "miou": pytest.approx(0.7),
        "iou": {"road": 0.75, "tree": 0.6, "sky": 0.75},
        "absent": [],
        "pixel_accuracy": pytest.approx(9 / 11),
        "pixels": 11,
        "confusion": [[3, 1, 0], [0, 3, 0], [0, 1, 3]],
        "images": 2,
        "evaluation": "whole, mIoU over classes that occur",
    }


def test_a_class_that_is_nowhere_is_left_out_and_said(copying):
    score = evaluate(copying, [plain([[0, 0], [2, 0]], [[0, 0], [2, 2]])])
    assert score.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert score.absent == ("tree",)
    values = score.to_json()
    assert values["absent"] == ["tree"]
    assert values["iou"]["tree"] is None
    json.dumps(values, allow_nan=False)
    assert "tree             absent" in score.table()


def test_a_class_that_is_nowhere_counts_as_zero_in_the_mean_over_all(copying):
    batches = [plain([[0, 0], [2, 0]], [[0, 0], [2, 2]])]
    score = evaluate(copying, batches, EvaluationSettings(mean_over="all"))
    assert score.miou == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert score.absent == ("tree",)
    assert score.to_json()["iou"]["tree"] is None
    assert score.to_json()["evaluation"] == "whole, mIoU over all classes"


def test_a_class_that_is_predicted_alone_counts_as_zero(copying):
    score = evaluate(copying, [plain([[0, 1]], [[0, 0]])])
    assert score.absent == ("sky",)
    assert score.miou == pytest.approx((1 / 2 + 0) / 2)


def test_the_table_is_in_percent(copying):
    lines = evaluate(copying, [FIRST, SECOND]).table().splitlines()
    assert [line.split() for line in lines] == [
        ["class", "IoU", "%"],
        ["road", "75.00"],
        ["tree", "60.00"],
        ["sky", "75.00"],
        ["mean", "70.00"],
        ["pixel", "accuracy", "81.82"],
        ["2", "images,", "whole,", "mIoU", "over", "classes", "that", "occur"],
    ]


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_strided_logits_are_scored_as_their_enlargement(pooled, draw, stride):
    network, image = pooled(3, stride), draw(37, 53)
    mask = torch.randint(0, 3, (1, 37, 53), generator=torch.Generator().manual_seed(1))
    mask[:, 5:9, 7:30] = IGNORE
    batch = PlainBatch(image=image, mask=mask.to(torch.uint8), size=(37, 53), keys=("0",))
    with torch.no_grad():
        enlarged = nn.functional.interpolate(network(image), scale_factor=stride, mode="bilinear")[
            ..., :37, :53
        ]
    wanted = torch.zeros(3, 3, dtype=torch.int64)
    for true, predicted in zip(mask.flatten(), enlarged.argmax(1).flatten(), strict=True):
        if true != IGNORE:
            wanted[true, predicted] += 1
    assert evaluate(network, [batch]).confusion.tolist() == wanted.tolist()


def test_a_fixed_size_scores_the_resized_masks(copying):
    mask = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, IGNORE, 1], [2, 2, 1, 1]]
    predicted = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 2, 2]]
    settings = EvaluationSettings(mode="resize", size=(2, 2))
    score = evaluate(copying, [plain(predicted, mask)], settings)
    # One pixel of each block is left: road, tree, sky taken for road, tree taken for sky.
    assert score.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [1, 0, 0]]
    assert score.evaluation == "resize, to 2x2, mIoU over classes that occur"


@pytest.mark.parametrize("look", ["imagenet", "caffe"])
def test_black_padding_scores_as_an_image_padded_before_it_is_normalised(pooled, look):
    look, network = NORMALIZATIONS[look], pooled(3, 4)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 37, 53, 3), generator=generator).to(torch.uint8)
    mask = torch.randint(0, 3, (1, 37, 53), generator=generator).to(torch.uint8)

    def score(pixels, mask, settings):
        image = normalize(pixels, look.mean, look.std)
        batch = PlainBatch(image=image, mask=mask, size=tuple(mask.shape[1:]), keys=("0",))
        return evaluate(network, [batch], settings, normalization=look).confusion.tolist()

    asked = EvaluationSettings(pad_to=(45, 60), fill=(0, 0, 0))
    padded = (
        nn.functional.pad(pixels, (0, 0, 0, 7, 0, 8)),
        nn.functional.pad(mask, (0, 7, 0, 8), value=IGNORE),
    )
    assert score(pixels, mask, asked) == score(*padded, EvaluationSettings())
    assert score(pixels, mask, asked) != score(pixels, mask, EvaluationSettings(pad_to=(45, 60)))


def test_classification_is_scored_by_accuracy(copying):
    image = torch.zeros(4, 3, 5, 5)
    image[torch.arange(4), torch.tensor([0, 2, 2, 1])] = 1
    mask = torch.tensor([0, 2, 1, 1], dtype=torch.uint8)[:, None, None]
    batch = PlainBatch(image=image, mask=mask, size=(5, 5), keys=tuple("abcd"))
    network = nn.Sequential(copying, nn.AdaptiveAvgPool2d(1))
    score = evaluate(network, [batch], task="classification")
    # The mean over 25 pixels of one channel that is 1: logits of 1, 0 and 0.
    sure = torch.tensor([1.0, 0, 0]).softmax(0)[0].item()
    fine = score.to_json()["fine_grained"]
    assert fine == pytest.approx(0.75 * sure)
    assert score.to_json() == {
        "accuracy": 0.75,
        "fine_grained": fine,
        "images": 4,
        "evaluation": "image",
    }
    assert score.table() == f"accuracy 75.00 %, fine-grained {75 * sure:.2f} %  (4 images)"


def test_the_network_comes_back_as_it_was(copying):
    copying.train()
    copying.pool.eval()
    evaluate(copying, [FIRST])
    assert copying.training
    assert not copying.pool.training


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (plain([[0]], None), ValueError, "image 00000000 has no mask; evaluate on a subset"),
        (plain([[0, 1]], [[0], [1]]), ValueError, r"has \(2, 1\) pixels, its image \(1, 2\)"),
        (plain([[0, 1]], [[0, 3]]), ValueError, "1 pixels of the masks have class ids of 3"),
        (plain([[0, 1]], [[IGNORE, IGNORE]]), ValueError, "hold no labeled pixel"),
    ],
)
def test_what_cannot_be_scored_is_said(copying, batch, error, message):
    with pytest.raises(error, match=message):
        evaluate(copying, [batch])


def test_padding_of_no_class_cannot_be_scored(copying):
    settings = EvaluationSettings(mode="center_crop", crop_size=(4, 4), padding_class=3)
    with pytest.raises(
        ValueError, match=r"--evaluation\.padding-class is 3, but the classes are 0"
    ):
        evaluate(copying, [FIRST], settings)


def test_a_lost_image_is_noticed(copying):
    with pytest.raises(RuntimeError, match="2 images were evaluated, but the data set has 3"):
        evaluate(copying, [FIRST, SECOND], expected_images=3)


def test_a_diverged_network_has_no_score(copying):
    with torch.no_grad():
        copying.classifier.weight[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite logits for 2 of 2 images"):
        evaluate(copying, [FIRST, SECOND])


def test_two_ranks_together_get_one_ranks_score(tmp_path):
    """Ranks with unequal shares, 3 images and 2, of the data set that one scores alone."""
    launch(WORKER, "scores", tmp_path)
    joined, alone = (torch.load(tmp_path / f"{name}.pt") for name in ("joined", "alone"))
    assert joined["confusion"].sum() == sum((20 + number) * 31 for number in range(5))
    assert torch.equal(joined["confusion"], alone["confusion"])
    assert joined["images"] == alone["images"] == 5


def test_scores_of_float_counts_stay_exact():
    # 2**40 pixels do not fit into float32's 24 bits.
    counts = torch.tensor([[2**40, 1], [0, 2**40]])
    score = Score(
        confusion=counts, class_names=("a", "b"), images=1, task="segmentation", evaluation="whole"
    )
    assert 0 < 1 - score.iou[0].item() < 1e-11


def test_groups_are_scored_by_themselves_and_add_up(copying, draw):
    batches = [
        PlainBatch(
            image=draw(8, 8, seed),
            mask=torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(seed)).to(
                torch.uint8
            ),
            size=(8, 8),
            keys=(str(seed),),
        )
        for seed in range(3)
    ]
    groups = {"0": "dusk", "1": "day", "2": "dusk"}
    options = {"class_names": ("a", "b", "c"), "device": torch.device("cpu")}
    whole = evaluate_network(copying, batches, groups=groups, **options)
    day = evaluate_network(copying, batches[1:2], **options)
    assert list(whole.groups) == ["day", "dusk"]
    assert torch.equal(whole.groups["day"], day.confusion)
    assert torch.equal(sum(whole.groups.values()), whole.confusion)
    assert whole.to_json()["groups"]["day"] == day.miou
    assert "dusk" in whole.table()
    assert "groups" not in day.to_json()
