"""The return path of what goes out, for the providers that are told one."""

from celery_mailer.deliver.providers.contract import Outgoing, Wire
from celery_mailer.return_path import with_token

# The ESPs that take a whole address from Anymail, by its names. Mailgun and Mandrill take only the domain, to
# Mailjet and Postal it is the header Sender, and the others refuse the message.
ESPS = frozenset({"Amazon SES", "SparkPost"})


def return_path(address: str | None, message: Outgoing) -> str | None:
    """``address``, a provider's RETURN_PATH, as that of ``message``; ``None`` where it stays as it is.

    A caller's own stays: Django's way is a header From beside ``from_email``, Anymail's
    the attribute ``envelope_sender``.
    """
    if address is None:
        return None
    if isinstance(message, Wire):
        email_id = message.email_id
    elif getattr(message, "envelope_sender", None) or "from" in map(str.lower, message.extra_headers):
        return None
    else:
        email_id = getattr(message, "email_id", None)
    return with_token(address, email_id) if email_id else None
