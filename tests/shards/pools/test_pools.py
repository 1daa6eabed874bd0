"""Pools of tars: what comes, in which order, and what becomes of tars that fail."""

import io
import itertools
import tarfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stores import encoded, store, write_pool, write_tar
from warpseg.shards import images
from warpseg.shards.outside.transfer import Transfer
from warpseg.shards.pools import lane as lanes
from warpseg.shards.pools import reading
from warpseg.shards.pools.addresses import spelt_out
from warpseg.shards.pools.lane import Lane, Place, Pool
from warpseg.shards.pools.reading import Broken, Lost, images_of
from warpseg.shards.pools.settings import PoolSettings

QUICK = {"stall": 0.5, "retries": 1, "window": 4}


@pytest.fixture
def folder(tmp_path):
    return write_pool(tmp_path / "pool")


def pool_of(folder, count=2, **settings):
    made = PoolSettings(urls=(f"{folder}/pool-*.tar",), **{**QUICK, **settings})
    return Pool(addresses=spelt_out(made.urls), settings=made, seed=3, lanes=count)


def taken(pool, number, count, place=None):
    lane = Lane(pool, number, place)
    try:
        return [lane.take().key for _ in range(count)]
    finally:
        lane.close()


def test_patterns_are_spelt_out(folder, tmp_path):
    paths = [str(folder / f"pool-{number}.tar") for number in range(6)]
    assert list(spelt_out((f"{folder}/pool-{{0..5}}.tar",))) == paths
    assert list(spelt_out((f"{folder}/pool-*.tar",))) == paths
    listed = tmp_path / "list.txt"
    listed.write_text("# a remark\n" + "\n".join(paths[:2]) + f"\n\n{folder}/pool-{{2..5}}.tar\n")
    assert list(spelt_out((f"@{listed}",))) == paths
    assert spelt_out(("s3://bucket/p-{00..02}.tar",)) == tuple(
        f"s3://bucket/p-0{number}.tar" for number in range(3)
    )
    assert spelt_out(("pipe:cat a,b.tar",)) == ("pipe:cat a,b.tar",)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*pool-9.tar"):
        spelt_out((f"{folder}/pool-9.tar",))
    with pytest.raises(ValueError, match=r"has a star, and only paths may be globs: .*braces"):
        spelt_out(("http://host/pool-*.tar",))
    with pytest.raises(ValueError, match="twice"):
        spelt_out((paths[0], f"{folder}/pool-*.tar"))


def test_globs_reach_folders_of_any_depth(folder, tmp_path):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    for place in (root / "x.tar", root / "a" / "y.tar", root / "a" / "b" / "z.tar"):
        place.write_bytes((folder / "pool-0.tar").read_bytes())
    names = [Path(found).name for found in spelt_out((f"{root}/**/*.tar",))]
    assert sorted(names) == ["x.tar", "y.tar", "z.tar"]
    for pattern in (root, f"{root}/*"):
        with pytest.raises(FileNotFoundError, match=r"is a folder: name its tars, such as .*\*\*"):
            spelt_out((str(pattern),))


@pytest.mark.parametrize("address", ["{}", "file://{}", "pipe:cat {}"])
def test_a_tar_is_read_from_anywhere(folder, address):
    tar = folder / "pool-1.tar"
    found = list(images_of(address.format(tar), PoolSettings(**QUICK)))
    assert [image.key for image in found] == [f"{number:04}" for number in range(5, 10)]
    assert [image.read("jpg") for image in found] == [encoded(n) for n in range(5, 10)]
    assert found[0].size == (24, 32)
    assert found[0].read_image().shape == (24, 32, 3)
    later = images_of(address.format(tar), PoolSettings(**QUICK), 3)
    assert [image.key for image in later] == ["0008", "0009"]


@pytest.mark.parametrize("fault", ["refuse", "reset", "truncate", "hang", "slow", "missing"])
def test_a_store_that_fails_once_loses_nothing(folder, fault):
    with store(folder) as (address, faults):
        faults.put("/pool-0.tar", fault)
        found = list(images_of(f"{address}/pool-0.tar", PoolSettings(**QUICK)))
        assert [image.key for image in found] == [f"{number:04}" for number in range(5)]
        assert faults.asked["/pool-0.tar"] == (1 if fault == "slow" else 2)


@pytest.mark.parametrize("fault", ["reset", "truncate", "hang"])
def test_what_fails_again_and_again_is_left_within_bounded_time(folder, fault):
    with store(folder) as (address, faults):
        faults.put("/pool-0.tar", fault, always=True)
        started, found = time.monotonic(), []
        with pytest.raises(Broken):
            found.extend(images_of(f"{address}/pool-0.tar", PoolSettings(**QUICK)))
        assert time.monotonic() - started < 5
        assert faults.asked["/pool-0.tar"] == 2


def test_a_command_that_hangs_or_fails_is_ended(tmp_path):
    started = time.monotonic()
    with pytest.raises(Broken, match=r"no byte for 0\.5 s"):
        list(images_of("pipe:sleep 60", PoolSettings(**QUICK)))
    with pytest.raises(Broken, match="status 3"):
        list(images_of("pipe:exit 3", PoolSettings(**QUICK)))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("cut", [0.5, "end", "garbage"])
def test_a_damaged_tar_never_ends_in_silence(folder, cut):
    tar = folder / "pool-0.tar"
    data = tar.read_bytes()
    if cut == "end":  # at a head, where tarfile would call it a day
        at = data.index(b"0003.seg.png")
        tar.write_bytes(data[:at])
    elif cut == "garbage":
        at = data.index(b"0003.seg.png")
        tar.write_bytes(data[:at] + b"x" * 512 + data[at + 512 :])
    else:
        tar.write_bytes(data[: int(len(data) * cut)])
    found = []
    with pytest.raises(Broken):
        found.extend(images_of(str(tar), PoolSettings(**QUICK)))


def test_images_become_what_every_loader_reads(tmp_path):
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (9, 8, 7)).save(turned, "JPEG", exif=exif)
    clear = io.BytesIO()
    Image.new("RGBA", (8, 6), (1, 2, 3, 9)).save(clear, "PNG")
    members = [("a/b.jpg", turned.getvalue()), ("c.PNG", clear.getvalue()), ("d.jpg", b"none")]
    members += [("e.image.jpg", encoded(1)), ("f.webp", encoded(2, kind="WEBP"))]
    tar = write_tar(tmp_path / "t.tar", members)
    upright, opaque, broken, webp = images_of(str(tar), PoolSettings())
    assert (upright.key, upright.size, upright.extension) == ("a/b", (40, 20), "jpg")
    assert (opaque.size, opaque.read_image()[0, 0].tolist()) == ((6, 8), [1, 2, 3])
    assert isinstance(broken, Lost)
    assert broken.name == f"{tar}:d"
    assert broken.reason.startswith("cannot be decoded (")
    assert webp.read_image().shape == (24, 32, 3)
    (named,) = images_of(str(tar), PoolSettings(member="image.jpg"))
    assert named.key == "e"


def test_a_png_that_was_written_damaged_fails_wherever_its_crop_lies(tmp_path):
    """A row by an unknown filter, in chunks whose sums are right."""
    data = encoded(1, size=(40, 8), kind="PNG")
    rows = bytearray(40 * 25)
    rows[30 * 25] = 9
    pixels = b"IDAT" + zlib.compress(rows)
    chunk = (len(pixels) - 4).to_bytes(4, "big") + pixels + zlib.crc32(pixels).to_bytes(4, "big")
    data = data[: data.index(b"IDAT") - 4] + chunk + data[-12:]
    (sample,) = images_of(str(write_tar(tmp_path / "t.tar", [("a.png", data)])), PoolSettings())
    for bottom in (10, 40):
        with pytest.raises(ValueError, match="cannot be decoded"):
            sample.read_picture((0, 0, bottom, 8))


@pytest.mark.parametrize("count", [1, 2, 4, 9, 40])
def test_an_epoch_gives_each_image_once(folder, count):
    """Whether a tar has a lane of its own, or is shared by several."""
    pool = pool_of(folder, count)
    seen = []
    for number in range(count):
        units = range(number, pool.units, count)
        images = sum(
            len(range(pool.unit(unit)[1], 5, pool.parts)) for unit in units if unit < pool.units
        )
        seen += taken(pool, number, images)
    assert sorted(seen) == [f"{number:04}" for number in range(30)]


def test_epochs_and_lanes_have_orders_of_their_own(folder):
    pool = pool_of(folder, 1, window=8)
    twice = taken(pool, 0, 60)
    assert sorted(twice[:30]) == sorted(twice[30:])
    assert twice[:30] != twice[30:]
    assert twice[:30] != sorted(twice[:30])
    assert taken(pool, 0, 60) == twice


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 11, 17])
def test_a_lane_goes_on_where_its_place_was_taken(folder, stop):
    pool = pool_of(folder, 2)
    whole = taken(pool, 1, 40)
    lane = Lane(pool, 1)
    before = [lane.take().key for _ in range(stop)]
    place = Place.of_plain(lane.place.to_plain())
    lane.close()
    assert before + taken(pool, 1, 40 - stop, place) == whole


def test_a_tar_that_failed_stays_left_out_after_a_resume(folder):
    """The store is well again when the run goes on, and the order is still that of the run."""
    with store(folder) as (address, faults):
        made = PoolSettings(urls=(f"{address}/pool-{{0..5}}.tar",), **QUICK)
        pool = Pool(addresses=spelt_out(made.urls), settings=made, seed=3, lanes=1)
        first = pool.unit(0)[0].rsplit("/", 1)[1]
        faults.put(f"/{first}", "reset", "reset")
        lane = Lane(pool, 0)
        before = [lane.take().key for _ in range(2)]
        place = lane.place
        rest = [lane.take().key for _ in range(10)]
        assert lane.lost_tars == 1
        lane.close()
        # What could be read before the tar broke was kept; the other tars are whole.
        assert taken(pool, 0, 10, Place.of_plain(place.to_plain())) == rest
        assert place.ended
        assert before


def test_lanes_give_up_where_nothing_can_be_read(folder, tmp_path):
    with store(folder) as (address, _):
        made = PoolSettings(urls=(f"{address}/gone-{{0..20}}.tar",), stall=0.2, retries=0)
        pool = Pool(addresses=spelt_out(made.urls), settings=made, seed=3, lanes=1)
        with pytest.raises(ConnectionError, match=r"8 tars of the pool in a row .*404"):
            taken(pool, 0, 1)
    empty = write_tar(tmp_path / "pool-0.tar", [("a.txt", b"words")])
    with pytest.raises(ValueError, match=r"no tar of the pool has an image.*--pool.member"):
        taken(pool_of(empty.parent, 1), 0, 1)


def test_a_lane_holds_no_more_than_its_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "_LARGEST_WINDOW", 3000)
    folder = write_pool(tmp_path, tars=2, images=200)
    held = list(itertools.islice(lanes.windows(pool_of(folder, 1, window=100), 0, Place(0)), 10))
    sizes = [sum(len(image.data) for image in window.images) for window in held]
    assert all(3000 <= size < 4500 for size in sizes)


def test_closing_leaves_no_thread_behind(folder):
    before = threading.active_count()
    for _ in range(3):
        taken(pool_of(folder, 2), 0, 3)
    for _ in range(50):
        if threading.active_count() <= before:
            break
        time.sleep(0.1)
    assert threading.active_count() <= before


def test_a_transfer_reads_any_portion(folder):
    data = (folder / "pool-0.tar").read_bytes()
    with Transfer(str(folder / "pool-0.tar"), 1.0) as file:
        parts = []
        while part := file.read(777):
            parts.append(part)
    assert b"".join(parts) == data
    assert np.frombuffer(data, np.uint8).size == len(data)


def test_links_are_counted_and_each_loss_is_said_once(tmp_path, caplog):
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w") as tar:
        for name, target in (("a.jpg", None), ("b.jpg", "a.jpg"), ("c.txt", "a.jpg")):
            head, data = tarfile.TarInfo(name), b"" if target else encoded(1)
            head.size = len(data)
            if target:
                head.type, head.linkname = tarfile.SYMTYPE, target
            tar.addfile(head, io.BytesIO(data))
    first, second = images_of(str(path), PoolSettings(**QUICK))
    assert not isinstance(first, Lost)
    assert isinstance(second, Lost)
    assert "it is a link" in second.reason
    settings = PoolSettings(urls=(str(path),), **QUICK)
    pool = Pool(addresses=(str(path),), settings=settings, seed=3, lanes=1)
    taken(pool, 0, 6)
    assert caplog.text.count("linked.tar:b is left out") == 1


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turning():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8))
BLACK = Image.new("RGB", (28, 20))
TOLD = {
    "clear.png": (saved(Image.new("RGBA", (8, 6), (1, 2, 3, 9)), "PNG"), "with transparency"),
    "colour.png": (saved(RGB, "PNG", transparency=(1, 2, 3)), "with transparency"),
    "print.jpg": (saved(RGB.convert("CMYK"), "JPEG"), "CMYK images, which were turned into RGB"),
    "turned.jpg": (saved(RGB, "JPEG", exif=turning()), "that EXIF turns"),
    "moves.png": (saved(RGB, "PNG", save_all=True, append_images=[BLACK]), "pages or frames"),
    "moves.webp": (
        saved(RGB, "WEBP", save_all=True, append_images=[BLACK], lossless=True),
        "pages or frames",
    ),
    "deep.png": (saved(Image.fromarray(np.full((4, 5), 40_000, np.uint16)), "PNG"), "16 bits"),
}
WHOLE = {
    "plain.jpg": saved(RGB, "JPEG", exif=b"Exif\0\0"),
    "grey.png": saved(RGB.convert("L"), "PNG"),
    "opaque.png": saved(RGB.convert("RGBA"), "PNG"),
    "palette.png": saved(RGB.convert("P"), "PNG"),
    "preview.jpg": saved(RGB, "MPO", save_all=True, append_images=[BLACK]),
    "web.webp": saved(RGB, "WEBP"),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_an_image_loses_is_said_once_and_counted(tmp_path, caplog, name):
    data, words = TOLD[name]
    stem, kind = name.split(".")
    members = [(f"{number}{stem}.{kind}", data) for number in range(3)]
    path = write_tar(tmp_path / "pool-0.tar", [*members, ("plain.jpg", WHOLE["plain.jpg"])])
    read = next(images_of(str(path), PoolSettings(**QUICK)))
    assert not isinstance(read, Lost)
    with Image.open(io.BytesIO(data)) as picture:
        picture.seek(0)
        shown = np.asarray(images.to_rgb(images.eight_bits(picture.copy(), "", []), ""))
    if name != "turned.jpg":
        assert np.abs(read.read_image().astype(int) - shown).mean() < 5
    lane = Lane(pool_of(tmp_path, 1), 0)
    taken_twice = [lane.take() for _ in range(8)]
    lane.close()
    assert lane.changed_images == sum("plain" not in image.key for image in taken_twice) == 6
    assert caplog.text.count("the pool has ") == 1
    assert words in caplog.text
    assert f"first: {path}:" in caplog.text


def test_whole_images_are_not_decoded_to_learn_so(tmp_path, caplog, monkeypatch):
    path = write_tar(tmp_path / "pool-0.tar", WHOLE.items())
    assert not any(image.changes for image in images_of(str(path), PoolSettings(**QUICK)))
    taken(pool_of(tmp_path, 1), 0, 12)
    assert "the pool has" not in caplog.text
    monkeypatch.setattr(reading, "pack_image", lambda *_, **__: pytest.fail("it was decoded"))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    plain = [(n, d) for n, d in WHOLE.items() if n not in ("opaque.png", "palette.png")]
    write_tar(path, plain)
    assert len(list(images_of(str(path), PoolSettings(**QUICK)))) == len(plain)


def test_samples_of_several_images_and_of_none_are_said(tmp_path, caplog):
    """A mask beside a WebP would be taken for the image."""
    members = [("a.webp", WHOLE["web.webp"]), ("a.png", WHOLE["grey.png"])]
    members += [("b.tif", b"II*"), ("b.json", b"{}"), ("c.tif", b"II*"), ("d.jpg", encoded(1))]
    write_tar(tmp_path / "pool-0.tar", members)
    lane = Lane(pool_of(tmp_path, 1), 0)
    assert {lane.take().key for _ in range(4)} == {"a", "d"}
    lane.close()
    assert lane.changed_images == 2
    assert caplog.text.count("samples of several images, of which the first kind of jpg") == 1
    assert caplog.text.count("is passed over") == 1
    assert "pool-0.tar:b is passed over, as will be others like it" in caplog.text
    assert "only 'tif, json'; --pool.member" in caplog.text
