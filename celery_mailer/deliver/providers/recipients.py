"""Who of a message's recipients it is still for, where there is no envelope apart from the headers."""

from django.core.mail import EmailMessage

from celery_mailer.addresses import bare


def keep_only(wanted: set[str], message: EmailMessage) -> None:
    """Take those out of ``message`` who have it already: all but the bare addresses ``wanted``.

    Most ESPs refuse a message without "to", so another takes the empty place: whoever stood in "cc", or the
    one who stood alone in "bcc". Of several in "bcc" none may see another.
    """
    had_to = bool(message.to)
    for name in ("to", "cc", "bcc"):
        setattr(message, name, [a for a in getattr(message, name) if bare(a) in wanted])
    if had_to and not message.to:
        if message.cc:
            message.to, message.cc = message.cc, []
        elif len(message.bcc) == 1:
            message.to, message.bcc = message.bcc, []
