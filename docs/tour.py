# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour on a CPU
#
# Drawn scenes, eight masks, two trainings of a small pretrained network: what every run with
# WarpSeg goes through, in a few minutes without a GPU. It needs `pip install
# "warpseg[pretrained]"`. Made from docs/tour.py by `make notebook`.

# %%
import tempfile
from pathlib import Path

import warpseg
from PIL import Image
from warpseg.shards import Dataset

work = Path(tempfile.mkdtemp(prefix="warpseg-tour-"))

# %% [markdown]
# ## Data
#
# `convert` packs images and masks into tar shards; own images take the source `folder` in place
# of `synthetic`. A split is an index over the same tars: eight images keep their masks, the
# others are unlabeled.

# %%
data = warpseg.convert("synthetic", None, work / "data", train=120, val=24)
# !warpseg split {work}/data few --labeled 8 --seed 0
# !warpseg check {work}/data

# %% [markdown]
# What does the method train on? The weak view, its mask, the strong view, and in pink what the
# loss leaves out.

# %%
recipe = "consistency-synthetic-swiftnet-lite0-tiny"
# !warpseg show {work}/data --recipe {recipe} --split few --samples 2 --out {work}/views.png
Image.open(work / "views.png")

# %% [markdown]
# ## Training
#
# The same network with masks alone, and with the unlabeled images as well. So few steps show
# how it goes, not who wins: `make demo` trains for longer.

# %%
steps = {
    "num_steps": 60,
    "log_every": 20,
    "optimizer": {"lr": 2e-3, "backbone_lr": 5e-4},
}
supervised = warpseg.train(
    "supervised-synthetic-swiftnet-lite0-tiny",
    data=work / "data",
    split="few",
    out=work / "supervised",
    **steps,
)
consistency = warpseg.train(
    recipe, data=work / "data", split="few", out=work / "consistency", **steps
)
for run in (supervised, consistency):
    print(f"{run.name:<12} mIoU {100 * run.summary()['last']:.1f} %")

# %% [markdown]
# ## Scores
#
# One confusion matrix over the validation set, at the last step.

# %%
print(warpseg.evaluate(supervised).table())

# %% [markdown]
# ## Labels for images of one's own
#
# A loaded network labels files, arrays and pictures at their own size; the colours are the data
# set's.

# %%
trained = warpseg.load(supervised)
image = Dataset.open(work / "data").subset("val").samples()[0].read_image()
both = Image.new("RGB", (2 * image.shape[1], image.shape[0]))
both.paste(Image.fromarray(image), (0, 0))
both.paste(trained.colour(trained.predict(image)).convert("RGB"), (image.shape[1], 0))
both.resize((512, 256), Image.Resampling.NEAREST)

# %% [markdown]
# ## A report
#
# One page with curves, classes, confusion matrices and the worst images.

# %%
# !warpseg report {work}/supervised {work}/consistency --html {work}/report.html
