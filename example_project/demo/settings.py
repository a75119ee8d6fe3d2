"""The shop's settings, in a hurry: nobody wants to watch a demo wait half a minute for a retry."""

import os

from shop.settings import *  # noqa: F403
from shop.settings import CELERY_MAILER, timedelta

DEBUG = False  # in a worker it remembers every query

# Queues of this run's own, so that on a broker shared with others nobody takes the other's work.
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("DEMO_RUN", "demo")
CELERY_MAILER = CELERY_MAILER | {
    "QUEUES": {lane: f"{CELERY_TASK_DEFAULT_QUEUE}.{lane}" for lane in ("high", "medium", "low")},
    "RETRY": {"KINDS": {"temporary": {"WAIT": "fixed", "MIN": timedelta(seconds=2)}}},
}
