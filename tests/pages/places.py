"""What single pages need beside the stand-ins, and what replaces places outside of this machine."""

import re
import shutil
from functools import partial

import numpy as np
import public
import tifffile
import torch
from PIL import Image
from reading import PAGES
from stores import store, write_pool
from warpseg.models.build import build_network


def own_yaml(folder, stack, whole):
    """docs/start.md shows mine.yaml, and then trains by it."""
    (folder / "mine.yaml").write_text(
        re.search(r"```yaml\n(.*?)```", PAGES["docs/start.md"], re.S)[1]
    )
    return ()


def layouts(folder, stack, whole):
    """docs/data.md converts public data sets: small ones of their layouts."""
    public.camvid(folder / "CamVid")
    public.voc(folder / "VOCdevkit" / "VOC2012")
    public.cityscapes(folder / "Cityscapes")
    public.ade20k(folder / "ADEChallengeData2016")
    public.cifar10(folder / "cifar-10.tar.gz")
    return ()


def bucket(folder, stack, whole):
    """docs/pools.md reads a store: one on the loopback, which has as many tars as are named; a
    data set in it is a folder's address, for no driver of a store is needed then."""
    write_pool(folder / "tars", tars=4)
    shutil.copytree(folder / "DATA", folder / "tars" / "data")
    name = partial(re.sub, r"pool-\d*(\d)\d\.tar", lambda m: f"pool-{int(m[1]) % 4}.tar")
    address, _ = stack.enter_context(store(folder / "tars", name=name))
    return ("s3://bucket/data", f"file://{folder}/tars/data"), ("s3://bucket", address)


def disks(folder, stack, whole):
    """docs/launch: disks of one machine and of all, and a store."""
    public.cityscapes(folder / "Cityscapes")
    replaced = bucket(folder, stack, whole)
    return (*replaced, *((f" /{name}/", f" {folder}/{name}/") for name in ("shared", "local")))


def fields(folder, stack, whole):
    """docs/channels.md converts images of six channels of 16 bits, and labels others."""
    rng = np.random.default_rng(0)
    for below, count in (("FIELDS", 24), ("FIELDS/val", 2), ("SCENES", 2)):
        images = folder / below / ("" if below == "SCENES" else "images")
        masks = folder / below / "masks"
        for made in (images, masks)[: 1 if below == "SCENES" else 2]:
            made.mkdir(parents=True)
        for number in range(count):
            image = rng.integers(300, 900, (48, 64, 6), np.uint16)
            image[:, 32:, 3] += 1500
            tifffile.imwrite(
                images / f"{number}.tif", image, photometric="minisblack", planarconfig="contig"
            )
            if below != "SCENES":
                Image.fromarray((image[..., 3] // 1500).astype(np.uint8)).save(
                    masks / f"{number}.png"
                )
    (folder / "FIELDS" / "classes.txt").write_text("ground\ncrop\n")
    return ()


def published(folder, stack, whole):
    """Pages on published networks name files that one fetches: here of random weights."""
    for file, name, options in WEIGHTS if whole else ():
        network = build_network(name, 7, **options)
        torch.save(network.backbone.state_dict(), folder / file)
    return ()


WEIGHTS = (
    ("dinov2_vits14_pretrain.pth", "dpt-dinov2-s14", {}),
    ("dinov2_vitb14_pretrain.pth", "dpt-dinov2-b14", {}),
    ("resnet101.pth", "deeplabv3plus-rn101", {"stem": "deep64"}),
)
"""Files of weights, of what network's encoder, with its options."""
PLACES = {
    "docs/channels.md": fields,
    "docs/networks.md": published,
    "docs/weak-to-strong.md": published,
    "docs/start.md": own_yaml,
    "docs/data.md": layouts,
    "docs/pools.md": bucket,
    "docs/launch/README.md": disks,
}
"""What single pages need beside the stand-ins; what is returned replaces places outside."""
