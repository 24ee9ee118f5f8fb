"""Recognise JPEG files that are common and complete, which every decoder decodes to the same pixels.

Markers and segments as in ITU-T T.81, annex B; JFIF's as in ITU-T T.871.
"""

import numpy as np

_JFIF = b"\xff\xd8\xff\xe0"
_TABLES = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Segments allowed before the scan: tables, the restart interval, comments and application segments."""
_BASELINE, _SCAN = 0xC0, 0xDA
_SAMPLED = (b"\x01\x11", b"\x01\x21", b"\x01\x22")
"""Number and sampling factors of the luminance component, for 4:4:4, 4:2:2 and 4:2:0."""


def usual_size(data: bytes) -> tuple[int, int] | None:
    """The height and width of a common JPEG, in pixels.

    Args:
        data: content of a file.

    Returns:
        None unless the file is JFIF with one baseline scan of 8-bit YCbCr, 4:4:4, 4:2:2 or 4:2:0, to its end.
        None also if the scan has an invalid marker, which is how most damage shows.
    """
    if data[:4] != _JFIF or data[6:11] != b"JFIF\0" or data[-2:] != b"\xff\xd9":
        return None
    place, size = 2, None
    while place + 10 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        body = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == _BASELINE and size is None:
            # Precision, height, width, components; for each component its number, sampling and table.
            components = [body[start : start + 2] for start in range(6, len(body), 3)]
            colours = components[1:] == [b"\x02\x11", b"\x03\x11"] and components[0] in _SAMPLED
            if len(body) != 15 or body[0] != 8 or body[5] != 3 or not colours:
                return None
            size = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        elif marker == _SCAN:
            whole = len(body) == 10 and body[0] == 3 and size is not None and min(size) > 0
            return size if whole and place < len(data) - 2 and _is_clean(data, place) else None
        elif marker not in _TABLES or (place == 2 + 2 + length and length < 16):
            return None
    return None


def _is_clean(data: bytes, start: int) -> bool:
    """Whether every 0xff of a scan is a value (a zero follows) or begins a restart marker."""
    scan = np.frombuffer(data, np.uint8, len(data) - 2 - start, start)
    follows = scan[1:][scan[:-1] == 0xFF]
    return bool(((follows == 0) | (follows & 0xF8 == 0xD0)).all())
