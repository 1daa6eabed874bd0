"""Random erasing (Zhong et al., 2020) as a strong view: a box of each crop becomes noise.

warpseg train consistency-synthetic-swiftnet18-tiny --plugin docs/examples/view.py
    --strong.view erase --strong.options share=0.3 --data DATA --split NAME --out RUN
"""

import torch
from warpseg.pipelines.strong import device_view


@device_view("erase")
def erase(pixels, draws, *, probability: float = 0.5, share: float = 0.2, levels: int = 16):
    """Fill a box of `share` of the crop by a coarse mosaic of random colours.

    Nothing is known of what lies below it: its pixels are not valid, no loss counts them.
    """
    height, width = pixels.shape[1:3]
    chosen, shape, top, left = draws.uniform(4).unbind(1)
    aspect = torch.exp(2.4 * shape - 1.2)  # from 0.3 to 3.3, as in the paper
    tall = (height * (share * aspect).sqrt()).clamp(max=height).round()
    wide = (width * (share / aspect).sqrt()).clamp(max=width).round()
    rows = torch.arange(height, device=pixels.device) - (top * (height - tall)).floor()[:, None]
    columns = torch.arange(width, device=pixels.device) - (left * (width - wide)).floor()[:, None]
    inside_rows = (rows >= 0) & (rows < tall[:, None])
    inside_columns = (columns >= 0) & (columns < wide[:, None])
    erased = inside_rows[:, :, None] & inside_columns[:, None, :]
    erased &= (chosen < probability)[:, None, None]
    mosaic = (draws.uniform(3, levels, levels) * 256).to(torch.uint8).float()
    mosaic = torch.nn.functional.interpolate(mosaic, (height, width)).to(torch.uint8)
    pixels = torch.where(erased[..., None], mosaic.permute(0, 2, 3, 1), pixels)
    return pixels, ~erased
