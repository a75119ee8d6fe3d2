"""Who takes part."""

from tests.bench.contestants.base import Contestant
from tests.bench.contestants.celery_email import CeleryEmail
from tests.bench.contestants.django_mail import DjangoMail
from tests.bench.contestants.homemade import HomeMade
from tests.bench.contestants.mailer import Mailer
from tests.bench.contestants.own import Own, OwnSendMany
from tests.bench.contestants.post_office import PostOffice, PostOfficeCelery
from tests.bench.contestants.raw import RawPipelined, RawSmtplib

ALL: tuple[type[Contestant], ...] = (
    RawSmtplib,
    RawPipelined,
    DjangoMail,
    PostOffice,
    PostOfficeCelery,
    CeleryEmail,
    Mailer,
    HomeMade,
    OwnSendMany,
    Own,
)


def find(name: str) -> Contestant:
    """The contestant of that name. Raises ``KeyError``."""
    return {cls.name: cls for cls in ALL}[name]()
