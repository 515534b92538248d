"""A plain JSON body is read in one go, and means what the careful way makes of it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from serving.http import requests
from serving.http.requests import texts_in
from serving.problems import Problem, TooLarge

PARTS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b'"',
    b'"text"',
    b'"texts"',
    b'"a"',
    b'"\\u0074ext"',
    b" ",
    b"1",
    b"NaN",
    b"null",
]
LETTERS = ["é".encode(), b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\xef\xbb\xbf", b"\x00", b"text"]


def outcome(body: bytes) -> object:
    try:
        items = texts_in("application/json", body, max_items=2)
    except Problem as problem:
        return type(problem), problem.detail
    return items.raw, items.many


@given(some.lists(some.sampled_from(PARTS + LETTERS), max_size=14).map(b"".join))
@example(b'{"text": "good"}')
@example(b'{"texts": ["good", "", "text"]}')
@example(b'{"text": "good", "text": "bad"}')
@example(b'{"text": "good", "\\u0074ext": "bad"}')
@example(b'{"text": "good", "a": "bad"}')
@example(b'{"text": "good", "texts": ["bad"]}')
@example(b'{"texts": [1, 2]}')
@example(b'\xef\xbb\xbf{"text": "good"}')
@example(b'{"text": "\xed\xa0\x80"}')
@example(b'{"text": "text: \xe2\x80\xa8, \x7f"}')
@example(b'{"text": "a\nb"}')
@example(b'{"text": "a"} x')
@example(b'{"text": null}')
@example(b'\r\n{\t"text" :\n"a"} ')
@example(b'\x0b{"text": "a"}')
def test_both_ways_agree(body: bytes) -> None:
    quickly = outcome(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "PLAIN_BODY", -1)
        assert outcome(body) == quickly


def test_a_text_of_more_commas_than_any_request_needs_is_too_large() -> None:
    body = b'{"text": "' + b"," * (requests.MAX_JSON_VALUES + 1) + b'"}'
    told = "The JSON has more than 500,000 commas, colons and brackets. Send fewer at a time."
    assert outcome(body) == (TooLarge, told)
