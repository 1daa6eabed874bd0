"""What predict takes for images: patterns, addresses, videos, standard input, folders as they are;
and how many at once."""

import io
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from warpseg.pipelines.normalization import NORMALIZATIONS
from warpseg.shards.outside.files import LeftOut
from warpseg.trainers.engine.protocol import EvaluationSettings
from warpseg.trainers.scoring import batches, predict
from warpseg.trainers.scoring.image_files import batched_by_size, find_images
from warpseg.trainers.scoring.predict import label_one, predict_images
from warpseg.trainers.scoring.settings import PredictSettings
from warpseg.trainers.scoring.trained import TrainedNetwork

CPU = torch.device("cpu")
PLAIN = PredictSettings(overlay="none", threads=2, batch_size=3)


@pytest.fixture
def trained(copying):
    """Return a network that labels a pixel by its strongest channel."""
    return TrainedNetwork(
        network=copying,
        name="copying",
        classes=("red", "green", "blue"),
        palette=((200, 0, 0), (0, 200, 0), (0, 0, 200)),
        normalization=NORMALIZATIONS["none"],
        evaluation=EvaluationSettings(),
    )


def write_picture(file, seed=0, size=(9, 14)):
    """Write an image whose strongest channels are known; return them."""
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, 3, size, dtype=np.uint8)
    image = draw.integers(0, 100, (*size, 3), dtype=np.uint8)
    image[np.arange(size[0])[:, None], np.arange(size[1]), mask] += 120
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return mask


def test_patterns_are_the_files_that_they_fit(tmp_path):
    for name in ("a.png", "b.jpg", "c/d.png", "[1].png"):
        write_picture(tmp_path / name)
    names = [source.name for source in find_images([f"{tmp_path}/**/*.png"])]
    assert names == ["[1]", "a", "d"]
    # A file of that very name is that file.
    assert [source.name for source in find_images([tmp_path / "[1].png"])] == ["[1]"]
    with pytest.raises(FileNotFoundError, match=r"\*\.bmp fits no file: .* put it in quotes"):
        find_images([f"{tmp_path}/*.bmp"])


def test_masks_beside_images_are_no_images_unless_they_are_asked_for(tmp_path):
    for name in ("images/a.png", "Masks/a.png", "val/labels/b.png", "c.png"):
        write_picture(tmp_path / name)
    left_out = LeftOut()
    found = [source.name for source in find_images([tmp_path], left_out=left_out)]
    assert found == ["c", "images/a"]
    (line,) = left_out.lines("not taken")
    assert line.startswith("not taken: 2 images in folders of masks: name the folder to label them")
    assert [source.name for source in find_images([tmp_path / "Masks"])] == ["a"]
    assert [source.name for source in find_images([tmp_path / "val"])] == ["labels/b"]


@pytest.fixture
def address(tmp_path):
    """Serve a folder over HTTP; return its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_are_read(trained, address, tmp_path):
    # Of more bytes than come at once.
    wanted = write_picture(tmp_path / "served" / "far away.png", size=(400, 500))
    assert (tmp_path / "served" / "far away.png").stat().st_size > 2**18
    report = predict_images(
        trained, [f"{address}/far%20away.png?v=1"], tmp_path / "out", PLAIN, device=CPU
    )
    assert report.images == 1
    found = np.asarray(Image.open(tmp_path / "out/masks/far away.png"))
    assert np.array_equal(found, wanted)
    marker = json.loads((tmp_path / "out/predictions.json").read_text())
    assert marker["images"] == {"far away": f"{address}/far%20away.png?v=1"}
    with pytest.raises(ValueError, match=r"gone\.png cannot be read \(HTTP status 404"):
        predict_images(trained, [f"{address}/gone.png"], tmp_path / "x", PLAIN, device=CPU)
    with pytest.raises(ValueError, match="is a command: pipe its output to -"):
        predict_images(trained, ["pipe://cat a.png"], tmp_path / "z", PLAIN, device=CPU)
    settings = PredictSettings(out_format="coco")
    with pytest.raises(ValueError, match=r"is of image files, and http.* is none"):
        predict_images(trained, [f"{address}/a.png"], tmp_path / "y", settings, device=CPU)


def test_storage_is_read_by_what_fsspec_knows(trained, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    wanted = write_picture(tmp_path / "a.png")
    with fsspec.open("memory://bucket/a.png", "wb") as file:
        file.write((tmp_path / "a.png").read_bytes())
    predict_images(trained, ["memory://bucket/a.png"], tmp_path / "out", PLAIN, device=CPU)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/masks/a.png")), wanted)


def test_one_image_goes_from_standard_input_to_standard_output(trained, tmp_path, monkeypatch):
    wanted = write_picture(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    mask = Image.open(io.BytesIO(label_one(trained, ["-"], device=CPU)))
    assert mask.mode == "P"
    assert np.array_equal(np.asarray(mask), wanted)
    write_picture(tmp_path / "b.png")
    with pytest.raises(ValueError, match="--out - writes the mask of one image"):
        label_one(trained, [tmp_path], device=CPU)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no image")))
    with pytest.raises(ValueError, match="standard input cannot be decoded"):
        label_one(trained, ["-"], device=CPU)


def write_video(file, frames=6, size=(32, 48)):
    """Write a video of frames of one class each, in turn: red, green, blue."""
    av = pytest.importorskip("av")
    with av.open(str(file), "w") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            image = np.full((*size, 3), 30, np.uint8)
            image[..., number % 3] = 220
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def test_the_frames_of_a_video_are_labeled(trained, tmp_path):
    write_video(tmp_path / "drive.mp4")
    write_picture(tmp_path / "a.png")
    out = tmp_path / "out"
    words = [tmp_path / "a.png", tmp_path / "drive.mp4"]
    report = predict_images(trained, words, out, PLAIN, device=CPU)
    assert report.images == 7
    for number in range(6):
        mask = np.asarray(Image.open(out / f"masks/drive/{number:06d}.png"))
        assert mask.shape == (32, 48)
        assert (mask == number % 3).mean() > 0.95
    marker = json.loads((out / "predictions.json").read_text())
    assert marker["images"] == {"a": str(tmp_path / "a.png")}
    assert marker["videos"] == {"drive": {"file": str(tmp_path / "drive.mp4"), "frames": 6}}


def test_a_video_becomes_a_video(trained, tmp_path):
    av = pytest.importorskip("av")
    write_video(tmp_path / "drive.mp4", size=(33, 48))
    settings = PredictSettings(video="film", threads=1, opacity=1.0)
    predict_images(trained, [tmp_path / "drive.mp4"], tmp_path / "out", settings, device=CPU)
    made = {f.relative_to(tmp_path / "out").as_posix() for f in (tmp_path / "out").rglob("*.*")}
    assert made == {"overlays/drive.mp4", "predictions.json"}
    with av.open(str(tmp_path / "out/overlays/drive.mp4")) as file:
        assert file.streams.video[0].average_rate == 5
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape[:2] == (32, 48)
    assert [int(frame[16, 24].argmax()) for frame in frames] == [0, 1, 2, 0, 1, 2]


def test_a_video_that_is_none_is_named_and_leaves_no_film(trained, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "drive.mp4").write_bytes(b"no video")
    settings = PredictSettings(video="both", threads=1)
    with pytest.raises(ValueError, match=r"drive\.mp4 cannot be read as a video"):
        predict_images(trained, [tmp_path / "drive.mp4"], tmp_path / "out", settings, device=CPU)
    assert not list((tmp_path / "out").rglob("*.mp4*"))


def test_a_film_that_is_broken_off_leaves_nothing(trained, tmp_path, monkeypatch):
    write_video(tmp_path / "drive.mp4")

    def broken(*words):
        yield from list(label(*words))[:1]
        raise RuntimeError("the power fails")

    label = predict.label_batch
    monkeypatch.setattr(predict, "label_batch", broken)
    settings = PredictSettings(video="film", threads=1, batch_size=2)
    with pytest.raises(RuntimeError, match="the power fails"):
        predict_images(trained, [tmp_path / "drive.mp4"], tmp_path / "out", settings, device=CPU)
    assert not [file for file in (tmp_path / "out").rglob("*") if "mp4" in file.name]


def test_a_batch_that_the_memory_does_not_hold_is_halved(trained, tmp_path, monkeypatch):
    wanted = {str(n): write_picture(tmp_path / "in" / f"{n}.png", n) for n in range(5)}
    sizes = []

    def label(self, pixels, dtype):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("too much")
        return whole(self, pixels, dtype)

    whole = TrainedNetwork.label
    monkeypatch.setattr(TrainedNetwork, "label", label)
    settings = PredictSettings(overlay="none", threads=1, batch_size=5)
    predict_images(trained, [tmp_path / "in"], tmp_path / "out", settings, device=CPU)
    assert sizes == [5, 2, 3, 1, 2]
    for name, mask in wanted.items():
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"out/masks/{name}.png")), mask)


def test_large_images_pass_one_by_one(monkeypatch):
    monkeypatch.setattr(batches.os, "sysconf", lambda name: 2**12 if "SIZE" in name else 2**18)
    assert batches.images_in_memory(CPU, (512, 512, 3)) == 2
    assert batches.images_in_memory(CPU, (4000, 4000, 3)) == 0
    images = [(None, np.zeros((n, 4, 3))) for n in (2, 2, 2, 1, 1, 1)]
    found = batched_by_size(images, 3, lambda shape: 3 if shape[0] == 1 else 0)
    assert [len(batch) for batch in found] == [1, 1, 1, 3]
