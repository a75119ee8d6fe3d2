"""The examples of two other projects' documentation run here, unchanged but for the line that imports.

The code is word for word that of the pages, in their order: django-cfg's "Email System Overview"
(https://djangocfg.com/docs/features/modules/email/overview) and django-post_office's README
(https://github.com/ui/django-post_office). ``run`` puts this app's modules in the place of theirs. What a
page leaves to its reader (``user``, ``order``, ``{...}``) is given by the test. Settings have no import line:
``converted`` is README's "Coming from django-post_office", key by key.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import django
import pytest
from celery import Celery
from django.contrib.auth.models import Group
from django.core.files.base import ContentFile
from django.core.mail import send_mail
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone

from celery_mailer import chain, conf, mail, periodic
from celery_mailer.models import Attempt, Batch, Email, EmailTemplate
from celery_mailer.models.context import register
from celery_mailer.signals import email_queued
from tests.conftest import leave_the_outbox, smtp_provider
from tests.factories import stored
from tests.shop.models import Article, Invoice, Item, Order, User

pytestmark = pytest.mark.django_db(transaction=True)

MODULES = {
    "django_cfg.modules.django_email": "celery_mailer.tasks",
    "post_office": "celery_mailer",
    "post_office.models": "celery_mailer.models",
    "post_office.signals": "celery_mailer.signals",
}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
DOC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PUBLISH = chain.start


def run(code: str, **names: object) -> dict:
    """Run an example with this app's modules in its import lines; returns the names that it leaves."""

    def ours(line: re.Match) -> str:
        return f"from {MODULES.get(line[1], line[1])} import "

    exec(compile(re.sub(r"(?m)^from (\S+) import ", ours, code), "example", "exec"), names)
    return names


class Worker:
    """A worker that works off what was published, when the test lets it, the urgent lanes first."""

    def __init__(self) -> None:
        self.published = []

    def start(self, ids, priority):
        size = conf.get().batch_size
        self.published += [(ids[i : i + size], priority) for i in range(0, len(ids), size)]
        return True

    def work(self):
        for ids, _ in sorted(self.published, key=lambda published: -published[1]):
            chain.run(ids)
        self.published.clear()


@pytest.fixture(autouse=True)
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(chain, "start", worker.start)
    return worker


@pytest.fixture
def arrived(real_smtp, worker):
    """What arrived, once the worker has done all its work, as messages."""

    def arrived(number=1):
        worker.work()
        assert [e.status for e in Email.objects.all()] == ["sent"] * number
        assert len(real_smtp.received) == number
        return [received.message for received in real_smtp.received]

    return arrived


@pytest.fixture
def ann():
    return User.objects.create(
        email="ann@example.com", first_name="Ann", last_name="Lee", newsletter_subscribed=True
    )


def part(message, kind):
    return message.get_body((kind,)).get_content().strip()


def envelope(message):
    return message["From"], message["To"]


# django-cfg: Philosophy.


@pytest.fixture
def files(settings):
    """The file templates that django-cfg's examples name."""
    folder = Path(__file__).parent / "templates" / "seeds"
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [folder]}]


def test_cfg_an_email_from_a_template(files, arrived):
    run("""
from django_cfg.modules.django_email import send_template_email

# Send templated email
send_template_email(
    template='welcome_email.html',
    context={'user_name': 'John', 'activation_link': 'https://...'},
    to=['user@example.com'],
    subject='Welcome to our platform!'
)
""")
    (message,) = arrived()
    assert (message["To"], message["Subject"]) == ("user@example.com", "Welcome to our platform!")
    assert "<p>Welcome, John!</p>" in part(message, "html")
    assert 'href="https://..."' in part(message, "html")


# django-cfg: Quick Start.


def test_cfg_a_simple_email(arrived):
    run("""
from django_cfg.modules.django_email import send_email

# Simple email
send_email(
    subject='Hello World',
    message='This is a test email.',
    from_email='noreply@example.com',
    recipient_list=['user@example.com']
)
""")
    (message,) = arrived()
    assert envelope(message) == ("noreply@example.com", "user@example.com")
    assert message["Subject"] == "Hello World"
    assert message.get_content_type() == "text/plain"
    assert message.get_content().strip() == "This is a test email."


def test_cfg_an_html_template_with_a_text_made_of_it(files, arrived):
    """ "HTML/Text Alternatives - Automatic plain text generation"; "Template Inheritance"."""
    run("""
from django_cfg.modules.django_email import send_template_email

# HTML template email
send_template_email(
    template='emails/notification.html',
    context={
        'user_name': 'John Doe',
        'notification_text': 'Your order has been shipped!',
        'action_url': 'https://example.com/track/123'
    },
    to=['john@example.com'],
    subject='Order Shipped'
)
""")
    (message,) = arrived()
    assert (message["To"], message["Subject"]) == ("john@example.com", "Order Shipped")
    assert message.get_content_type() == "multipart/alternative"
    for kind in ("plain", "html"):
        assert "Dear John Doe, Your order has been shipped!" in part(message, kind)
        assert "https://example.com/track/123" in part(message, kind)
        assert "The platform" in part(message, kind)
    assert "<" not in part(message, "plain")


def test_cfg_bulk(files, arrived):
    run("""
from django_cfg.modules.django_email import send_bulk_email

# Send to multiple recipients
recipients = [
    {'email': 'user1@example.com', 'name': 'User 1'},
    {'email': 'user2@example.com', 'name': 'User 2'},
]

send_bulk_email(
    template='newsletter.html',
    recipients=recipients,
    subject='Monthly Newsletter',
    context={'month': 'December', 'year': 2024}
)
""")
    first, second = arrived(2)
    assert [first["To"], second["To"]] == ["User 1 <user1@example.com>", "User 2 <user2@example.com>"]
    assert {first["Subject"], second["Subject"]} == {"Monthly Newsletter"}
    assert "News of December 2024" in part(first, "html")
    assert "Dear User 1," in part(first, "html")
    assert "Dear User 2," in part(second, "html")
    assert Batch.objects.get().total == 2


# django-cfg: Configuration.

CFG_SETTINGS = """
# settings.py - Standard Django email settings
EMAIL_BACKEND = 'django.core.mail.backends.smtp.EmailBackend'
EMAIL_HOST = 'smtp.example.com'
EMAIL_PORT = 587
EMAIL_USE_TLS = True
EMAIL_HOST_USER = 'your-email@example.com'
EMAIL_HOST_PASSWORD = 'your-password'

# Django-CFG email enhancements
DEFAULT_FROM_EMAIL = 'noreply@example.com'
EMAIL_TEMPLATE_DIR = 'emails'
EMAIL_TRACKING_ENABLED = True
"""


@pytest.fixture
def project(tmp_path):
    """``project(settings, code)`` runs ``code`` in a project with ``settings`` as well as the tests' own."""

    def project(settings, *argv):
        # With MAILERS, Django 6.1 refuses the EMAIL_* settings.
        own = "from tests.settings import *\nglobals().pop('MAILERS', None)\n"
        (tmp_path / "seed_settings.py").write_text(own + settings)
        paths = [str(tmp_path), str(Path(__file__).parent.parent)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DJANGO_SETTINGS_MODULE": "seed_settings"}
        done = subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    return project


def test_cfg_settings_pass_the_checks(project):
    done = project(CFG_SETTINGS, "-m", "django", "check", "--fail-level", "WARNING")
    assert "no issues" in done.stdout


def test_cfg_settings_mean_what_they_say(project):
    code = """
        import json, django
        django.setup()
        from celery_mailer import conf
        from celery_mailer.deliver import providers
        made = providers.get("default")._backend
        told = [made.host, made.port, made.use_tls, made.username, made.password]
        print(json.dumps([*told, conf.default_from_email(), conf.get().template_dir]))
    """
    done = project(CFG_SETTINGS, "-W", "ignore", "-c", textwrap.dedent(code))
    server = ["smtp.example.com", 587, True, "your-email@example.com", "your-password"]
    assert json.loads(done.stdout) == [*server, "noreply@example.com", "emails"]


# django-cfg: Use Cases.


def test_cfg_user_authentication(files, arrived, ann):
    run(
        """
from django_cfg.modules.django_email import send_template_email

# Send welcome email
send_template_email(
    template='emails/welcome.html',
    context={'user': user, 'activation_link': activation_url},
    to=[user.email],
    subject='Welcome! Please activate your account'
)

# Password reset
send_template_email(
    template='emails/password_reset.html',
    context={'user': user, 'reset_link': reset_url},
    to=[user.email],
    subject='Reset your password'
)
""",
        user=ann,
        activation_url="https://example.com/activate/1",
        reset_url="https://example.com/reset/1",
    )
    welcome, reset = arrived(2)
    assert welcome["To"] == reset["To"] == "ann@example.com"
    assert welcome["Subject"] == "Welcome! Please activate your account"
    assert reset["Subject"] == "Reset your password"
    assert "Welcome, Ann!" in part(welcome, "html")
    assert 'href="https://example.com/activate/1"' in part(welcome, "html")
    assert "Ann Lee, choose a new password:" in part(reset, "html")
    assert 'href="https://example.com/reset/1"' in part(reset, "html")


def test_cfg_transactional_emails(files, arrived, ann):
    order = Order.objects.create(user=ann)
    for name in ("Lamp", "Chair"):
        Item.objects.create(order=order, name=name, price=Decimal("9.50"))
    invoice = Invoice.objects.create(number="2024-17", customer=ann, due_date=date(2024, 12, 31))
    run(
        """
from django_cfg.modules.django_email import send_template_email

# Order confirmation
send_template_email(
    template='emails/order_confirmation.html',
    context={'order': order, 'items': order.items.all()},
    to=[order.user.email],
    subject=f'Order #{order.id} confirmed'
)

# Invoice notification
send_template_email(
    template='emails/invoice.html',
    context={'invoice': invoice, 'due_date': invoice.due_date},
    to=[invoice.customer.email],
    subject=f'Invoice #{invoice.number}'
)
""",
        order=order,
        invoice=invoice,
    )
    confirmation, bill = arrived(2)
    assert confirmation["To"] == bill["To"] == "ann@example.com"
    assert confirmation["Subject"] == f"Order #{order.id} confirmed"
    assert f"Order {order.id} of Ann Lee: 2 items" in part(confirmation, "html")
    assert "<li>Lamp, 9.50</li><li>Chair, 9.50</li>" in part(confirmation, "html")
    assert bill["Subject"] == "Invoice #2024-17"
    assert "Invoice 2024-17, due on 2024-12-31" in part(bill, "html")


def test_cfg_marketing_campaigns(files, arrived, ann):
    bob = User.objects.create(
        email="bob@example.com", first_name="Bob", last_name="Ray", newsletter_subscribed=True
    )
    User.objects.create(email="not@example.com", newsletter_subscribed=False)
    User.objects.create(email="gone@example.com", newsletter_subscribed=True, is_active=False)
    for title in ("Lamps", "Chairs"):
        Article.objects.create(title=title)
    run(
        """
from django_cfg.modules.django_email import send_bulk_email

# Newsletter
newsletter_recipients = User.objects.filter(
    newsletter_subscribed=True,
    is_active=True
)

send_bulk_email(
    template='emails/newsletter.html',
    recipients=[{'email': u.email, 'name': u.get_full_name()} for u in newsletter_recipients],
    subject='Monthly Newsletter - December 2024',
    context={'featured_articles': articles, 'unsubscribe_url': '...'}
)
""",
        User=User,
        articles=Article.objects.order_by("title"),
    )
    messages = arrived(2)
    assert [m["To"] for m in messages] == [f"Ann Lee <{ann.email}>", f"Bob Ray <{bob.email}>"]
    assert {m["Subject"] for m in messages} == {"Monthly Newsletter - December 2024"}
    for message, name in zip(messages, ("Ann Lee", "Bob Ray"), strict=True):
        html = part(message, "html")
        assert f"Dear {name}," in html
        assert "<li>Chairs</li><li>Lamps</li>" in html
        assert '<a href="...">Unsubscribe</a>' in html


# django-post_office: what its settings become here.


def converted(post_office: dict) -> dict:
    """``POST_OFFICE`` as ``CELERY_MAILER``, by the table in README."""
    ours, retry = {}, {}
    for key, value in post_office.items():
        match key:
            case "BATCH_SIZE" | "DEFAULT_PRIORITY" | "OVERRIDE_RECIPIENTS" | "MESSAGE_ID_FQDN" | "LOG_LEVEL":
                ours[key] = value
            case "TEMPLATE_ENGINE":
                ours |= {key: value, "POST_OFFICE_TAGS": True}
            case "BACKENDS":
                ours["PROVIDERS"] = {alias: {"BACKEND": path} for alias, path in value.items()}
            case "MAX_RETRIES":
                retry["MAX_ATTEMPTS"] = value + 1
            case "RETRY_INTERVAL":
                retry |= {"WAIT": "fixed", "MIN": value}
            case "MESSAGE_ID_ENABLED" | "SENDING_ORDER" | "CONTEXT_FIELD_CLASS":
                pass  # always so
            case "THREADS_PER_PROCESS" | "CELERY_ENABLED":
                pass  # the worker's own options
            case _:
                raise KeyError(key)
    return ours | ({"RETRY": retry} if retry else {})


@pytest.fixture
def put_into_settings(settings, real_smtp):
    """Takes a ``POST_OFFICE`` example over; mail still goes to the test's own server."""

    def put(code, **names):
        ours = converted(run(code, **names)["POST_OFFICE"])
        here = {"PROVIDERS": {"default": smtp_provider(real_smtp.port)}}
        settings.CELERY_MAILER = here | ours
        assert conf.problems() == ()

    return put


# django-post_office: Installation and Quickstart.


def test_post_office_as_the_email_backend(settings, real_smtp, worker):
    """EMAIL_BACKEND = 'post_office.EmailBackend'"""
    settings.CELERY_MAILER = {"PROVIDERS": {"smtp": smtp_provider(real_smtp.port)}}
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp"}}}
    else:
        settings.EMAIL_BACKEND = "celery_mailer.backends.EmailBackend"
    send_mail("My email", "Hi there!", "sender@example.com", ["recipient@example.com"])
    assert real_smtp.received == []
    worker.work()
    (received,) = real_smtp.received
    assert received.message["Subject"] == "My email"


def test_post_office_a_simple_email(arrived, real_smtp):
    run("""
from post_office import mail

mail.send(
    'recipient@example.com', # List of email addresses also accepted
    'from@example.com',
    subject='My email',
    message='Hi there!',
    html_message='Hi <strong>there</strong>!',
)
""")
    assert real_smtp.received == []  # it is queued
    (message,) = arrived()
    assert envelope(message) == ("from@example.com", "recipient@example.com")
    assert message["Subject"] == "My email"
    assert message.get_content_type() == "multipart/alternative"
    assert part(message, "plain") == "Hi there!"
    assert part(message, "html") == "Hi <strong>there</strong>!"


def test_post_office_a_template(arrived, real_smtp):
    welcome_email()
    run("""
from post_office import mail

mail.send(
    'recipient@example.com', # List of email addresses also accepted
    'from@example.com',
    template='welcome_email', # Could be an EmailTemplate instance or name
    context={'foo': 'bar'},
)
""")
    assert real_smtp.received == []
    (message,) = arrived()
    assert_welcome(message)


def welcome_email():
    words = {
        "subject": "Welcome to {{ foo }}",
        "content": "A {{ foo }}",
        "html_content": "A <b>{{ foo }}</b>",
    }
    EmailTemplate.objects.create(name="welcome_email", **words)


def assert_welcome(message):
    assert envelope(message) == ("from@example.com", "recipient@example.com")
    assert message["Subject"] == "Welcome to bar"
    assert (part(message, "plain"), part(message, "html")) == ("A bar", "A <b>bar</b>")


# django-post_office: mail.send().


def test_post_office_without_a_template(arrived):
    run("""
from datetime import date
from post_office import mail

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    subject='Welcome!',
    message='Welcome home, {{ name }}!',
    html_message='Welcome home, <b>{{ name }}</b>!',
    headers={'Reply-to': 'reply@example.com'},
    scheduled_time=date(2014, 1, 1),
    context={'name': 'Alice'},
)
""")
    (message,) = arrived()
    assert envelope(message) == ("from@example.com", "recipient@example.com")
    assert (message["Subject"], message.get_all("Reply-To")) == ("Welcome!", ["reply@example.com"])
    assert part(message, "plain") == "Welcome home, Alice!"
    assert part(message, "html") == "Welcome home, <b>Alice</b>!"
    assert Email.objects.get().scheduled_at == timezone.make_aware(datetime(2014, 1, 1))  # noqa: DTZ001


def test_post_office_now(real_smtp):
    welcome_email()
    run("""
from post_office import mail

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    template='welcome_email',
    context={'foo': 'bar'},
    priority='now',
)
""")
    (received,) = real_smtp.received  # "right away (instead of queuing it)": no worker was asked
    assert_welcome(received.message)
    assert [a.outcome for a in Attempt.objects.all()] == ["accepted"]


@pytest.fixture
def path_to_file(tmp_path, monkeypatch):
    """What is opened as /path/to/file/file1.doc is a file of the test's."""
    (tmp_path / "file1.doc").write_bytes(DOC)
    opened = open

    def open_(file, *args, **kwargs):
        here = str(file).replace("/path/to/file", str(tmp_path))
        return opened(here if here != str(file) else file, *args, **kwargs)

    monkeypatch.setattr("io.open", open_)
    monkeypatch.setattr("builtins.open", open_)


def test_post_office_attachments(real_smtp, path_to_file):
    welcome_email()
    run("""
from django.core.files.base import ContentFile
from post_office import mail

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    template='welcome_email',
    context={'foo': 'bar'},
    priority='now',
    attachments={
        'attachment1.doc': '/path/to/file/file1.doc',
        'attachment2.txt': ContentFile('file content'),
        'attachment3.txt': {'file': ContentFile('file content'), 'mimetype': 'text/plain'},
    }
)
""")
    (received,) = real_smtp.received
    assert_welcome(received.message)
    document, *texts = received.message.iter_attachments()
    assert document.get_filename() == "attachment1.doc"
    assert (document.get_content_type(), document.get_content()) == (
        "application/msword",
        DOC,
    )
    assert [text.get_filename() for text in texts] == ["attachment2.txt", "attachment3.txt"]
    assert [text.get_content().strip() for text in texts] == ["file content"] * 2
    assert [text.get_content_type() for text in texts] == ["text/plain"] * 2


# django-post_office: Template Tags and Variables.


def test_post_office_tags_and_variables(arrived):
    run("""
from post_office.models import EmailTemplate
from post_office import mail

EmailTemplate.objects.create(
    name='morning_greeting',
    subject='Morning, {{ name|capfirst }}',
    content='Hi {{ name }}, how are you feeling today?',
    html_content='Hi <strong>{{ name }}</strong>, how are you feeling today?',
)

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    template='morning_greeting',
    context={'name': 'alice'},
)
""")
    # "This will create an email with the following content:"
    (subject,) = run("subject = 'Morning, Alice',")["subject"]
    content = run("content = 'Hi alice, how are you feeling today?'")["content"]
    html = run("content = 'Hi <strong>alice</strong>, how are you feeling today?'")["content"]
    (message,) = arrived()
    assert (message["Subject"], part(message, "plain"), part(message, "html")) == (subject, content, html)


# django-post_office: Multilingual Email Templates.


def test_post_office_multilingual_templates(arrived):
    names = run("""
from post_office.models import EmailTemplate

template = EmailTemplate.objects.create(
    name='hello',
    subject='Hello world!',
)

# Add an Indonesian version of this template:
indonesian_template = template.translated_templates.create(
    language='id',
    subject='Halo Dunia!'
)
""")
    assert names["indonesian_template"].name == "hello"
    run(
        """
from post_office import mail

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    template=template, # Sends using the default template
)

mail.send(
    ['recipient@example.com'],
    'from@example.com',
    template=template,
    language='id', # Sends using Indonesian template
)
""",
        template=names["template"],
    )
    assert [message["Subject"] for message in arrived(2)] == ["Hello world!", "Halo Dunia!"]


# django-post_office: Inlined Images.

IMAGE_ENGINE = """
TEMPLATES = [
    {
        'BACKEND': 'django.template.backends.django.DjangoTemplates',
        'APP_DIRS': True,
    }, {
        'BACKEND': 'post_office.template.backends.post_office.PostOfficeTemplates',
        'APP_DIRS': True,
        'DIRS': [],
        'OPTIONS': {
            'context_processors': [
                'django.contrib.auth.context_processors.auth',
                'django.template.context_processors.debug',
                'django.template.context_processors.i18n',
                'django.template.context_processors.media',
                'django.template.context_processors.static',
                'django.template.context_processors.tz',
                'django.template.context_processors.request',
            ]
        }
    }
]

POST_OFFICE = {
    'TEMPLATE_ENGINE': 'post_office',
}
"""


@pytest.fixture
def image_engine(settings, real_smtp, tmp_path):
    """The engine of the example, a static file, and all of Django's mail in the queue."""
    code = IMAGE_ENGINE.replace(
        # Django names an engine by the module of its class, if it is given no name.
        "'BACKEND': 'post_office.template.backends.post_office.PostOfficeTemplates',",
        "'NAME': 'post_office', 'BACKEND': 'celery_mailer.render.backend.EmailTemplates',",
    )
    given = run(code)
    settings.CELERY_MAILER = converted(given["POST_OFFICE"]) | {
        "PROVIDERS": {"smtp": smtp_provider(real_smtp.port)}
    }
    settings.TEMPLATES = given["TEMPLATES"]
    image = tmp_path / "static" / "path" / "to" / "image.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(PNG)
    settings.STATIC_URL = "/static/"
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.STATICFILES_DIRS = [tmp_path / "static"]
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": conf.QUEUE_BACKEND, "OPTIONS": {"using": "smtp"}}}
    else:
        settings.EMAIL_BACKEND = conf.QUEUE_BACKEND


def assert_shows_the_image(message):
    html = part(message, "html")
    (cid,) = re.findall(r'<img src="cid:([^"]+)" />', html)
    (image,) = [p for p in message.walk() if p.get_content_type() == "image/png"]
    assert (image["Content-ID"], image.get_content_disposition()) == (f"<{cid}>", "inline")
    assert image.get_content() == PNG
    assert "multipart/related" in {p.get_content_type() for p in message.walk()}


def test_post_office_an_inlined_image_beside_a_text(image_engine, arrived):
    code = """
from django.core.mail import EmailMultiAlternatives
from django.template.loader import get_template

subject, body = "Hello", "Plain text body"
from_email, to_email = "no-reply@example.com", "john@example.com"
email_message = EmailMultiAlternatives(subject, body, from_email, [to_email])
template = get_template('email-template-name.html', using='post_office')
context = {...}
html = template.render(context)
email_message.attach_alternative(html, 'text/html')
template.attach_related(email_message)
email_message.send()
"""
    run(code.replace("{...}", "{'foo': 'bar'}"))
    (message,) = arrived()
    assert envelope(message) == ("no-reply@example.com", "john@example.com")
    assert (message["Subject"], part(message, "plain")) == ("Hello", "Plain text body")
    assert_shows_the_image(message)


def test_post_office_an_inlined_image_without_a_text(image_engine, arrived):
    code = """
from django.core.mail import EmailMultiAlternatives
from django.template.loader import get_template

subject, from_email, to_email = "Hello", "no-reply@example.com", "john@example.com"
template = get_template('email-template-name.html', using='post_office')
context = {...}
html = template.render(context)
email_message = EmailMultiAlternatives(subject, html, from_email, [to_email])
email_message.content_subtype = 'html'
template.attach_related(email_message)
email_message.send()
"""
    run(code.replace("{...}", "{'foo': 'bar'}"))
    (message,) = arrived()
    assert message["Subject"] == "Hello"
    assert message.get_body(("plain",)) is None
    assert_shows_the_image(message)


def test_post_office_an_inlined_image_by_mail_send(image_engine, arrived):
    source = """
{% load post_office %}

<p>... somewhere in the body ...</p>
<img src="{% inline_image 'path/to/image.png' %}" />
"""
    EmailTemplate.objects.create(name="image", subject="Hello", html_content=source)
    mail.send("john@example.com", template="image")
    (message,) = arrived()
    assert_shows_the_image(message)


# django-post_office: Custom Email Backends.


class SESBackend(BaseEmailBackend):
    """Stands for django-ses, which is not installed."""

    sent = []

    def send_messages(self, email_messages):
        self.sent += email_messages
        return len(email_messages)


def test_post_office_backends_by_alias(settings, real_smtp, worker):
    code = """
# Put this in settings.py
POST_OFFICE = {
    'BACKENDS': {
        'default': 'smtp.EmailBackend',
        'ses': 'django_ses.SESBackend',
    }
}
"""
    ours = converted(run(code)["POST_OFFICE"])["PROVIDERS"]
    assert list(ours) == ["default", "ses"]
    settings.CELERY_MAILER = {
        "PROVIDERS": {
            "default": smtp_provider(real_smtp.port),
            "ses": {"BACKEND": f"{__name__}.SESBackend"},
        }
    }
    SESBackend.sent.clear()
    run("""
from post_office import mail

# If you omit `backend_alias` argument, `default` will be used
mail.send(
    ['recipient@example.com'],
    'from@example.com',
    subject='Hello',
)
""")
    worker.work()
    assert (len(real_smtp.received), len(SESBackend.sent)) == (1, 0)
    run("""
from post_office import mail

# If you want to send using `ses` backend
mail.send(
    ['recipient@example.com'],
    'from@example.com',
    subject='Hello',
    backend='ses',
)
""")
    worker.work()
    assert (len(real_smtp.received), len(SESBackend.sent)) == (1, 1)


# django-post_office: Settings.


def test_post_office_batch_size(put_into_settings, monkeypatch):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'BATCH_SIZE': 50,
}
""")
    sizes = []
    monkeypatch.setattr(chain, "start", PUBLISH)
    monkeypatch.setattr(chain, "publish", lambda ids, priority: sizes.append(len(ids)))
    mail.send_many({"recipients": f"u{i}@example.com", "subject": "Hi!"} for i in range(120))
    assert sizes == [50, 50, 20]


def test_post_office_default_priority(put_into_settings, real_smtp):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'DEFAULT_PRIORITY': 'now',
}
""")
    email = mail.send("recipient@example.com", "from@example.com", subject="Hello")
    assert (email.get_priority_display(), email.status) == ("now", "sent")
    assert len(real_smtp.received) == 1


def test_post_office_override_recipients(put_into_settings, arrived, real_smtp):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'OVERRIDE_RECIPIENTS': ['to@example.com', 'to2@example.com'],
}
""")
    email = mail.send("recipient@example.com", "from@example.com", subject="Hello")
    (message,) = arrived()
    assert real_smtp.received[0].recipients == ["to@example.com", "to2@example.com"]
    assert message["To"] == "to@example.com, to2@example.com"
    assert stored(email).to == ["recipient@example.com"]


def test_post_office_message_ids(put_into_settings, arrived):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'MESSAGE_ID_ENABLED': True,
}
""")
    email = mail.send("recipient@example.com", "from@example.com", subject="Hello")
    (message,) = arrived()
    assert stored(email).message_id == message["Message-ID"]


def test_post_office_the_domain_of_message_ids(put_into_settings, arrived):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'MESSAGE_ID_ENABLED': True,
    'MESSAGE_ID_FQDN': 'example.com',
}
""")
    email = mail.send("recipient@example.com", "from@example.com", subject="Hello")
    (message,) = arrived()
    assert stored(email).message_id == message["Message-ID"]
    assert message["Message-ID"].endswith("@example.com>")


RETRIES = """
import datetime
# Put this in settings.py
POST_OFFICE = {
    'MAX_RETRIES': 4,
    'RETRY_INTERVAL': datetime.timedelta(minutes=15),  # Schedule to be retried 15 minutes later
}
"""


class Refusing(BaseEmailBackend):
    def send_messages(self, email_messages):
        raise ConnectionRefusedError("nobody listens")


def test_post_office_retries(settings, worker):
    leave_the_outbox(settings)
    ours = converted(run(RETRIES)["POST_OFFICE"])
    settings.CELERY_MAILER = ours | {"PROVIDERS": {"default": {"BACKEND": f"{__name__}.Refusing"}}}
    email = mail.send("recipient@example.com", "from@example.com", subject="Hello")
    waits = []
    for _ in range(4):
        worker.work()
        email.refresh_from_db()
        assert email.status == "deferred"
        waits.append(email.due_at - Attempt.objects.latest("pk").finished_at)
        assert periodic.dispatch() == {"dispatched": 0}
        Email.objects.update(due_at=timezone.now())
        periodic.dispatch()
    assert {round(wait / timedelta(minutes=1)) for wait in waits} == {15}
    worker.work()
    email.refresh_from_db()
    assert (email.status, email.attempt_count) == ("failed", 5)


@pytest.mark.parametrize(("backend", "kept"), [("Refusing", 1), ("SESBackend", 0)])
def test_post_office_log_level(settings, worker, backend, kept):
    code = """
# Put this in settings.py
POST_OFFICE = {
    'LOG_LEVEL': 1, # Log only failed deliveries
}
"""
    leave_the_outbox(settings)
    settings.CELERY_MAILER = converted(run(code)["POST_OFFICE"]) | {
        "PROVIDERS": {"default": {"BACKEND": f"{__name__}.{backend}"}},
        "RETRY": {"MAX_ATTEMPTS": 1},
    }
    mail.send("recipient@example.com", "from@example.com", subject="Hello")
    worker.work()
    assert Attempt.objects.count() == kept


def test_post_office_sending_order(put_into_settings, arrived, worker):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'SENDING_ORDER': ['created'],
}
""")
    for i in range(5):
        mail.send("recipient@example.com", "from@example.com", subject=f"{i}")
    worker.published.clear()  # their messages are lost: the dispatcher, too, keeps the order
    Email.objects.update(due_at=timezone.now())
    periodic.dispatch()
    assert [m["Subject"] for m in arrived(5)] == ["0", "1", "2", "3", "4"]


class Money:
    def __init__(self, amount, currency):
        self.amount, self.currency = amount, currency

    def __str__(self):
        return f"{self.amount} {self.currency}"


def test_post_office_complex_objects_in_a_context(put_into_settings, arrived):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'CONTEXT_FIELD_CLASS': 'picklefield.fields.PickledObjectField',
}
""")
    register("money", Money, lambda m: [str(m.amount), m.currency], lambda v: Money(Decimal(v[0]), v[1]))
    words = "{{ price.amount|floatformat:1 }} {{ price.currency }} {{ day|date:'Y' }} {{ group.name }}"
    EmailTemplate.objects.create(name="complex", subject=words)
    mail.send(
        "recipient@example.com",
        template="complex",
        context={
            "price": Money(Decimal("9.50"), "EUR"),
            "day": date(2024, 12, 31),
            "group": Group.objects.create(name="Staff"),
        },
        render_on_delivery=True,
    )
    (message,) = arrived()
    assert message["Subject"] == "9.5 EUR 2024 Staff"


LOGGING = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "post_office": {
            "format": "[%(levelname)s]%(asctime)s PID %(process)d: %(message)s",
            "datefmt": "%d-%m-%Y %H:%M:%S",
        },
    },
    "handlers": {
        "post_office": {
            "level": "DEBUG",
            "class": "logging.StreamHandler",
            "formatter": "post_office"
        },
        # If you use sentry for logging
        'sentry': {
            'level': 'ERROR',
            'class': 'raven.contrib.django.handlers.SentryHandler',
        },
    },
    'loggers': {
        "post_office": {
            "handlers": ["post_office", "sentry"],
            "level": "INFO"
        },
    },
}
"""


def test_post_office_logging(project):
    """The name of the logger stands for an import line, a handler for raven's, which is not installed."""
    given = run(LOGGING)["LOGGING"]
    given["loggers"]["celery_mailer"] = given["loggers"].pop("post_office")
    given["handlers"]["sentry"]["class"] = "logging.NullHandler"
    code = """
        import django
        django.setup()
        from celery_mailer.render.images import reference
        reference("nowhere.png", debug=False, page=False)
    """
    done = project(f"LOGGING = {given!r}", "-W", "ignore", "-c", textwrap.dedent(code))
    line = r"^\[WARNING\]\d\d-\d\d-\d{4} \d\d:\d\d:\d\d PID \d+: .*nowhere\.png"
    assert re.search(line, done.stderr, re.MULTILINE), done.stderr


def test_post_office_threads(put_into_settings):
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'THREADS_PER_PROCESS': 10,
}
""")
    assert conf.problems() == ()


# django-post_office: Performance.


def test_post_office_caching(settings, arrived):
    code = """
## All cache key will be prefixed by post_office:template:
## To turn OFF caching, you need to explicitly set POST_OFFICE_CACHE to False in settings
POST_OFFICE_CACHE = False

## Optional: to use a non default cache backend, add a "post_office" entry in CACHES
CACHES = {
    'post_office': {
        'BACKEND': 'django.core.cache.backends.memcached.PyLibMCCache',
        'LOCATION': '127.0.0.1:11211',
    }
}
"""
    given = run(code)
    settings.POST_OFFICE_CACHE = given["POST_OFFICE_CACHE"]
    settings.CACHES = {**settings.CACHES, **given["CACHES"]}
    template = EmailTemplate.objects.create(name="hello", subject="Hello world!")
    mail.send("recipient@example.com", template="hello")
    template.subject = "Hello, all!"
    template.save()
    mail.send("recipient@example.com", template="hello")
    assert [message["Subject"] for message in arrived(2)] == ["Hello world!", "Hello, all!"]


def test_post_office_send_many(arrived):
    run("""
from post_office import mail

first_email = {
    'sender': 'from@example.com',
    'recipients': ['alice@example.com'],
    'subject': 'Hi!',
    'message': 'Hi Alice!'
}
second_email = {
    'sender': 'from@example.com',
    'recipients': ['bob@example.com'],
    'subject': 'Hi!',
    'message': 'Hi Bob!'
}
kwargs_list = [first_email, second_email]

mail.send_many(kwargs_list)
""")
    alice, bob = arrived(2)
    assert (envelope(alice), envelope(bob)) == (
        ("from@example.com", "alice@example.com"),
        ("from@example.com", "bob@example.com"),
    )
    assert (alice.get_content().strip(), bob.get_content().strip()) == ("Hi Alice!", "Hi Bob!")
    assert (alice["Subject"], bob["Subject"]) == ("Hi!", "Hi!")


def test_post_office_send_many_takes_attachments_too(arrived):
    """There, "Attachments are not supported with mail.send_many()"."""
    mail.send_many([{"recipients": "a@example.com", "attachments": {"a.txt": ContentFile("a")}}])
    (message,) = arrived()
    assert [a.get_filename() for a in message.iter_attachments()] == ["a.txt"]


# django-post_office: Integration with Celery.


def test_post_office_celery(put_into_settings, arrived, worker):
    """Emails go out at once, no beat is asked. With real workers it is ``e2e/test_flow.py``."""
    put_into_settings("""
# Put this in settings.py
POST_OFFICE = {
    'CELERY_ENABLED': True,
}
""")
    mail.send("recipient@example.com", "from@example.com", subject="Hello")
    assert len(worker.published) == 1
    (message,) = arrived()
    assert message["Subject"] == "Hello"


def test_post_office_a_beat_schedule(arrived, worker):
    code = """
app.conf.beat_schedule = {
    'send-queued-mail': {
        'task': 'post_office.tasks.send_queued_mail',
        'schedule': 600.0,
    },
}
"""
    app = Celery("proj", set_as_current=False)
    run(code.replace("post_office.tasks.send_queued_mail", "celery_mailer.dispatch"), app=app)
    (entry,) = app.conf.beat_schedule.values()
    mail.send("recipient@example.com", "from@example.com", subject="Hello")
    worker.published.clear()  # "a temporary delivery failure": its message was lost
    Email.objects.update(due_at=timezone.now())
    app.tasks[entry["task"]]()
    (message,) = arrived()
    assert message["Subject"] == "Hello"


# django-post_office: Quickstart and Management Commands: cron. Integration with uWSGI.

SITE_CODE = """
import django
django.setup()
from datetime import timedelta
from django.core.management import call_command
from django.utils import timezone
from celery_mailer import mail
from celery_mailer.models import Email
call_command("migrate", verbosity=0)
old = mail.send("old@example.com", subject="Sent long ago", priority="now")
month_ago = timezone.now() - timedelta(days=31)
Email.objects.update(created_at=month_ago, finished_at=month_ago)
mail.send("recipient@example.com", subject="Hello")
mail.send("later@example.com", subject="Later", scheduled_time=timezone.now() + timedelta(days=1))
Email.objects.filter(status="queued").update(created_at=month_ago)
"""


@pytest.fixture
def cron(tmp_path, smtp_server):
    """``cron(line)`` does what cron would for that line of its table, in a site with emails and no worker."""
    (tmp_path / "seed_settings.py").write_text(
        "from tests.settings import *\n"
        f"DATABASES = {{'default': database('sqlite:///{tmp_path}/db.sqlite3')}}\n"
        f"CELERY_MAILER = {{'PROVIDERS': {{'default': {smtp_provider(smtp_server.port)!r}}}}}\n"
    )
    manage = (
        "from django.core.management import execute_from_command_line as main\nimport sys\nmain(sys.argv)"
    )
    (tmp_path / "manage.py").write_text(manage)
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)]),
        "DJANGO_SETTINGS_MODULE": "seed_settings",
        "PROJECT": str(tmp_path),
    }

    def run_there(*argv):
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""

    run_there(sys.executable, "-W", "ignore", "-c", SITE_CODE)
    return lambda line: run_there(
        "/bin/sh", "-c", line.split(None, 5)[5].replace("/usr/bin/python", "python")
    )


def test_post_office_cron_sends_what_is_queued(cron, smtp_server, tmp_path):
    cron("* * * * * (/usr/bin/python manage.py send_queued_mail >> send_mail.log 2>&1)")
    assert [r.message["Subject"] for r in smtp_server.received] == ["Sent long ago", "Hello"]
    assert (tmp_path / "send_mail.log").read_text() == "sent: 1\n"


def test_post_office_cron_sends_and_cleans_up(cron, smtp_server, tmp_path):
    cron(
        "* * * * * (cd $PROJECT; python manage.py send_queued_mail --processes=1 "
        ">> $PROJECT/cron_mail.log 2>&1)"
    )
    assert [r.message["Subject"] for r in smtp_server.received] == ["Sent long ago", "Hello"]
    cron(
        "0 1 * * * (cd $PROJECT; python manage.py cleanup_mail --days=30 --delete-attachments "
        ">> $PROJECT/cron_mail_cleanup.log 2>&1)"
    )
    # Both that were sent; not the one that is scheduled.
    assert (tmp_path / "cron_mail_cleanup.log").read_text().startswith("Deleted 2 mails created before ")


WSGI = """
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

# add this block of code
try:
    import uwsgidecorators
    from django.core.management import call_command

    @uwsgidecorators.timer(10)
    def send_queued_mail(num):
        \"\"\"Send queued mail every 10 seconds\"\"\"
        call_command('send_queued_mail', processes=1)

except ImportError:
    print("uwsgidecorators not found. Cron and timers are disabled")
"""


def test_post_office_uwsgi_decorators(monkeypatch, real_smtp):
    timers = []
    uwsgi = SimpleNamespace(timer=lambda seconds: lambda call: timers.append((seconds, call)))
    monkeypatch.setitem(sys.modules, "uwsgidecorators", uwsgi)
    run(WSGI)
    ((seconds, tick),) = timers
    assert seconds == 10
    mail.send("recipient@example.com", "from@example.com", subject="Hello")
    tick(0)
    assert [r.message["Subject"] for r in real_smtp.received] == ["Hello"]


def test_post_office_without_uwsgi(capsys):
    run(WSGI)
    assert capsys.readouterr().out == "uwsgidecorators not found. Cron and timers are disabled\n"


# django-post_office: Signals.


def test_post_office_signals(capsys):
    names = run("""
from django.dispatch import receiver
from post_office.signals import email_queued

@receiver(email_queued)
def my_callback(sender, emails, **kwargs):
    print("Added {} mails to the sending queue".format(len(emails)))
""")
    try:
        mail.send_many({"recipients": f"u{i}@example.com", "subject": "Hi!"} for i in range(3))
    finally:
        email_queued.disconnect(names["my_callback"])
    assert capsys.readouterr().out == "Added 3 mails to the sending queue\n"
