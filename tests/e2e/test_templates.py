"""Templates that people edit while workers run, and languages that are not the workers'."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.redis, pytest.mark.postgres]

SEND = """
    from celery_mailer.tasks import send_template_email
    for i in range(60):
        send_template_email.delay("hello", {{"number": i}}, ["ada@example.com"], language={language!r})
"""


def test_an_edited_template_is_used_by_the_next_email_in_every_worker_process(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    site.run("""
        from celery_mailer.models import EmailTemplate
        row = EmailTemplate.objects.create(name="hello", subject="old {{ number }}", content="old")
        row.translated_templates.create(language="de", subject="alt {{ number }}", content="alt")
    """)
    for _ in range(2):
        site.worker("-c", "2")
    for language in ("en", "de"):
        site.run(SEND.format(language=language))
    site.wait_for("sent", 120)
    site.run("""
        from celery_mailer.models import EmailTemplate
        for row in EmailTemplate.objects.all():
            row.subject = "new " + row.subject
            row.save()
    """)
    before = len(smtp.received)
    for language in ("en", "de"):
        site.run(SEND.format(language=language))
    site.wait_for("sent", 240)
    subjects = [mail.message["Subject"] for mail in smtp.received]
    assert sorted(subjects[:before]) == sorted(f"{word} {i}" for word in ("old", "alt") for i in range(60))
    assert sorted(subjects[before:]) == sorted(
        f"new {word} {i}" for word in ("old", "alt") for i in range(60)
    )
    # Which words an email was written from can still be shown, also when the template is gone.
    versions = site.run("""
        from celery_mailer.models import Content, EmailTemplate
        from django.db.models import Count
        EmailTemplate.objects.all().delete()
        result = list(Content.objects.values_list("template_version__subject").annotate(Count("pk")))
    """)
    assert dict(versions) == {
        "old {{ number }}": 60,
        "alt {{ number }}": 60,
        "new old {{ number }}": 60,
        "new alt {{ number }}": 60,
    }


def test_an_english_worker_writes_other_languages(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    site.worker("-c", "1")
    site.run("""
        from datetime import date
        from celery_mailer.tasks import send_template_email
        for language in ("id", "de", "ar"):
            send_template_email.delay(
                "mail/local.html", {"day": date(2026, 3, 7), "amount": 1234.5}, [language + "@example.com"],
                language=language,
            )
    """)
    site.wait_for("sent", 3)
    html = {
        mail.recipients[0][:2]: mail.message.get_body(("html",)).get_content().strip()
        for mail in smtp.received
    }
    assert html == {
        "id": '<html dir="ltr">Sabtu 7 Maret 2026 1.234,50</html>',
        "de": '<html dir="ltr">Samstag 7. März 2026 1.234,50</html>',
        "ar": '<html dir="rtl">السبت 7 مارس، 2026 1234,50</html>',
    }
