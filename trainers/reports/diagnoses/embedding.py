"""Pictures inside an HTML page."""

import base64
import io

from PIL import Image


def embedded(picture: Image.Image, alt: str = "pictures") -> str:
    """Return a picture as an HTML element that needs no file beside the page."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return (
        f'<img alt="{alt}" {size} style="max-width:100%;height:auto" '
        f'src="data:image/jpeg;base64,{data}">'
    )
