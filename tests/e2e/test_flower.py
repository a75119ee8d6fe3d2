"""What Flower shows: which email a task is about, and nothing of what it says or to whom."""

import json
import urllib.request

from tests.servers.smtp import free_port
from tests.site import wait_until


def test_flower_lists_the_three_tasks_of_an_email_by_its_id_and_no_content(make_site):
    site = make_site()
    site.worker("-c", "1", "-E")
    port = free_port()
    site.flower(port)

    def tasks():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/tasks", timeout=5) as response:
                return json.load(response)
        except OSError:
            return None

    wait_until("Flower answers", lambda: tasks() is not None, 60)
    ids = site.run(
        """
        from celery_mailer.tasks import send_email, app_of
        words = dict(subject="Subject-secret", message="Body-secret", recipient_list=["hidden@example.com"])
        ids = [send_email.delay(**words).id]
        ids.append(send_email.app.send_task("celery_mailer.send_email", kwargs=words,
                                            argsrepr="", kwargsrepr="").id)
        result = ids
    """.replace(", app_of", "")
    )
    site.wait_for("sent", 2)
    stages = {"celery_mailer.render", "celery_mailer.deliver", "celery_mailer.log"}

    def names_of(email_id):
        shown = tasks().values()
        return {t["name"] for t in shown if email_id in f"{t['args']}" and t["state"] == "SUCCESS"}

    for email_id in ids:
        wait_until("the three tasks", lambda: stages <= names_of(email_id))  # noqa: B023
    everything = json.dumps(tasks())
    for secret in ("secret", "hidden", "example.com"):
        assert secret not in everything
