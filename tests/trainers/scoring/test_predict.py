"""Labeling files: any size and format, names kept, nothing of the user's lost."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from warpseg import IGNORE
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards.masks.palette import default_palette
from warpseg.trainers import drawing
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring import image_files
from warpseg.trainers.scoring.image_files import Source, batched_by_size, find_images, read_image
from warpseg.trainers.scoring.predict import predict_images
from warpseg.trainers.scoring.settings import PredictSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

CPU = torch.device("cpu")
NAMES = ("red", "green", "blue")
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
LOSSLESS = PredictSettings(overlay="none", threads=2, batch_size=3)


@pytest.fixture
def trained(copying):
    """Return a network that labels a pixel by its strongest channel."""
    return TrainedNetwork(
        network=copying,
        name="copying",
        classes=NAMES,
        palette=PALETTE,
        normalization=NORMALIZATIONS["none"],
        evaluation=EvaluationSettings(),
    )


def picture(height, width, seed=0):
    """Return an RGB image whose strongest channels are known: (image, mask), uint8."""
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, 3, (height, width), dtype=np.uint8)
    image = draw.integers(0, 100, (height, width, 3), dtype=np.uint8)
    image[np.arange(height)[:, None], np.arange(width), mask] += 120
    return image, mask


def written_mask(out, name):
    image = Image.open(out / "masks" / f"{name}.png")
    assert image.mode == "P"
    return np.asarray(image), image.getpalette()


def test_a_folder_of_sizes_and_formats_keeps_its_names(trained, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "b" / "c").mkdir(parents=True)
    wanted = {}
    files = ["a.png", "b/one.PNG", "b/two.bmp", "b/c/three.tif", "z.ppm", "odd.name.png"]
    for seed, name in enumerate(files):
        # Two sizes in turn, so batches must be made out of order.
        image, mask = picture(9 + seed % 2, 14, seed)
        Image.fromarray(image).save(source / name)
        wanted[name.rsplit(".", 1)[0]] = mask
    (source / "notes.txt").write_text("no image")
    (source / ".hidden.png").write_bytes(b"no image either")
    report = predict_images(trained, [source], out, LOSSLESS, device=CPU)
    assert (report.images, report.skipped) == (6, ())
    for name, mask in wanted.items():
        found, colours = written_mask(out, name)
        assert np.array_equal(found, mask), name
        assert colours[:9] == [level for colour in PALETTE for level in colour]
    found = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert found == {f"masks/{name}.png" for name in wanted} | {"predictions.json"}
    marker = json.loads((out / "predictions.json").read_text())
    assert marker["complete"] is True
    assert marker["images"]["b/c/three"] == str(source / "b/c/three.tif")
    assert marker["classes"] == list(NAMES)


def test_overlays_show_image_colours_and_legend(trained, tmp_path):
    image, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    image[:, :40, 0], image[:, 40:, 2] = 200, 100
    mask[:, 40:] = 2
    Image.fromarray(image).save(tmp_path / "a.png")
    settings = PredictSettings(overlay="png", opacity=0.5, threads=1, confidence=True)
    predict_images(trained, [tmp_path / "a.png"], tmp_path / "out", settings, device=CPU)
    drawn = np.asarray(Image.open(tmp_path / "out/overlays/a.png"))
    assert drawn[30, 10].tolist() == [200, 0, 0]
    assert drawn[30, 60].tolist() == [0, 0, 150]
    # The border between the classes is dark, the legend stands below, on paper.
    assert drawn[30, 39].tolist() == [66, 0, 0]
    assert drawn.shape[0] > 60
    assert drawn[-1, -1].tolist() == list(drawing.PAPER)
    confidence = np.asarray(Image.open(tmp_path / "out/confidence/a.png"))
    # softmax of (200, 0, 0) / 255 and of (0, 0, 100) / 255.
    chance = (
        np.exp(200 / 255) / (np.exp(200 / 255) + 2),
        np.exp(100 / 255) / (np.exp(100 / 255) + 2),
    )
    assert confidence[0, 0] == round(255 * chance[0])
    assert confidence[0, 79] == round(255 * chance[1])


def test_jpeg_overlays_without_legend_have_the_images_size(trained, tmp_path):
    Image.fromarray(picture(12, 17)[0]).save(tmp_path / "a.png")
    settings = PredictSettings(legend=False, threads=1)
    predict_images(trained, [tmp_path / "a.png"], tmp_path / "out", settings, device=CPU)
    with Image.open(tmp_path / "out/overlays/a.jpg") as drawn:
        assert (drawn.format, drawn.size) == ("JPEG", (17, 12))


def test_a_turned_image_is_labeled_upright(trained, tmp_path):
    image, mask = picture(8, 13)
    exif = Image.Exif()
    exif[0x0112] = 6
    # Orientation 6: viewers turn the stored pixels clockwise.
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    predict_images(trained, [tmp_path / "a.png"], tmp_path / "out", LOSSLESS, device=CPU)
    found, _ = written_mask(tmp_path / "out", "a")
    assert np.array_equal(found, np.rot90(mask, -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode).save(file)
    found = read_image(file)
    assert found.shape == (4, 5, 3)
    assert found.dtype == np.uint8
    assert (found == 255).all()


def test_deep_images_are_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 1].tolist() == [0, 1, 128, 255]
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"b\.tif has 32 bits a pixel"):
        read_image(tmp_path / "b.tif")


def test_a_palette_with_transparency_is_read(tmp_path):
    image = Image.fromarray(np.zeros((2, 2), np.uint8), "L").convert("P")
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert read_image(tmp_path / "a.png").shape == (2, 2, 3)


def test_an_unreadable_file_stops_with_its_name(trained, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture(8, 8)[0]).save(source / "a.png")
    (source / "b.jpg").write_bytes(b"this is no picture")
    with pytest.raises(ValueError, match=r"b\.jpg cannot be decoded .*--on-error skip"):
        predict_images(trained, [source], tmp_path / "out", LOSSLESS, device=CPU)


def test_unreadable_files_can_be_skipped_and_are_listed(trained, tmp_path, caplog):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(picture(8, 8)[0]).save(source / name)
    whole = (source / "a.png").read_bytes()
    (source / "b.png").write_bytes(whole[: len(whole) // 2])
    settings = PredictSettings(overlay="none", threads=2, on_error="skip")
    report = predict_images(trained, [source], out, settings, device=CPU)
    assert report.images == 2
    (sentence,) = report.skipped
    assert "b.png cannot be decoded" in sentence
    assert sorted(file.name for file in (out / "masks").iterdir()) == ["a.png", "c.png"]
    assert json.loads((out / "predictions.json").read_text())["skipped"] == [sentence]


def test_an_image_that_the_network_refuses_is_named(trained, tmp_path):
    def refuse(module, inputs):
        if inputs[0].shape[2] < 8:
            raise ValueError("image is 4 x 9 pixels; this network needs at least 8 x 8")

    trained.network.register_forward_pre_hook(refuse)
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture(9, 9)[0]).save(source / "a.png")
    Image.fromarray(picture(4, 9)[0]).save(source / "small.png")
    message = r"small\.png cannot be labeled: image is 4 x 9 pixels"
    with pytest.raises(ValueError, match=message):
        predict_images(trained, [source], tmp_path / "out", LOSSLESS, device=CPU)
    settings = PredictSettings(overlay="none", on_error="skip")
    report = predict_images(trained, [source], tmp_path / "out", settings, device=CPU)
    assert (report.images, len(report.skipped)) == (1, 1)


def test_a_folder_without_images_is_an_error(trained, tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=r"in holds no images; .*\.jpg"):
        predict_images(trained, [tmp_path / "in"], tmp_path / "out", device=CPU)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        find_images([tmp_path / "nowhere"])
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_mixed_with_predictions(trained, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(picture(8, 8)[0]).save(source / "a.png")
    with pytest.raises(ValueError, match="in holds other files; choose a new folder"):
        predict_images(trained, [tmp_path / "in"], source, LOSSLESS, device=CPU)
    with pytest.raises(ValueError, match=r"a\.png is a file"):
        predict_images(trained, [source], source / "a.png", LOSSLESS, device=CPU)
    predict_images(trained, [source], out, LOSSLESS, device=CPU)
    with pytest.raises(ValueError, match="choose a new folder or --overwrite"):
        predict_images(trained, [source], out, LOSSLESS, device=CPU)
    again = PredictSettings(overlay="none", overwrite=True)
    assert predict_images(trained, [source], out, again, device=CPU).images == 1


def test_predictions_that_were_stopped_may_be_made_again(trained, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be decoded"):
        predict_images(trained, [source], out, LOSSLESS, device=CPU)
    Image.fromarray(picture(8, 8)[0]).save(source / "a.png")
    assert predict_images(trained, [source], out, LOSSLESS, device=CPU).images == 1


def test_predictions_below_the_images_are_not_labeled(tmp_path):
    out = tmp_path / "out"
    (out / "masks").mkdir(parents=True)
    for file in (tmp_path / "a.png", out / "masks" / "a.png"):
        Image.fromarray(picture(4, 4)[0]).save(file)
    assert find_images([tmp_path], out) == [Source(tmp_path / "a.png", "a")]


def test_two_files_of_one_name_are_an_error(tmp_path):
    for name in ("a.png", "A.jpg"):
        Image.fromarray(picture(4, 4)[0]).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"A\.jpg and .*a\.png would both be labeled as a\.png"):
        find_images([tmp_path])


def test_no_images_are_an_error(trained, tmp_path):
    with pytest.raises(ValueError, match="no images: name image files, or folders of them"):
        predict_images(trained, [], tmp_path / "out", device=CPU)
    assert not (tmp_path / "out").exists()


def test_a_protocol_that_labels_a_part_is_refused(trained, tmp_path):
    values = vars(trained)
    part = EvaluationSettings(mode="center_crop", crop_size=(8, 8))
    with pytest.raises(ValueError, match="center_crop labels only the middle"):
        predict_images(
            TrainedNetwork(**{**values, "evaluation": part}), [tmp_path], tmp_path, device=CPU
        )
    with pytest.raises(ValueError, match="this network is for classification"):
        predict_images(
            TrainedNetwork(**{**values, "task": "classification"}), [tmp_path], tmp_path, device=CPU
        )


def test_a_fixed_size_still_labels_images_at_their_own(trained, tmp_path):
    image = np.zeros((12, 20, 3), np.uint8)
    image[:, :10, 0], image[:, 10:, 1] = 200, 200
    Image.fromarray(image).save(tmp_path / "a.png")
    half = EvaluationSettings(mode="resize", size=(6, 10))
    network = TrainedNetwork(**{**vars(trained), "evaluation": half})
    predict_images(network, [tmp_path / "a.png"], tmp_path / "out", LOSSLESS, device=CPU)
    found, _ = written_mask(tmp_path / "out", "a")
    assert np.array_equal(found, image[..., 1] // 200)


def test_padding_has_the_levels_that_the_protocol_names(trained, pooled, tmp_path):
    image, _ = picture(13, 18)
    framed = np.zeros((20, 24, 3), np.uint8)
    framed[:13, :18] = image
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(framed).save(tmp_path / "framed.png")
    values = {**vars(trained), "network": pooled(3, 4), "normalization": NORMALIZATIONS["caffe"]}
    found = {}
    for name, settings in {
        "image": EvaluationSettings(pad_to=(20, 24), fill=(0, 0, 0)),
        "framed": EvaluationSettings(),
    }.items():
        network = TrainedNetwork(**{**values, "evaluation": settings})
        predict_images(network, [tmp_path / f"{name}.png"], tmp_path / name, LOSSLESS, device=CPU)
        found[name], _ = written_mask(tmp_path / name, name)
    assert np.array_equal(found["image"], found["framed"][:13, :18])


def test_few_images_wait_for_others_of_their_size():
    sizes = [8, 9, 8, 10, 11, 9, 8, 12, 12, 12, 13]
    images = [(Source(None, str(i)), np.zeros((size, 8, 3))) for i, size in enumerate(sizes)]
    most = 0

    def counted():
        nonlocal most
        for number, item in enumerate(images, start=1):
            most = max(most, number - done)
            yield item

    done, batches = 0, []
    for batch in batched_by_size(counted(), 3):
        batches.append([int(source.name) for source, _ in batch])
        done += len(batch)
    assert sorted(index for batch in batches for index in batch) == list(range(11))
    assert all(len({sizes[i] for i in batch}) == 1 for batch in batches)
    # Six were waiting when the most frequent size went, incomplete.
    assert batches[:3] == [[0, 2], [1, 5], [7, 8, 9]]
    assert most <= 6


def test_few_images_are_decoded_ahead(tmp_path, monkeypatch):
    decoded = []

    def read(path):
        decoded.append(path)
        return np.zeros((1, 1, 3), np.uint8), []

    monkeypatch.setattr(image_files, "read_picture", read)
    sources = [Source(tmp_path / str(number), str(number)) for number in range(20)]
    with image_files.ThreadPoolExecutor(2) as pool:
        images = image_files.read_ahead(sources, pool, 4, pytest.fail)
        taken = [next(images)[0].name for _ in range(3)]
        pool.submit(int).result()
        assert taken == ["0", "1", "2"]
        assert len(decoded) <= 3 + 4
        assert [source.name for source, _ in images] == [str(number) for number in range(3, 20)]


def test_ignored_pixels_show_the_image_alone():
    image, _ = picture(6, 7)
    mask = np.full((6, 7), IGNORE, np.uint8)
    assert np.array_equal(drawing.overlay(image, mask, PALETTE), image)
    indexed = drawing.indexed_image(mask, PALETTE)
    assert indexed.convert("RGB").getpixel((0, 0)) == drawing.IGNORE_COLOUR


def test_a_legend_holds_every_class_at_any_width():
    names = ["road", "a very long name of a class indeed", *(f"class {i}" for i in range(17))]
    palette = default_palette(20)[1:]
    for width in (40, 200, 600):
        strip = np.asarray(drawing.legend(names, palette, width))
        assert strip.shape[1] == width
        colours = {tuple(colour) for colour in strip.reshape(-1, 3).tolist()}
        assert set(palette) <= colours


def test_a_contact_sheet_sets_images_in_rows():
    wide, tall = picture(20, 40)[0], picture(80, 40)[0]
    sheet = drawing.contact_sheet([[wide, wide], [tall, tall]], ["one", "two"], width=40)
    pixels = np.asarray(sheet)
    assert np.array_equal(pixels[26:46, 6:46], wide)
    assert np.array_equal(pixels[26:46, 52:92], wide)
    assert np.array_equal(pixels[52:132, 6:46], tall)
    with_names = drawing.contact_sheet([[wide]], ["one"], classes=NAMES, palette=PALETTE)
    assert with_names.height > 26 + 160


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"opacity": 1.5}, "--opacity must lie in"),
        ({"batch_size": 0}, "--batch-size must be at least 1; got 0"),
        ({"threads": 0}, "--threads must be at least 1; got 0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PredictSettings(**values)


def test_what_was_predicted_before_is_no_image(trained, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(picture(12, 12)[0]).save(source / "a.png")
    overlaid = PredictSettings(threads=1, confidence=True)
    first = predict_images(trained, [source], source / "first", overlaid, device=CPU)
    again = predict_images(trained, [source], source / "second", LOSSLESS, device=CPU)
    assert (first.images, again.images) == (1, 1)
    assert any("3 images in folders of predictions" in line for line in again.said)
    named = predict_images(trained, [source / "first"], tmp_path / "out", LOSSLESS, device=CPU)
    assert named.images == 2
    assert any("1 images in folders of masks" in line for line in named.said)


@pytest.mark.parametrize("windows", ["never", "always"])
def test_what_is_not_shown_is_said_by_windows_too(trained, tmp_path, windows):
    image = np.dstack([picture(12, 12)[0], np.full((12, 12), 7, np.uint8)])
    Image.fromarray(image).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="rgb", extrasamples=[0])
    settings = PredictSettings(overlay="none", threads=1, windows=windows)
    report = predict_images(trained, [tmp_path], tmp_path / "out", settings, device=CPU)
    assert [line.split(" (")[0] for line in report.said] == [
        "not shown whole: 1 images with transparency, which was dropped",
        "not shown whole: 1 images of further channels, which were dropped",
    ]
