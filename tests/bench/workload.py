"""The mail that everybody sends: text and HTML from a template, about 3 KB, each with its own context."""

from collections.abc import Iterator
from typing import Any

TEMPLATE = "bench/notice.html"
TEXT = "bench/notice.txt"
SUBJECT = "bench/notice.subject.txt"
SENDER = "shop@example.com"
WORDS = ("kettle", "lamp", "blanket", "garden chair", "radio", "bread knife", "umbrella")

# What ``render_cost`` puts into the head: the mail itself has its styles inline, as no peer inlines any.
STYLE = """<style>
.card { border: 1px solid #ddd; border-radius: 4px }
.card p { line-height: 1.5; color: #222 }
.price { text-align: right; white-space: nowrap }
.button { display: inline-block; padding: 10px 18px; background: #264; color: #fff }
.note { font-style: italic }
@media (max-width: 480px) { .card { padding: 8px } }
</style>"""


def address(i: int) -> str:
    """The recipient of mail ``i``, of nobody else's."""
    return f"r{i:07d}@example.com"


def context(i: int) -> dict[str, Any]:
    """The context of mail ``i``: JSON, as a queue has to carry it."""
    items = [
        {"quantity": 1 + (i + n) % 3, "title": WORDS[(i + n) % len(WORDS)], "price": f"{(i + n) % 90 + 9}.90"}
        for n in range(4)
    ]
    return {
        "name": f"Ada Lovelace {i}",
        "number": f"{100000 + i}",
        "day": f"{i % 28 + 1} March",
        "items": items,
        "total": f"{i % 300 + 40}.60",
        "express": i % 2 == 0,
        "street": f"{i % 200 + 1} Long Street",
        "city": "Springfield",
    }


def recipients(first: int, count: int) -> Iterator[dict[str, Any]]:
    """``count`` recipients from ``first`` on, as dicts with ``email`` and ``context``."""
    for i in range(first, first + count):
        yield {"email": address(i), "context": context(i)}
