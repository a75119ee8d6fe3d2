"""What a contestant's processes are told, through the environment."""

import json
import os
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Config:
    contestant: str
    database: str  # URL
    broker: str  # URL
    smtp_port: int
    folder: str  # for lock files and the like
    queries: str  # a file that grows by one byte with each query
    delay: float = 0  # seconds until the server answers
    connections: int = 2  # to the server, of all worker processes together
    threads: bool = False  # one worker process with threads, in place of single-threaded processes

    @classmethod
    def from_environment(cls) -> "Config":
        return cls(**json.loads(os.environ["BENCH"]))

    def environment(self) -> dict[str, str]:
        return {"BENCH": json.dumps(asdict(self)), "DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
