"""What rendering one email costs: our render stage beside ``Template.render`` and css-inline, as JSON.

Microseconds for one email, medians; without the database, which has no part in the one nor the other.
"""

import json
import time
from collections.abc import Callable
from statistics import median

import django
from django.conf import settings

from tests.bench import workload
from tests.bench.ground import ROOT

ROUNDS, TIMES = 15, 60


def microseconds(call: Callable[[int], object]) -> float:
    start = time.perf_counter()
    for i in range(TIMES):
        call(i)
    return (time.perf_counter() - start) / TIMES * 1e6


def read(name: str) -> str:
    return (ROOT / "tests" / "bench" / "templates" / name).read_text()


def compare(html: str) -> dict[str, float]:
    """Both ways with ``html`` as the source, interleaved."""
    from css_inline import CSSInliner
    from django.template import Context, Template

    from celery_mailer.models import Content
    from celery_mailer.models.context import Loader, encode
    from celery_mailer.render.templates import render
    from celery_mailer.sources import Part, Source

    subject, text, page = Template(read(workload.SUBJECT)), Template(read(workload.TEXT)), Template(html)
    source = Source("notice.html", settings.LANGUAGE_CODE, Part(subject), Part(text), Part(page))
    inliner = CSSInliner()
    stored = [encode("context", workload.context(i)) for i in range(TIMES)]

    def bare(i: int) -> None:
        context = workload.context(i)
        subject.render(Context(context, autoescape=False))
        text.render(Context(context, autoescape=False))
        inliner.inline(page.render(Context(context)))

    def ours(i: int) -> None:
        render(Content(template="notice.html"), source, Loader().decode("context", stored[i]))

    pairs = [(microseconds(bare), microseconds(ours)) for _ in range(ROUNDS)]
    return {"bare": median(b for b, _ in pairs), "ours": median(o for _, o in pairs)}


def main() -> None:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "celery_mailer"],
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
    )
    django.setup()
    html = read(workload.TEMPLATE)
    print(json.dumps(compare(html.replace("</title>", f"</title>{workload.STYLE}"))))


if __name__ == "__main__":
    main()
