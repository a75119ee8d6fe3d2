"""What django-post_office's format breaks, mended."""

import base64

import pytest

from celery_mailer.post_office import repair


@pytest.mark.parametrize(
    ("stored", "addresses"),
    [
        ("", []),
        (None, []),
        ("a@example.com", ["a@example.com"]),
        ("a@example.com, b@example.com", ["a@example.com", "b@example.com"]),
        ("Ada <a@example.com>, b@example.com", ["Ada <a@example.com>", "b@example.com"]),
        (
            '"Doe, John" <john@example.com>, b@example.com',
            ['"Doe, John" <john@example.com>', "b@example.com"],
        ),
        ("Doe, John <john@example.com>", ['"Doe, John" <john@example.com>']),
        (
            "b@example.com, Doe, John, Jr <j@example.com>",
            ["b@example.com", '"Doe, John, Jr" <j@example.com>'],
        ),
        ('"A \\"b\\", c" <a@example.com>', ['"A \\"b\\", c" <a@example.com>']),
        ("a@example.com, nonsense", ["a@example.com", "nonsense"]),
        ('"unclosed <a@example.com>', ['"unclosed <a@example.com>']),
    ],
)
def test_addresses_that_a_comma_joins(stored, addresses):
    assert repair.addresses(stored) == addresses


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("Tom &amp; Jerry&#x27;s &lt;b&gt; &quot;x&quot;", 'Tom & Jerry\'s <b> "x"'),
        ("&amp;lt;", "&lt;"),
        ("&nbsp; &copy; AT&T", "&nbsp; &copy; AT&T"),
    ],
)
def test_one_level_of_html_escaping_is_undone(stored, text):
    assert repair.unescaped(stored) == text


@pytest.mark.parametrize(
    ("stored", "subject"), [("a\n", "a"), ("a\r\nb", "a b"), (" a  b", " a  b"), ("", "")]
)
def test_a_subject_has_no_line_breaks(stored, subject):
    assert repair.one_line(stored) == subject


def test_an_encoded_part_is_decoded():
    headers = {"Content-Transfer-Encoding": "BASE64", "Content-ID": "<logo>", "Content-Type": "image/png"}
    assert repair.part(base64.encodebytes(b"\x89PNG" * 30), headers) == (
        b"\x89PNG" * 30,
        {"Content-ID": "<logo>"},
    )


def test_a_quoted_printable_part_is_decoded():
    assert repair.part(b"h=C3=A4", {"content-transfer-encoding": "quoted-printable"}) == ("hä".encode(), {})


def test_what_says_nothing_of_an_encoding_stays_as_it_is():
    assert repair.part(b"a=3D", {"Content-Disposition": "inline"}) == (
        b"a=3D",
        {"Content-Disposition": "inline"},
    )
    assert repair.part(b"x", None) == (b"x", {})


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"Content-Transfer-Encoding": "base64"}, "is no base64: Incorrect padding"),
        (["Content-ID", "<logo>"], "has headers that are no JSON object"),
    ],
)
def test_a_part_that_cannot_be_read_says_why(headers, fault):
    with pytest.raises(repair.Damaged, match=fault):
        repair.part(b"abc", headers)
