"""Queued if and only if committed."""

import pytest

from tests.e2e.support import assert_each_once, hurry_beat


def test_only_what_was_committed_is_sent(make_site, smtp):
    site = make_site()
    site.worker("-c", "1")
    site.run("""
        from django.db import transaction
        from celery_mailer.tasks import send_email

        def mail(name):
            send_email.delay(subject=name, message="m", recipient_list=["a@example.com"])

        def rolled_back(work, name):
            try:
                with transaction.atomic():
                    work(name)
                    raise LookupError
            except LookupError:
                pass

        def outer():
            mail("kept outside")
            rolled_back(mail, "lost savepoint")
            with transaction.atomic():
                mail("kept savepoint")

        rolled_back(mail, "lost")
        with transaction.atomic():
            outer()
        rolled_back(lambda name: outer(), "lost with everything inside")
    """)
    site.wait_for("sent", 2)
    assert sorted(r.message["Subject"] for r in smtp.received) == ["kept outside", "kept savepoint"]
    assert site.statuses() == {"sent": 2}


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_web_process_killed_around_its_publish_loses_nothing(make_site, smtp, where):
    site = make_site()
    web = site.start(f"""
        import os, signal
        from celery_mailer import chain
        from celery_mailer.tasks import send_email
        publish = chain.start

        def dying(*args):
            if {where!r} == "after":
                publish(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        chain.start = dying
        send_email.delay(subject="s", message="m", recipient_list=["a@example.com"])
    """)
    assert web.popen.wait(30) == -9
    assert site.statuses() == {"queued": 1}
    site.beat()
    hurry_beat(site)
    site.worker("-c", "1")
    site.wait_for("sent", 1)
    assert_each_once(site, smtp, 1)
