"""A worker that is a command: drains, and drains again."""

import os
import time

import django

from tests.bench.config import Config
from tests.bench.contestants import find

PAUSE = 0.05  # seconds, when there may be nothing to do


def main() -> None:
    django.setup()
    config = Config.from_environment()
    contestant = find(config.contestant)
    parent = os.getppid()
    while os.getppid() == parent:
        contestant.drain(config)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
