"""Email for Django, sent by Celery: render -> deliver -> log."""

__version__ = "0.1.0"
