"""The README's quick start, word for word, in a new Django project."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

from tests.site import Process, wait_until
from tests.test_readme import TEXT, samples_of

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, broker, smtp):
    """What `django-admin startproject proj` makes, with the samples in it; the servers are the test's own."""
    call(tmp_path, "-m", "django", "startproject", "proj", ".")
    settings = tmp_path / "proj" / "settings.py"
    made, quick = settings.read_text(), samples_of("# settings.py")[0]
    apps = re.search(r"INSTALLED_APPS = \[\n(.*?)\]", made, re.DOTALL)
    quick = quick.replace("    ...,\n", apps[1])
    quick = quick.replace("redis://localhost:6379/0", broker.url)
    if "MAILERS" in made:
        quick = re.sub(r"^EMAIL_.*$", "", quick, flags=re.MULTILINE) + samples_of("# settings.py")[1]
        quick = quick.replace(
            '"smtp.example.com", "port": 587, "use_tls": True', f'"127.0.0.1", "port": {smtp.port}'
        )
    quick = quick.replace('EMAIL_HOST = "localhost"', f'EMAIL_HOST = "127.0.0.1"\nEMAIL_PORT = {smtp.port}')
    settings.write_text(made + quick)
    for name in ("celery", "__init__"):
        (tmp_path / "proj" / f"{name}.py").write_text(samples_of(f"# proj/{name}.py")[0])
    return tmp_path


def env():
    """Without what says how these tests run: a new project has settings of its own."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("DJANGO_SETTINGS_MODULE", "TEST_SITE")
    }


def call(folder, *argv, **options):
    argv = [sys.executable, *argv]
    done = subprocess.run(argv, cwd=folder, env=env(), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def quick_start():
    return TEXT.partition("## Quick start")[2].partition("\n## ")[0]


def commands(start):
    """The lines of the quick start that begin with ``start``, as they stand there."""
    found = re.findall(rf"^ +({re.escape(start)}.*)$", quick_start(), re.MULTILINE)
    assert found
    return found


def test_it_sends_a_mail(project, smtp):
    for line in commands("python manage.py"):
        call(project, *line.split()[1:])
    processes = []
    try:
        for line in commands("celery -A proj"):
            log = project / f"{len(processes)}.log"
            processes.append(Process(line, [sys.executable, "-m", *line.split()], env(), log, cwd=project))
        call(project, "manage.py", "shell", input=sending())
        wait_until("the mail", lambda: smtp.received)
    finally:
        for process in processes:
            process.stop()
    (mail,) = smtp.received
    assert mail.message["Subject"] == "Hello"


def sending():
    (code,) = (
        textwrap.dedent(code)
        for code in re.findall(r"^ +```python\n(.*?)^ +```$", quick_start(), re.DOTALL | re.MULTILINE)
        if ".delay(" in code
    )
    return code
