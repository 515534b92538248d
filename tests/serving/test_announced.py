"""What is known of a picture before its bytes come."""

import pytest
from starlette.requests import Request

from serving.http.requests import announced_picture


@pytest.mark.parametrize(
    ("headers", "announced"),
    [
        ({"content-type": "image/jpeg", "content-length": "700000"}, 700_000),
        ({"content-type": "application/octet-stream", "content-length": "700000"}, 700_000),
        ({"content-type": "image/jpeg"}, 0),
        ({"content-type": "image/jpeg", "content-length": "-7"}, 0),
        # of many items each may be small
        ({"content-type": "multipart/form-data; boundary=x", "content-length": "700000"}, 0),
        ({"content-type": "application/json", "content-length": "700000"}, 0),
        ({"content-length": "700000"}, 0),
    ],
)
def test_only_a_picture_that_is_the_whole_body_announces_its_size(headers: dict[str, str], announced: int) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert announced_picture(Request({"type": "http", "headers": raw})) == announced
