"""The usual home-made Celery task around ``send_mail``. It stores nothing."""

from collections.abc import Mapping
from typing import Any

from tests.bench import workload
from tests.bench.config import Config
from tests.bench.contestants.base import Contestant, celery_worker


class HomeMade(Contestant):
    name = "homemade"
    title = "home-made Celery task"

    def settings(self, config: Config) -> Mapping[str, Any]:
        return {"CELERY_IMPORTS": ["tests.bench.contestants.homemade_tasks"]}

    def workers(self, config: Config) -> list[list[str]]:
        return [celery_worker(config)]

    def one(self, i: int) -> None:
        from tests.bench.contestants.homemade_tasks import send_mail_task

        send_mail_task.delay(workload.context(i), workload.address(i))

    def bulk(self, first: int, count: int) -> None:
        for i in range(first, first + count):
            self.one(i)
