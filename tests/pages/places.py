"""What single pages need beside the stand-ins, and what replaces places outside of this machine."""

import re
import shutil
from functools import partial

import public
from reading import PAGES
from stores import store, write_pool


def own_yaml(folder, stack):
    """docs/start.md shows mine.yaml, and then trains by it."""
    (folder / "mine.yaml").write_text(
        re.search(r"```yaml\n(.*?)```", PAGES["docs/start.md"], re.S)[1]
    )
    return ()


def layouts(folder, stack):
    """docs/data.md converts public data sets, small ones here; its last one is drawn."""
    (folder / "labeled.txt").write_text("train/00000\ntrain/00001\n")
    public.camvid(folder / "CamVid")
    public.voc(folder / "VOCdevkit" / "VOC2012")
    public.cityscapes(folder / "Cityscapes")
    public.ade20k(folder / "ADEChallengeData2016")
    public.cifar10(folder / "cifar-10.tar.gz")
    return ()


def bucket(folder, stack):
    """docs/pools.md reads a store: one on the loopback, which has as many tars as are named."""
    write_pool(folder / "tars", tars=4)
    shutil.copytree(folder / "DATA", folder / "tars" / "data")
    name = partial(re.sub, r"pool-\d*(\d)\d\.tar", lambda m: f"pool-{int(m[1]) % 4}.tar")
    address, _ = stack.enter_context(store(folder / "tars", name=name))
    return (("s3://bucket", address),)


def disks(folder, stack):
    """docs/launch: disks of one machine and of all, and a store."""
    public.cityscapes(folder / "Cityscapes")
    replaced = bucket(folder, stack)
    return (*replaced, *((f" /{name}/", f" {folder}/{name}/") for name in ("shared", "local")))


PLACES = {
    "docs/start.md": own_yaml,
    "docs/data.md": layouts,
    "docs/pools.md": bucket,
    "docs/launch/README.md": disks,
}
"""What single pages need beside the stand-ins; what is returned replaces places outside."""
