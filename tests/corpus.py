"""Messages of every kind that Django can send: ``CORPUS`` has a maker for each, by its name.

A maker makes a new message at each call, because sending one may leave traces on it.
"""

import email
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from email import charset as charsets
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage as StandardMessage
from email.message import Message as LegacyMessage
from email.message import MIMEPart
from email.mime.application import MIMEApplication
from email.mime.audio import MIMEAudio
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.mime.text import MIMEText
from functools import partial
from itertools import product
from pathlib import Path

import django
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

MODERN = django.VERSION >= (6, 0)  # messages are made by Python's newer API (email.policy)

Message = EmailMessage
Maker = Callable[[], Message]
Finish = Callable[[Message], object]

CORPUS: dict[str, Maker] = {}

BASE = {"subject": "Subject", "body": "Body", "from_email": "shop@example.com", "to": ["ann@example.com"]}
HTML = "<p>Grüße &amp; more</p>"
CALENDAR = "BEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR\r\n"
AMP = "<!doctype html><html ⚡4email><head></head><body></body></html>"
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\nstream\r\n\x00\x01\nendstream\n%%EOF\n"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))
ALL_BYTES = bytes(range(256))
LATIN = "Grüße\n".encode("latin-1")


def make(
    kind: type[Message] = EmailMultiAlternatives, finish: Finish | None = None, /, **fields: object
) -> Message:
    """A new message with ``fields``, over a plain one's; then ``finish(message)``."""
    message = kind(**deepcopy(BASE | fields))
    if finish is not None:
        finish(message)
    return message


def add(
    name: str, finish: Finish | None = None, kind: type[Message] = EmailMultiAlternatives, **fields: object
) -> None:
    """Put a message into the corpus."""
    assert name not in CORPUS, name
    CORPUS[name] = partial(make, kind, finish, **fields)


def setting(**attributes: object) -> Finish:
    """Sets ``attributes`` on the message."""

    def finish(message: Message) -> None:
        for name, value in deepcopy(attributes).items():
            setattr(message, name, value)

    return finish


def both(*finishes: Finish | None) -> Finish:
    """Each of ``finishes``, one after the other."""

    def finish(message: Message) -> None:
        for each in finishes:
            if each is not None:
                each(message)

    return finish


# Texts.

TEXTS = {
    "ascii": "Hello Ann,\n\nit is on its way.\n",
    "without a final newline": "Hello",
    "utf-8": "Grüße, 日本語, Ελληνικά, 👩🏽‍🚀\n",
    "right to left": "مرحبا بك في متجرنا\nשלום\n",
    "combining marks and joiners": "e\u0301 \u200d \u200b \u00a0 \u3000 \ufeff\n",
    "long line": "word " * 500,
    "long line without a space": "x" * 2500,
    "long utf-8 line": "Grüße " * 400,
    "lines of the longest length": "x" * 998 + "\n" + "y" * 999 + "\n",
    "lines about the usual length": "\n".join("z" * n for n in range(74, 82)),
    "many lines": "Hello\n" * 500,
    "empty": "",
    "only a newline": "\n",
    "only newlines": "\n\n\n",
    "only spaces": "   ",
    "crlf": "one\r\ntwo\r\n\r\nthree",
    "lone cr": "one\rtwo\r\rthree",
    "mixed newlines": "one\r\ntwo\nthree\rfour",
    "other line separators": "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g\n",
    "leading dots": ".\n..\n.a\n\n.\n",
    "leading dots, crlf": ".\r\n..\r\n.a\r\n.\r\n",
    "from at a line's start": "From me to you\n>From you to me\n",
    "spaces at lines' ends": "one  \ntwo\t\n  three\n",
    "equals signs": "a=b\n=3D\n==\n",
    "what looks like headers": "Bcc: eve@example.com\nContent-Type: text/html\n\n--boundary--\n",
    "quotes and backslashes": "\"a\" 'b' \\ \\n \\u0000 %s %(x)s ${x}\n",
    "html in plain text": "<b>not bold</b> &amp; <script>alert(1)</script>\n",
    "template variable": "Hello {{ name }}, {{ request.user|safe }}\n",
    "template tag": "{% if x %}yes{% endif %} {% load missing %}\n",
    "template include": "{% include 'secret.txt' %}{% extends 'base.html' %}\n",
    "template comment": "{# not seen #}{% comment %}x{% endcomment %}\n",
    "template broken": "{{ {% }} %} {{{ }}} 100 %} {# \n",
}

for name, text in TEXTS.items():
    add(f"text: {name}", body=text)
add("text: lazy", body=lazystr("Grüße, lazily\n"))
add("text: translated", body=gettext_lazy("Yes"))
add("text: marked safe", body=mark_safe("<b>&amp;</b>\n"))
add("text: none", body=None)
add("text: simple class", kind=EmailMessage, body="Grüße\n")
add("text: one megabyte", body="Grüße an alle\n" * 70_000)

# Other kinds of body.

for name in ("ascii", "utf-8", "long utf-8 line", "crlf", "leading dots", "empty", "template include"):
    add(f"html body: {name}", setting(content_subtype="html"), body=TEXTS[name])
add("html body: page", setting(content_subtype="html"), kind=EmailMessage, body=f"<html>{HTML}</html>\n")
add("html body: lazy", setting(content_subtype="html"), body=lazystr(HTML))
for subtype in ("calendar", "markdown", "x-amp-html"):
    add(f"body of type {subtype}", setting(content_subtype=subtype), body=CALENDAR)


class HtmlMessage(EmailMessage):
    content_subtype = "html"
    encoding = "iso-8859-1"


add("body whose type is its class's", kind=HtmlMessage, body=HTML)

# Alternatives.

ALTERNATIVES = {
    "html": [(HTML, "text/html")],
    "html and calendar": [(HTML, "text/html"), (CALENDAR, "text/calendar")],
    "amp, html and calendar": [(AMP, "text/x-amp-html"), (HTML, "text/html"), (CALENDAR, "text/calendar")],
    "calendar": [(CALENDAR, "text/calendar")],
    "html twice": [(HTML, "text/html"), ("<p>again</p>", "text/html")],
    "plain text once more": [("Body", "text/plain")],
    "empty html": [("", "text/html")],
    "html without a final newline": [("<p>", "text/html")],
    "html with leading dots": [(".\n..\r\n.", "text/html")],
    "html with long lines": [("<p>" + "Grüße " * 400 + "</p>\n", "text/html")],
    "html with template syntax": [("{{ x }}{% include 'secret.txt' %}{# #}", "text/html")],
    "html marked safe": [(mark_safe(HTML), "text/html")],
    "json bytes": [(b'{"a": "\xc3\xbc"}', "application/json")],
    "json string": [('{"a": 1}', "application/json")],
    "json string of other letters": [('{"a": "ü"}', "application/json")],
    "binary": [(HTML, "text/html"), (ALL_BYTES, "application/octet-stream")],
    "image": [(PNG, "image/png")],
}
if MODERN:
    ALTERNATIVES["html bytes"] = [(HTML.encode(), "text/html")]
else:
    ALTERNATIVES["lazy html"] = [(lazystr(HTML), "text/html")]

for name, alternatives in ALTERNATIVES.items():
    add(f"alternative: {name}", alternatives=alternatives)
    add(f"alternative without a text: {name}", body="", alternatives=alternatives)
add("alternative: attached", lambda m: m.attach_alternative(HTML, "text/html"))
add("alternative to html", setting(content_subtype="html"), body=HTML, alternatives=ALTERNATIVES["calendar"])
add(
    "alternative to html: html", setting(content_subtype="html"), body=HTML, alternatives=[("b", "text/html")]
)
if not MODERN:  # refused by Django from 6.0 on
    related = setting(mixed_subtype="related")
    add("attachments are related", both(related, lambda m: m.attach("a.png", PNG, "image/png")), body=HTML)
    add("alternatives are related", setting(alternative_subtype="related"), alternatives=ALTERNATIVES["html"])

# People.

LONG_NAME = "Ann " * 40 + "Doe"
NAMES = {
    "simple": "Ann Doe <ann@example.com>",
    "quoted for nothing": '"Ann Doe" <ann@example.com>',
    "with a comma": '"Doe, Ann" <ann@example.com>',
    "with quotes": r'"Ann \"The Boss\" Doe" <ann@example.com>',
    "with a backslash": r'"Ann \\ Doe" <ann@example.com>',
    "with specials": '"Ann (Sales) @ Shop; Ltd: [x]" <ann@example.com>',
    "with a full stop": '"Dr. Doe" <ann@example.com>',
    "with an apostrophe": "Ann O'Neil <ann.o'neil@example.com>",
    "non-ascii": "Änn Döe <ann@example.com>",
    "non-ascii with a comma": '"Döe, Änn" <ann@example.com>',
    "non-ascii with quotes": r'"Änn \"Boss\" Döe" <ann@example.com>',
    "other alphabets": "日本太郎 <ann@example.com>",
    "emoji": "Ann 👩🏽‍🚀 <ann@example.com>",
    "long": f"{LONG_NAME} <ann@example.com>",
    "long non-ascii": f"{'Änn ' * 30}Döe <ann@example.com>",
    "looks encoded": "=?utf-8?q?J=C3=B6rg?= <ann@example.com>",
    "only angle brackets": "<ann@example.com>",
    "many spaces": "Ann    Doe   <ann@example.com>",
    "spaces about": "  Ann Doe <ann@example.com>  ",
    "no space": "Ann<ann@example.com>",
    "capitals": "Ann.Doe@EXAMPLE.com",
    "plus": "ann+shop=x@example.com",
    "quoted local part": '"ann@home"@example.com',
    "local host": "root@localhost",
    "idna domain": "ann@bücher.example",
    "idna domain and name": "Änn Döe <ann@bücher.example>",
    "idna domain, ascii name": "Ann Doe <ann@bücher.example>",
    "idna domain with capitals": "ann@BÜCHER.example",
    "punycode": "ann@xn--bcher-kva.example",
    "other alphabet's domain": "ann@例え.テスト",
}
if not MODERN:  # refused by Django from 6.0 on
    NAMES["unquoted full stop"] = "Dr. Doe <ann@example.com>"

for name, address in NAMES.items():
    add(f"to: {name}", to=[address])
for name in ("with a comma", "non-ascii with a comma", "long", "idna domain and name", "quoted for nothing"):
    add(f"from: {name}", from_email=NAMES[name])
    add(f"cc: {name}", cc=[NAMES[name]])
    add(f"bcc: {name}", bcc=[NAMES[name]])
    add(f"reply to: {name}", reply_to=[NAMES[name]])

BOB, CAT, DAN = "Bob <bob@example.com>", "Cät <cat@example.com>", "dan@bücher.example"
ADDRESS = Address("Döe, Änn", "ann", "example.com")
IDNA_ADDRESS = Address("Bob", "bob", "bücher.example")
add("to several", to=["ann@example.com", BOB, CAT, DAN])
add("to a tuple", to=("ann@example.com", BOB), cc=(CAT,), bcc=(DAN,), reply_to=(BOB,))
add("to fifty", to=[f"Änn Number {i} <ann{i}@example.com>" for i in range(50)])
add("to one twice", to=["ann@example.com", BOB, "ann@example.com"])
add("to one twice in two spellings", to=["ann@example.com", "Ann <ann@example.com>", "ANN@example.com"])
add("to one who is in cc and bcc as well", cc=["ann@example.com", BOB], bcc=["bob@example.com", CAT])
add("to, cc and bcc", to=["ann@example.com"], cc=[BOB, CAT], bcc=[DAN, "eve@example.com"])
add("only cc", to=[], cc=[BOB])
add("only bcc", to=[], bcc=[BOB, CAT])
add("from: default", from_email=None)
add("from: simple", from_email="The Shop <shop@example.com>")
add("from: local host", from_email="webmaster@localhost")
add("from: lazy", from_email=lazystr("Shöp <shop@example.com>"))
add("to: lazy", to=[lazystr("Änn <ann@example.com>")])
add("to: address object", to=[ADDRESS, IDNA_ADDRESS])
add("cc, bcc and reply to: address objects", cc=[ADDRESS], bcc=[IDNA_ADDRESS], reply_to=[ADDRESS])
add("from: address object", from_email=Address("The Shöp", "shop", "bücher.example"))
add("reply to several", reply_to=["r@example.com", BOB, CAT, DAN])

# Subjects.

SUBJECTS = {
    "empty": "",
    "non-ascii": "Grüße aus Köln",
    "other alphabets": "ご注文の確認 مرحبا",
    "emoji": "🎉 Sale 👩🏽‍🚀!",
    "long": "Your order is on its way " * 12,
    "long without a space": "x" * 300,
    "long non-ascii": "Grüße aus Köln " * 20,
    "long non-ascii without a space": "ü" * 150,
    "of the usual line's length": "s" * 67 + " " + "t" * 9,
    "many spaces": "a    b   c",
    "spaces about": "  Subject  ",
    "tab": "one\ttwo",
    "looks encoded": "=?utf-8?q?a=C3=BC?= =?x",
    "specials": 'Re: "Order" <17>, (paid); a@b: 100 % = \\',
    "template": "{{ x }} {% y %} {# z #}",
    "lazy": lazystr("Grüße, lazily"),
    "translated": gettext_lazy("Yes"),
    "marked safe": mark_safe("Tom &amp; Jerry"),
    "no-break and wide spaces": "a\u00a0b\u3000c",
}

for name, subject in SUBJECTS.items():
    add(f"subject: {name}", subject=subject)

# Headers.

DATE = "Mon, 01 Jun 2026 12:00:00 +0200"
UNSUBSCRIBE = {
    "List-Unsubscribe": "<https://example.com/u/"
    + "k" * 90
    + ">, <mailto:u@example.com?subject=unsubscribe>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
}
HEADERS: dict[str, dict[str, object]] = {
    "unsubscribe": UNSUBSCRIBE,
    "own": {"X-Campaign": "spring", "X-Mailer": "our shop 1.0", "X-Priority": "1"},
    "of machines": {
        "Auto-Submitted": "auto-generated",
        "Precedence": "bulk",
        "Return-Path": "<b@example.com>",
    },
    "references": {
        "In-Reply-To": "<1@example.com>",
        "References": " ".join(f"<{i}@a.example>" for i in range(30)),
    },
    "non-ascii": {"X-Name": "Grüße aus Köln"},
    "non-ascii, long": {"X-Name": "Grüße aus Köln " * 12},
    "long": {"X-Long": "word " * 60 + "end"},
    "long without a space": {"X-Long": "x" * 400},
    "empty": {"X-Empty": ""},
    "spaces about": {"X-Space": "  a  b  "},
    "looks encoded": {"X-Encoded": "=?utf-8?q?a=C3=BC?="},
    "many, in their order": {f"X-{c}": c for c in "qwertyuiop"},
    "lazy": {"X-Lazy": lazystr("lazily"), "X-Yes": gettext_lazy("Yes")},
    "template": {"X-Template": "{{ x }} {% y %}"},
    "in other capitals": {"x-lower": "a", "X-UPPER": "b"},
    "sender": {"Sender": "Böss <boss@example.com>", "Errors-To": "errors@example.com"},
    "sender with idna domain": {"Sender": "boss@bücher.example"},
    "resent": {"Resent-From": "Bob <bob@example.com>", "Resent-To": "Cät <cat@example.com>"},
    "from": {"From": "Someone Else <else@example.com>"},
    "from, non-ascii": {"From": '"Élse, Söme" <else@example.com>'},
    "from in small letters": {"from": "Someone Else <else@example.com>"},
    "to": {"To": "Everybody <all@example.com>"},
    "to with idna domain": {"To": "Everybody <all@bücher.example>"},
    "to in small letters": {"to": "Everybody <all@example.com>"},
    "to a group": {"To": "undisclosed-recipients:;"},
    "cc": {"Cc": "Everybody <all@example.com>"},
    "reply to": {"Reply-To": "Help <help@example.com>"},
    "reply to in small letters": {"reply-to": "Help <help@example.com>"},
    "message id": {"Message-ID": "<own@example.com>"},
    "message id in small letters": {"message-id": "<own@example.com>"},
    "message id behind others": {"X-A": "a", "X-B": "b", "Message-ID": "<own@example.com>", "X-C": "c"},
    "message id, long": {"Message-ID": f"<{'x' * 150}@example.com>"},
    "date": {"Date": DATE},
    "date in small letters": {"date": DATE},
    "date and message id": {"X-A": "a", "Date": DATE, "Message-ID": "<own@example.com>"},
    "date as a datetime": {"Date": datetime(2026, 6, 1, 12, tzinfo=UTC)},
    "sender as an address object": {"Sender": Address("Böss", "boss", "example.com")},
}
if not MODERN:  # Python's newer API takes no numbers
    HEADERS["number"] = {"X-Priority": 1}

for name, headers in HEADERS.items():
    add(f"header: {name}", headers=headers)
add("header: to, and bcc", to=[], bcc=[BOB, CAT], headers={"To": "undisclosed-recipients:;"})
add("header: reply to, and the field", reply_to=[BOB], headers={"Reply-To": "help@example.com"})
add(
    "header: from, and a name",
    from_email="Shöp <shop@example.com>",
    headers={"From": "Böb <bob@example.com>"},
)

# Encodings.

SHARED = {"subject": "Grüße", "body": "Grüße aus Köln\n", "from_email": "Shöp <shop@example.com>"}
for encoding in ("utf-8", "UTF-8", "iso-8859-1", "iso-8859-15", "windows-1252"):
    add(f"encoding: {encoding}", setting(encoding=encoding), to=["Jörg <j@example.com>"], **SHARED)
add("encoding: us-ascii", setting(encoding="us-ascii"))
add("encoding: koi8-r", setting(encoding="koi8-r"), subject="Привет", body="Привет\n")
add("encoding: iso-2022-jp", setting(encoding="iso-2022-jp"), subject="ご注文", body="ご注文の確認\n")
latin = setting(encoding="iso-8859-1")
add("encoding of html", both(latin, setting(content_subtype="html")), **SHARED | {"body": HTML})
add("encoding of alternatives", latin, alternatives=ALTERNATIVES["html and calendar"], **SHARED)
add("encoding of attachments", both(latin, lambda m: m.attach("ü.txt", "Köln\n", "text/plain")), **SHARED)
add("encoding of long lines", latin, **SHARED | {"body": "Grüße " * 400})


def charset(name: str, body_encoding: int | None) -> charsets.Charset:
    made = charsets.Charset(name)
    made.body_encoding = body_encoding
    return made


if not MODERN:  # refused by Django from 6.0 on
    for name, body_encoding in {"qp": charsets.QP, "base64": charsets.BASE64, "none": None}.items():
        for encoding in ("utf-8", "iso-8859-1"):
            chosen = setting(encoding=charset(encoding, body_encoding))
            add(f"encoding: {encoding} with {name}", chosen, **SHARED)
    chosen = setting(encoding=charset("utf-8", charsets.QP))
    add("encoding: charset of all parts", chosen, alternatives=ALTERNATIVES["html and calendar"], **SHARED)

# Attachments.


def attaching(*given: object) -> Finish:
    return lambda message: message.attach(*given)


def appending(*given: object) -> Finish:
    """To the message's list, past what ``attach`` does."""
    return lambda message: message.attachments.append(given)


def attaching_file(name: str, content: bytes, *mimetype: str) -> Finish:
    def finish(message: Message) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            message.attach_file(path, *mimetype)

    return finish


def attaching_part(maker: Callable[[], object]) -> Finish:
    """A part that ``maker`` makes; Django 6 says that the older classes are deprecated, and takes them."""

    def finish(message: Message) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "MIMEBase attachments are deprecated")
            message.attach(maker())

    return finish


def inner_message() -> Message:
    """A message to attach, which has an attachment too."""
    inner = make(subject="Grüße", body="Grüße\n", headers={"Message-ID": "<in@example.com>", "Date": DATE})
    inner.attach("in.pdf", PDF, "application/pdf")
    return inner


def attaching_message(mimetype: str = "message/rfc822", name: str | None = None) -> Finish:
    return lambda message: message.attach(name, inner_message(), mimetype)


RFC822 = (
    b"From: bob@example.com\r\nTo: ann@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <in@example.com>\r\nDate: Mon, 01 Jun 2026 12:00:00 +0200\r\n\r\nHello\r\n.\r\n"
)
DELIVERY_STATUS = (
    b"Reporting-MTA: dns; mx.example.com\n\nFinal-Recipient: rfc822; ann@example.com\nAction: failed\n"
)


def standard_message() -> StandardMessage:
    message = StandardMessage(policy=policy.default)
    message["Subject"], message["From"], message["To"] = "Grüße", "bob@example.com", "Jörg <j@example.com>"
    message.set_content("Grüße\n")
    return message


ATTACHMENTS: dict[str, Finish] = {
    "pdf": attaching("invoice.pdf", PDF, "application/pdf"),
    "all bytes": attaching("all.bin", ALL_BYTES, "application/octet-stream"),
    "empty file": attaching("empty.bin", b"", "application/octet-stream"),
    "empty text": attaching("empty.txt", "", "text/plain"),
    "one megabyte": attaching("big.bin", ALL_BYTES * 4096, "application/octet-stream"),
    "text": attaching("notes.txt", "Hello\n", "text/plain"),
    "text of other letters": attaching("notes.txt", "Grüße 日本語\n", "text/plain"),
    "text without a final newline": attaching("notes.txt", "Hello", "text/plain"),
    "text with crlf": attaching("notes.txt", "one\r\ntwo\r\n", "text/plain"),
    "text with mixed newlines": attaching("notes.txt", "one\r\ntwo\nthree\rfour", "text/plain"),
    "text with long lines": attaching("notes.txt", "Grüße " * 400, "text/plain"),
    "text with leading dots": attaching("notes.txt", ".\n..\n", "text/plain"),
    "text with template syntax": attaching("notes.txt", "{{ x }}{% y %}", "text/plain"),
    "text as bytes": attaching("notes.txt", "Grüße\n".encode(), "text/plain"),
    "text that is none": attaching("notes.txt", LATIN, "text/plain"),
    "text that is none, guessed": attaching("notes.txt", LATIN),
    "csv": attaching("list.csv", "name;city\nÄnn;Köln\n", "text/csv"),
    "csv as bytes, guessed": attaching("list.csv", "name;city\r\nÄnn;Köln\r\n".encode()),
    "html": attaching("page.html", HTML, "text/html"),
    "calendar": attaching("invite.ics", CALENDAR, "text/calendar"),
    "json string": attaching("data.json", '{"a": 1}', "application/json"),
    "json string of other letters": attaching("data.json", '{"a": "ü"}', "application/json"),
    "guessed": attaching("invoice.pdf", PDF),
    "guessed text": attaching("notes.txt", "Grüße\n"),
    "guessed as an archive": attaching("backup.tar.gz", ALL_BYTES),
    "unknown extension": attaching("data.q9z", ALL_BYTES),
    "no extension": attaching("data", ALL_BYTES),
    "unknown type": attaching("data", ALL_BYTES, "application/vnd.shop+zip"),
    "no name": attaching(None, PDF, "application/pdf"),
    "no name, text": attaching(None, "Grüße\n", "text/plain"),
    "empty name": attaching("", PDF, "application/pdf"),
    "image without a name": attaching(None, PNG, "image/png"),
    "non-ascii name": attaching("Rechnung für Jörg.pdf", PDF, "application/pdf"),
    "non-ascii name, text": attaching("Grüße.txt", "Grüße\n", "text/plain"),
    "name in another alphabet": attaching("請求書.pdf", PDF, "application/pdf"),
    "name with an emoji": attaching("🎉.png", PNG, "image/png"),
    "name with quotes": attaching('a "b"; c=\\d, (e).pdf', PDF, "application/pdf"),
    "name with a path": attaching("../etc/a b.pdf", PDF, "application/pdf"),
    "long name": attaching("invoice " * 25 + ".pdf", PDF, "application/pdf"),
    "long non-ascii name": attaching("Grüße " * 30 + ".pdf", PDF, "application/pdf"),
    "same name twice": both(
        attaching("a.txt", "one", "text/plain"),
        attaching("a.txt", "two", "text/plain"),
        attaching("a.txt", b"\x00", "application/zip"),
    ),
    "same content twice": both(attaching("a.pdf", PDF), attaching("b.pdf", PDF), attaching("a.pdf", PDF)),
    "twenty": both(*(attaching(f"{i:02}.bin", bytes([i]), "image/png") for i in range(20))),
    "tuple in the list": appending("a.pdf", PDF, "application/pdf"),
    "tuple of a text in the list": appending("a.txt", "Grüße\n", "text/plain"),
    "tuple without a name in the list": appending(None, PDF, "application/pdf"),
    "file": attaching_file("notes.txt", "Grüße\n".encode()),
    "file of a type": attaching_file("notes.txt", b"a;b\n", "text/csv"),
    "file that is binary": attaching_file("all.bin", ALL_BYTES),
    "file whose text is none": attaching_file("notes.txt", LATIN),
    "file with a non-ascii name": attaching_file("Grüße.pdf", PDF),
    "message": attaching_message(),
    "message with a name": attaching_message(name="forward.eml"),
    "message, standard": lambda m: m.attach("a.eml", standard_message(), "message/rfc822"),
    "message, legacy": lambda m: m.attach("a.eml", email.message_from_bytes(RFC822), "message/rfc822"),
    "message of legacy parts": lambda m: m.attach(None, MIMEText("Grüße\n", "html"), "message/rfc822"),
    "message as bytes": attaching("a.eml", RFC822, "message/rfc822"),
    "message as a string": attaching("a.eml", RFC822.decode(), "message/rfc822"),
    "message as lines of a string": attaching(
        None, "Subject: a\nTo: b@example.com\n\nHello\n", "message/rfc822"
    ),
    "message in a message": lambda m: m.attach(
        None,
        make(EmailMessage, attaching_message(), headers={"Message-ID": "<o@a.example>"}),
        "message/rfc822",
    ),
}
if MODERN:
    ATTACHMENTS |= {
        "byte array": attaching("a.bin", bytearray(ALL_BYTES), "application/octet-stream"),
        "memory view": lambda m: m.attach("a.bin", memoryview(ALL_BYTES), "application/octet-stream"),
        "tuple of a text as bytes": appending("a.txt", "Grüße\n".encode(), "text/plain"),
        "tuple of a text that is none": appending("a.txt", LATIN, "text/plain"),
        "delivery status": attaching(None, DELIVERY_STATUS, "message/delivery-status"),
    }
else:
    ATTACHMENTS["lazy text"] = attaching("notes.txt", lazystr("Grüße\n"), "text/plain")


def legacy(part: LegacyMessage, disposition: str | None = None, **headers: str) -> LegacyMessage:
    """``part`` with headers; ``Content_ID`` is spelled so."""
    for name, value in headers.items():
        part[name.replace("_", "-")] = value
    if disposition is not None:
        part["Content-Disposition"] = disposition
    return part


def qp_part() -> LegacyMessage:
    return MIMEText("Grüße =\n" * 3, "plain", charset("utf-8", charsets.QP))


def eight_bit_part() -> LegacyMessage:
    part = MIMENonMultipart("text", "x-raw")
    part["Content-Transfer-Encoding"] = "8bit"
    part.set_payload("Grüße\n".encode())
    return part


def related_part() -> LegacyMessage:
    """A page with its image, which needs a boundary of its own."""
    page = MIMEMultipart("related")
    page.attach(MIMEText('<img src="cid:logo">', "html"))
    page.attach(legacy(MIMEImage(PNG), "inline", Content_ID="<logo>"))
    return page


def named(part: LegacyMessage, name: str | tuple[str, str, str]) -> LegacyMessage:
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


def modern_image(**arguments: object) -> MIMEPart:
    part = MIMEPart()
    part.set_content(PNG, maintype="image", subtype="png", **arguments)
    return part


def modern_text(text: str = "Grüße\n", **arguments: object) -> MIMEPart:
    part = MIMEPart(policy=arguments.pop("policy", policy.default))
    part.set_content(text, **arguments)
    return part


def modern_related() -> MIMEPart:
    part = modern_text('<img src="cid:logo">', subtype="html")
    part.add_related(PNG, maintype="image", subtype="png", cid="<logo>")
    return part


def modern_headers() -> MIMEPart:
    part = modern_text("a\n")
    part["Content-Description"] = "Grüße aus Köln, " * 8
    part["X-Own"] = "own"
    return part


PARTS: dict[str, Callable[[], object]] = {
    "inline image": lambda: legacy(MIMEImage(PNG), "inline", Content_ID="<logo@example.com>"),
    "inline image with a name": lambda: legacy(
        MIMEImage(PNG, name="logo.png"),
        'inline; filename="logo.png"',
        Content_ID="<logo>",
        X_Attachment_Id="logo",
    ),
    "image": lambda: MIMEImage(PNG),
    "plain text": lambda: MIMEText("Grüße\n"),
    "html text in latin": lambda: MIMEText("Grüße\n", "html", "iso-8859-1"),
    "quoted-printable text": qp_part,
    "eight bit text": eight_bit_part,
    "base": lambda: named(legacy(MIMEBase("application", "x-own", version="1"), X_Own="own"), "own.bin"),
    "application": lambda: named(MIMEApplication(ALL_BYTES), "all.bin"),
    "non-ascii name": lambda: named(MIMEApplication(PDF, "pdf"), ("utf-8", "", "Rechnung für Jörg.pdf")),
    "audio": lambda: MIMEAudio(ALL_BYTES, "basic"),
    "message": lambda: MIMEMessage(email.message_from_bytes(RFC822)),
    "multipart": related_part,
    "multipart with a boundary": lambda: MIMEMultipart("mixed", "own", [MIMEText("a"), MIMEText("b")]),
    "long header": lambda: legacy(MIMEText("a"), Content_Description="word " * 40 + "end"),
}
if MODERN:
    PARTS |= {
        "modern inline image": lambda: modern_image(disposition="inline", cid="<logo@example.com>"),
        "modern inline image with a name": lambda: modern_image(
            disposition="inline", cid="<logo>", filename="logo.png"
        ),
        "modern image without a name": modern_image,
        "modern image with a non-ascii name": lambda: modern_image(
            disposition="attachment", filename="für Jörg.png"
        ),
        "modern image with a long name": lambda: modern_image(
            disposition="attachment", filename="für Jörg " * 20
        ),
        "modern text": modern_text,
        "modern text in latin": lambda: modern_text(charset="iso-8859-1", subtype="html"),
        "modern text, quoted-printable": lambda: modern_text(cte="quoted-printable"),
        "modern text, base64": lambda: modern_text(cte="base64"),
        "modern text for smtp": lambda: modern_text("one\r\ntwo\n", policy=policy.SMTP),
        "modern related": modern_related,
        "modern own headers": modern_headers,
        "modern whole message": standard_message,
    }

for name, finish in ATTACHMENTS.items():
    add(f"attachment: {name}", finish)
for name, maker in PARTS.items():
    add(f"part: {name}", attaching_part(maker))
three = [("a.txt", "one"), ("b.pdf", PDF, "application/pdf"), (None, PNG, "image/png")]
add("attachments: given as tuples", attachments=three)
add("attachments: of all kinds", both(*ATTACHMENTS.values(), *map(attaching_part, PARTS.values())))
add("attachments: parts between files", both(
    attaching("a.pdf", PDF), attaching_part(PARTS["inline image"]), attaching("b.txt", "b\n"),
    attaching_part(PARTS["plain text"]), attaching("c.pdf", PDF),
))  # fmt: skip
add("attachments: image that the html shows", attaching_part(PARTS["inline image"]), alternatives=[
    ('<img src="cid:logo@example.com">', "text/html")
])  # fmt: skip

# What only other backends look at leaves the bytes alone.

add("anymail's attributes", setting(
    metadata={"order": 17}, tags=["welcome"], envelope_sender="bounces@example.com", track_opens=True,
    merge_data={"ann@example.com": {"name": "Ann"}}, template_id="welcome", esp_extra={"a": [1]},
    send_at=datetime(2026, 6, 1, 12, tzinfo=UTC),
), body="Hello {{ name }}\n")  # fmt: skip

# Everything with everything.

KINDS = {"nothing": {"body": ""}, "text": {"body": "Grüße\n"}, "html": {"body": HTML}}
BESIDE = {"alone": [], "html": ALTERNATIVES["html"], "html and calendar": ALTERNATIVES["html and calendar"]}
WITH = {
    "nothing": None,
    "pdf": ATTACHMENTS["pdf"],
    "two names": both(ATTACHMENTS["non-ascii name"], ATTACHMENTS["csv"]),
    "message": ATTACHMENTS["message with a name"],
    "inline image": attaching_part(PARTS["inline image"]),
}
UNDER: dict[str, dict[str, object]] = {
    "few headers": {},
    "many headers": {
        "subject": SUBJECTS["long non-ascii"],
        "to": [NAMES["non-ascii with a comma"], NAMES["idna domain and name"]],
        "cc": [BOB],
        "bcc": [CAT],
        "reply_to": [DAN],
        "headers": UNSUBSCRIBE | HEADERS["references"] | HEADERS["non-ascii"],
    },
}

for kind, beside, with_, under in product(KINDS, BESIDE, WITH, UNDER):
    add(
        f"all: {kind}, {beside}, with {with_}, under {under}",
        both(setting(content_subtype="html") if kind == "html" else None, WITH[with_]),
        alternatives=BESIDE[beside],
        **KINDS[kind] | UNDER[under],
    )
