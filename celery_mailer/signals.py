"""Signals to the project. All are sent on commit, with ``send_robust``: Django logs a receiver that
raises (logger ``django.dispatch``), and nobody else is hurt.

Each is sent with ``sender=Email``. Those of a status have ``emails``, a list of ``Email`` instances as they
now stand; those of what happened later have ``events``, a list of ``Event`` instances with their emails.
"""

from django.dispatch import Signal

email_queued = Signal()  # persisted and committed; not for priority "now"
email_sent = Signal()  # a provider accepted it
email_deferred = Signal()  # to be tried again at ``email.due_at``
email_failed = Signal()  # final: rejected, given up, or not renderable; ``email.reason`` says which
email_uncertain = Signal()  # a provider may have it

email_delivered = Signal()  # the recipient's server has it
email_delayed = Signal()  # the provider could not deliver it yet, and goes on trying
email_bounced = Signal()  # it came back; ``event.bounce`` says what that means for the address
email_complained = Signal()  # a recipient calls it spam
email_opened = Signal()  # ``event.machine``: not by a person
email_clicked = Signal()  # ``event.url``
email_unsubscribed = Signal()  # a recipient wants no more mail of its stream
email_rejected = Signal()  # the provider had accepted it, and then refused to send it
