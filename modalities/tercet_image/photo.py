"""Read one picture file of the user's into plain PNG: upright, eight-bit RGB, without metadata.

Every file is hostile until decoded: its size is judged before its pixels are, and only common formats are tried.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

# no EPS, PDF or WMF: Pillow hands those to other programs
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
DEEP_MODES = ("I", "F")  # and I;16, I;16B ...: more than eight bits, which convert("RGB") would clip to white


class BadPicture(Exception):
    """A file can't become a training picture; the text says why and what to do."""


def read_picture(data: bytes, max_side: int) -> bytes:
    """Decode a picture and write it as PNG.

    EXIF orientation is applied, transparency is laid on white, and nothing but pixels is kept: no EXIF, no place.

    Raises:
        BadPicture: the file is empty, broken, animated, too large, or not a picture of a known format.
    """
    if not data:
        raise BadPicture("the file is empty; copy it again")
    try:
        with warnings.catch_warnings():
            # Pillow only warns below twice its limit, and of faults in EXIF that it can step over
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                _judge(opened, max_side)
                picture = _flatten(ImageOps.exif_transpose(opened))
    except BadPicture:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadPicture(f"far too many pixels ({error}); scale it down to {max_side} pixels a side") from error
    except UnidentifiedImageError as error:
        raise BadPicture(f"not a picture that can be read; save it as one of {', '.join(FORMATS)}") from error
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise BadPicture(f"broken or cut off ({error}); copy or save it again") from error
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _judge(opened: Image.Image, max_side: int) -> None:
    """Refuse what the header alone shows to be wrong, before a pixel is decoded."""
    # a phone's JPEG (MPO) may carry a second view after the picture
    if getattr(opened, "is_animated", False) and opened.format != "MPO":
        raise BadPicture("more than one frame; save the one that the caption describes")
    if max(opened.size) > max_side:
        wide, high = opened.size
        raise BadPicture(
            f"{wide} x {high} pixels, above {max_side} a side; scale it down or raise modalities.image.max_example_side"
        )
    if opened.mode in DEEP_MODES or opened.mode.startswith("I;"):
        raise BadPicture(f"more than 8 bits a channel (mode {opened.mode}); save it with 8")


def _flatten(picture: Image.Image) -> Image.Image:
    """Make it RGB and nothing else: a new image has no profile, comment or EXIF to write."""
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    plain = Image.new("RGB", picture.size)
    plain.paste(picture.convert("RGB"))
    return plain
