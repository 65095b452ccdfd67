"""Names of uploaded files, in the encodings that browsers and libraries use."""

from __future__ import annotations

import pytest

from wholetrack.api.multipart import OneFileForm


def name_of(parameters: bytes) -> str | None:
    """Return the file name of a form whose part has these parameters."""
    form = OneFileForm(b"b", lambda _: None)
    form.feed(b'--b\r\nContent-Disposition: form-data; name="file"' + parameters + b"\r\n\r\ncontent\r\n--b--\r\n")
    return form.finish()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (b"", None),
        (b'; filename=""', None),
        (b'; filename="song.mp3"', "song.mp3"),
        ('; filename="Größe 日本.wav"'.encode(), "Größe 日本.wav"),
        (b'; filename="\xff.wav"', "\N{REPLACEMENT CHARACTER}.wav"),
        # RFC 8187
        (b"; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%E6%97%A5%E6%9C%AC.wav", "Größe 日本.wav"),
        (b"; FileName*=iso-8859-1'en'%A3%20rates.wav", "£ rates.wav"),
        (b"; filename*=\"utf-8''a%20b.wav\"", "a b.wav"),
        (b"; filename=\"plain.wav\"; filename*=UTF-8''%C3%B6.wav", "ö.wav"),
        (b"; filename*=UTF-8''%C3%B6.wav; filename=\"plain.wav\"", "ö.wav"),
        (b"; filename*0*=UTF-8''%C3%B6; filename*1=.wav", "ö.wav"),
        (b"; filename=\"a; filename*=UTF-8''b.wav\"", "a; filename*=UTF-8''b.wav"),
        (b"; filename*=UTF-8''%FF.wav", "\N{REPLACEMENT CHARACTER}.wav"),
        (b"; filename*=no-charset''a%20b.wav", "a b.wav"),
        # RFC 2047
        (b'; filename="=?utf-8?B?R3LDtsOfZS53YXY=?="', "Größe.wav"),
        (b'; filename="=?iso-8859-1?Q?Gr=F6=DFe_1.wav?="', "Größe 1.wav"),
        (b'; filename="=?utf-8?Q?Gr=C3=B6?= =?utf-8?Q?=C3=9Fe.wav?="', "Größe.wav"),
        (b'; filename="=?no-charset?B?R3I=?="', "=?no-charset?B?R3I=?="),
        (b'; filename="what=?.wav"', "what=?.wav"),
    ],
)
def test_a_name_is_decoded(parameters: bytes, expected: str | None) -> None:
    assert name_of(parameters) == expected


@pytest.mark.parametrize("parameters", [b"; filename*=utf-7''a+2AA-", b'; filename="=?utf-7?Q?a+2AA-?="'])
def test_a_name_with_half_of_a_surrogate_pair_can_be_sent(parameters: bytes) -> None:
    assert name_of(parameters) == "a?"


@pytest.mark.parametrize("parameters", [b"; filename*=UTF-8''" + b"%C3%B6" * 500, b'; filename="' + b"x" * 900 + b'"'])
def test_the_length_of_a_name_is_limited(parameters: bytes) -> None:
    assert len(name_of(parameters) or "") == 255
