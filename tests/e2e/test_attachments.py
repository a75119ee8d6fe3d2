"""Emails with attachments, queued while workers drain: none leaves without its own."""

import pytest


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_300_emails_sent_while_workers_drain_all_have_their_attachment(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    site.worker("-c", "2")
    site.run("""
        from django.core.files.base import ContentFile
        from celery_mailer import mail
        for i in range(300):
            mail.send(
                f"u{i}@example.com", subject=str(i), message="m",
                attachments={"a.txt": ContentFile(f"file {i % 10} of ten".encode())},
            )
    """)
    site.wait_for("sent", 300)
    received = smtp.received
    assert len(received) == 300
    for mail in received:
        (part,) = mail.message.iter_attachments()
        assert part.get_content().strip() == f"file {int(mail.message['Subject']) % 10} of ten"
    stored = site.run("from celery_mailer.models import Attachment\nresult = Attachment.objects.count()")
    assert stored == 10


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
def test_twelve_emails_with_one_file_of_5_mb_store_it_once(make_site, smtp):
    site = make_site("postgres", "redis", mailer="{}")
    site.run("""
        import os
        from django.core.files.base import ContentFile
        from celery_mailer import mail
        data = os.urandom(5 * 2**20)
        for i in range(12):
            file = ContentFile(data)
            mail.send(f"u{i}@example.com", subject=str(i), message="m", attachments={"a.bin": file})
    """)
    site.worker("-c", "2")
    site.wait_for("sent", 12)
    bodies = {next(mail.message.iter_attachments()).get_content() for mail in smtp.received}
    assert (len(smtp.received), {len(body) for body in bodies}) == (12, {5 * 2**20})
    files = [path for path in (site.folder / "media").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in files] == [5 * 2**20]
