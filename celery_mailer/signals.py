"""Signals to the project. All are sent on commit, with ``send_robust``: Django logs a receiver that
raises (logger ``django.dispatch``), and nobody else is hurt.

Each is sent with ``sender=Email`` and ``emails``, a list of ``Email`` instances as they now stand.
"""

from django.dispatch import Signal

email_queued = Signal()  # persisted and committed; not for priority "now"
email_sent = Signal()  # a provider accepted it
email_deferred = Signal()  # to be tried again at ``email.due_at``
email_failed = Signal()  # final: rejected, given up, or not renderable; ``email.reason`` says which
email_uncertain = Signal()  # a provider may have it
