"""What Schemathesis cannot know from OpenAPI: what a picture is, and which valid parameters exclude each other."""

from io import BytesIO
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, HookContext


def picture(kind: str, size: tuple[int, int]) -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


PICTURES = [picture(kind, (24, 16)) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
PICTURES.append(picture("PNG", (2000, 2000)))

pictures = st.sampled_from(PICTURES)
damaged = st.builds(lambda whole, at: whole[: at % len(whole)], pictures, st.integers(0, 1000))

schemathesis.openapi.media_type("application/octet-stream", pictures | damaged | st.binary(max_size=200))


@schemathesis.hook
def filter_case(_: HookContext, case: Case[Any]) -> bool:
    """OpenAPI has no words for these: a version and a label at once, an explanation of one that gives none, a heat map
    of nothing.
    """
    query = case.query or {}
    explains, names = query.get("explain") in (True, "true", "1"), query.keys() & {"version", "version_label"}
    return len(names) < 2 and not (explains and names) and (explains or "overlay" not in query)
