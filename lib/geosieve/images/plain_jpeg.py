"""Recognizes JPEG files that hold nothing but their pixels."""

from __future__ import annotations

import re
import struct

_START, _END, _JFIF = b"\xff\xd8", b"\xff\xd9", b"\xff\xe0"
_TABLES = (b"\xff\xdb", b"\xff\xc4", b"\xff\xdd")  # quantization, Huffman codes, restart interval
_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")  # baseline, extended, progressive; with Huffman codes
_SCAN = b"\xff\xda"
_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # ends the codes of a scan: neither a stuffed byte nor a restart


def plain_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels of a JPEG file without metadata; None for every other file.

    Such a file has a JFIF header without a thumbnail, 8 bits, one or three channels (grey, or YCbCr in sRGB), and ends
    with its pixels. There is no segment for EXIF, XMP, an ICC profile or a comment, nor anything behind the image. So
    it is upright, and it tells nothing that its pixels do not show.

    Source: ITU-T T.81 (JPEG), Annex B; ITU-T T.871 (JFIF). The codes of the pixels are not decoded.
    """
    if content[:2] != _START:
        return None
    at, size = 2, None
    while (marker := content[at : at + 2]) != _END:
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        body = content[at + 4 : at + 2 + length]
        if at == 2:
            if marker != _JFIF or len(body) != 14 or not body.startswith(b"JFIF\0") or body[12:] != b"\0\0":
                return None
        elif marker in _FRAMES:
            if size is not None or len(body) < 6 or body[0] != 8 or body[5] not in (1, 3):
                return None
            height, width = struct.unpack(">HH", body[1:5])
            size = width, height
        elif marker not in (*_TABLES, _SCAN):
            return None
        at += 2 + length
        if marker == _SCAN:
            found = _NEXT.search(content, at)
            if found is None:
                return None
            at = found.start()
    return size if at + 2 == len(content) else None
