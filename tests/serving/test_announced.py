"""What is known of a picture before its bytes come."""

import pytest
from starlette.requests import Request

from serving.http.requests import announces_large_picture


@pytest.mark.parametrize(
    ("headers", "announces"),
    [
        ({"content-type": "image/jpeg", "content-length": "700000"}, True),
        ({"content-type": "application/octet-stream", "content-length": "700000"}, True),
        ({"content-type": "image/jpeg", "content-length": "500000"}, False),
        ({"content-type": "image/jpeg"}, False),
        ({"content-type": "image/jpeg", "content-length": "-7"}, False),
        # of many items each may be small
        ({"content-type": "multipart/form-data; boundary=x", "content-length": "700000"}, False),
        ({"content-type": "application/json", "content-length": "700000"}, False),
        ({"content-length": "700000"}, False),
    ],
)
def test_only_a_large_picture_that_is_the_whole_body_is_announced(headers: dict[str, str], *, announces: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert announces_large_picture(Request({"type": "http", "headers": raw})) == announces
