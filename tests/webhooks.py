"""What 12 ESPs post to Anymail's webhook views, in the shape that its parsers read: a sample for each event.

``EVENTS`` has, by ESP, each kind of event as a function of the ESP's message id, with the bounce that it is.
"""

import hashlib
import hmac
import json
from base64 import b64encode

TO = "a@example.com"
URL = "https://shop.example.com/sale"
SECRETS = {
    "WEBHOOK_SECRET": "user:password",
    "MAILGUN_WEBHOOK_SIGNING_KEY": "mailgun-key",
    "MANDRILL_WEBHOOK_KEY": "mandrill-key",
    "MAILERSEND_SIGNING_SECRET": "mailersend-key",
    "MAILTRAP_TRACKING_SECRET": "mailtrap-key",
    "UNISENDER_GO_API_KEY": "unisender-key",
}
NOBODY = "550 5.1.1 <a@example.com>: Recipient address rejected: User unknown"
STAMP = 1777636800  # 2026-05-01T12:00:00Z
ISO = "2026-05-01T12:00:00.000Z"


def _sign(key, data):
    return hmac.new(SECRETS[key].encode(), data, hashlib.sha256).hexdigest()


def _as_json(path, payload, **headers):
    return path, json.dumps(payload).encode(), "application/json", headers


# A function for each ESP makes (path, body, content type, headers) from its payload.


def amazon_ses(payload):
    sns = {"Type": "Notification", "MessageId": "sns-" + payload["eventType"], "Timestamp": ISO}
    headers = {"x-amz-sns-message-type": "Notification", "x-amz-sns-message-id": sns["MessageId"]}
    return _as_json("amazon_ses/tracking/", sns | {"Message": json.dumps(payload)}, **headers)


def brevo(payload):
    return _as_json("brevo/tracking/", payload)


def mailersend(payload):
    path, body, mime, _ = _as_json("mailersend/tracking/", payload)
    return path, body, mime, {"Signature": _sign("MAILERSEND_SIGNING_SECRET", body)}


def mailgun(payload):
    token = hashlib.sha256(json.dumps(payload).encode()).hexdigest()[:50]
    signature = _sign("MAILGUN_WEBHOOK_SIGNING_KEY", f"{STAMP}{token}".encode())
    block = {"timestamp": str(STAMP), "token": token, "signature": signature}
    return _as_json("mailgun/tracking/", {"signature": block, "event-data": payload})


def mailjet(payload):
    return _as_json("mailjet/tracking/", [payload])


def mailtrap(payload):
    path, body, mime, _ = _as_json("mailtrap/tracking/", {"events": [payload]})
    return path, body, mime, {"Mailtrap-Signature": _sign("MAILTRAP_TRACKING_SECRET", body)}


def mandrill(payload):
    from urllib.parse import urlencode

    events = json.dumps([payload])
    signed = "https://user:password@testserver/anymail/mandrill/mandrill_events" + events
    key = SECRETS["MANDRILL_WEBHOOK_KEY"].encode()
    signature = b64encode(hmac.new(key, signed.encode(), hashlib.sha1).digest()).decode()
    body = urlencode({"mandrill_events": events}).encode()
    return "mandrill/", body, "application/x-www-form-urlencoded", {"X-Mandrill-Signature": signature}


def postmark(payload):
    return _as_json("postmark/tracking/", payload)


def resend(payload):
    return _as_json("resend/tracking/", payload, **{"svix-id": "svix-" + payload["type"]})


def sendgrid(payload):
    return _as_json("sendgrid/tracking/", [payload])


def sparkpost(payload):
    return _as_json("sparkpost/tracking/", [payload])


def unisender_go(payload):
    outer = {"auth": "AUTH", "events_by_user": [{"events": [payload]}]}
    body = json.dumps(outer).encode()
    key = SECRETS["UNISENDER_GO_API_KEY"].encode()
    auth = hashlib.md5(body.replace(b"AUTH", key)).hexdigest().encode()
    return "unisender_go/tracking/", body.replace(b"AUTH", auth), "application/json", {}


# A function for each ESP makes its payload.


def _ses(kind, **more):
    def make(message_id):
        mail = {"messageId": message_id, "destination": [TO], "timestamp": ISO}
        return {"eventType": kind, "mail": mail, kind.lower(): more}

    return make


def _ses_bounce(kind, subtype, words):
    gone = [{"emailAddress": TO, "status": "5.0.0", "diagnosticCode": words}]
    return _ses("Bounce", bounceType=kind, bounceSubType=subtype, bouncedRecipients=gone)


def _brevo(event, **more):
    return lambda message_id: {
        "event": event, "email": TO, "message-id": message_id, "ts_epoch": STAMP * 1000, **more
    }  # fmt: skip


def _mailersend(kind, **morph):
    def make(message_id):
        email = {"message": {"id": message_id}, "recipient": {"email": TO}}
        data = {"id": f"ms-{kind}", "type": kind, "created_at": ISO, "email": email}
        return {"type": f"activity.{kind}", "data": data | ({"morph": morph} if morph else {})}

    return make


def _mailgun(event, **more):
    return lambda message_id: {
        "event": event, "recipient": TO, "timestamp": STAMP,
        "message": {"headers": {"message-id": message_id.strip("<>")}}, **more,
    }  # fmt: skip


def _mailjet(event, **more):
    return lambda message_id: {
        "event": event, "email": TO, "time": STAMP, "MessageID": int(message_id), **more
    }  # fmt: skip


def _mailtrap(event, **more):
    return lambda message_id: {
        "event": event, "email": TO, "timestamp": STAMP, "message_id": message_id,
        "event_id": f"mt-{event}", "sending_stream": "transactional", **more,
    }  # fmt: skip


def _mandrill(event, url=None, **msg):
    return lambda message_id: {
        "event": event, "ts": STAMP, "_id": message_id, "url": url, "msg": {"email": TO, **msg}
    }  # fmt: skip


def _postmark(record, **more):
    recipient = "Email" if record in ("Bounce", "SpamComplaint") else "Recipient"
    return lambda message_id: {
        "RecordType": record, "MessageID": message_id, recipient: TO, "ReceivedAt": ISO, **more
    }  # fmt: skip


def _resend(kind, **data):
    return lambda message_id: {
        "type": f"email.{kind}", "created_at": ISO, "data": {"email_id": message_id, "to": [TO], **data}
    }  # fmt: skip


def _sendgrid(event, **more):
    return lambda message_id: {
        "event": event, "email": TO, "timestamp": STAMP, "sg_event_id": f"sg-{event}",
        "smtp-id": "<own@sendgrid.example>", "anymail_id": message_id, **more,
    }  # fmt: skip


def _sparkpost(kind, **more):
    group = "track_event" if kind in ("open", "click") else "message_event"
    return lambda message_id: {
        "msys": {
            group: {
                "type": kind, "transmission_id": message_id, "raw_rcpt_to": TO, "timestamp": str(STAMP),
                "event_id": f"sp-{kind}", **more,
            }
        }
    }  # fmt: skip


def _unisender(status, url=None, **info):
    return lambda message_id: {
        "event_name": "transactional_email_status",
        "event_data": {
            "status": status, "email": TO, "job_id": message_id, "event_time": "2026-05-01 12:00:00",
            "url": url, "delivery_info": info,
        },
    }  # fmt: skip


FULL = "552 5.2.2 Mailbox full"
SPAM = "550 5.7.1 Message refused as spam"

# By ESP: the envelope, the message id, and by kind and bounce of the event, its payload.
ESPS = {
    "amazon_ses": (amazon_ses, "0100018-ses-000000"),
    "brevo": (brevo, "<202605011200.1@smtp-relay.mailin.fr>"),
    "mailersend": (mailersend, "62f114f8165fe0d8db0288e3"),
    "mailgun": (mailgun, "<20260501120000.1.ABC@mg.example.com>"),
    "mailjet": (mailjet, "1152921534040123456"),
    "mailtrap": (mailtrap, "1df37d17-0286-4d8b-8edf-bc4ec5be86e6"),
    "mandrill": (mandrill, "abcdef0123456789abcdef0123456789"),
    "postmark": (postmark, "883953f4-6105-42a2-a16a-77a8eac79483"),
    "resend": (resend, "56761188-7520-42d8-8898-ff6fc54ce618"),
    "sendgrid": (sendgrid, "7a1e0f1e-4f2b-4f7e-9d2a-5cb1a1f3c4aa"),
    "sparkpost": (sparkpost, "65832150921904138"),
    "unisender_go": (unisender_go, "1ZymBc-00041N-9X"),
}
EVENTS = {
    ("amazon_ses", "delivered", ""): _ses("Delivery", recipients=[TO], smtpResponse="250 ok"),
    ("amazon_ses", "bounced", "hard"): _ses_bounce("Permanent", "General", f"smtp; {NOBODY}"),
    ("amazon_ses", "bounced", "soft"): _ses_bounce("Transient", "MailboxFull", f"smtp; {FULL}"),
    ("amazon_ses", "bounced", ""): _ses_bounce("Permanent", "General", f"smtp; {SPAM}"),
    ("amazon_ses", "complained", ""): _ses("Complaint", complainedRecipients=[{"emailAddress": TO}]),
    ("amazon_ses", "opened", ""): _ses("Open", userAgent="Mozilla/5.0"),
    ("amazon_ses", "clicked", ""): _ses("Click", link=URL),
    ("amazon_ses", "rejected", ""): _ses("Reject", reason="Bad content"),
    ("brevo", "delivered", ""): _brevo("delivered"),
    ("brevo", "deferred", ""): _brevo("deferred", reason="451 4.7.1 greylisted"),
    ("brevo", "bounced", "hard"): _brevo("hard_bounce", reason="user does not exist"),
    ("brevo", "bounced", "soft"): _brevo("soft_bounce", reason="later"),
    ("brevo", "bounced", ""): _brevo("hard_bounce", reason="550 blocked by a policy"),
    ("brevo", "complained", ""): _brevo("spam"),
    ("brevo", "opened", ""): _brevo("unique_opened"),
    ("brevo", "clicked", ""): _brevo("click", link=URL),
    ("brevo", "unsubscribed", ""): _brevo("unsubscribe"),
    ("mailersend", "delivered", ""): _mailersend("delivered"),
    ("mailersend", "bounced", "hard"): _mailersend(
        "hard_bounced", object="recipient_bounce", reason="Mailbox does not exist"
    ),
    ("mailersend", "bounced", "soft"): _mailersend("soft_bounced", object="recipient_bounce", reason="Busy"),
    ("mailersend", "complained", ""): _mailersend("spam_complaint", object="spam_complaint"),
    ("mailersend", "opened", ""): _mailersend("opened", object="open"),
    ("mailersend", "clicked", ""): _mailersend("clicked", object="click", url=URL),
    ("mailersend", "unsubscribed", ""): _mailersend("unsubscribed", object="recipient_unsubscribe"),
    ("mailgun", "delivered", ""): _mailgun("delivered"),
    ("mailgun", "deferred", ""): _mailgun("failed", severity="temporary"),
    ("mailgun", "bounced", "hard"): _mailgun(
        "failed", severity="permanent", **{"delivery-status": {"message": NOBODY}}
    ),
    ("mailgun", "bounced", ""): _mailgun(
        "failed", severity="permanent", **{"delivery-status": {"message": SPAM}}
    ),
    ("mailgun", "complained", ""): _mailgun("complained"),
    ("mailgun", "opened", ""): _mailgun("opened"),
    ("mailgun", "clicked", ""): _mailgun("clicked", url=URL),
    ("mailgun", "unsubscribed", ""): _mailgun("unsubscribed"),
    ("mailjet", "delivered", ""): _mailjet("sent", smtp_reply="sent (250 2.0.0 OK)"),
    ("mailjet", "deferred", ""): _mailjet("bounce", error="greylisted", hard_bounce=False),
    ("mailjet", "bounced", "hard"): _mailjet(
        "bounce", error="user unknown", error_related_to="recipient", hard_bounce=True
    ),
    ("mailjet", "bounced", "soft"): _mailjet(
        "bounce", error="quota exceeded", error_related_to="recipient", hard_bounce=False
    ),
    ("mailjet", "bounced", ""): _mailjet(
        "bounce", error="policy issue", error_related_to="spam", hard_bounce=True
    ),
    ("mailjet", "complained", ""): _mailjet("spam", source="JMRPP"),
    ("mailjet", "opened", ""): _mailjet("open"),
    ("mailjet", "clicked", ""): _mailjet("click", url=URL),
    ("mailjet", "unsubscribed", ""): _mailjet("unsub"),
    ("mailtrap", "delivered", ""): _mailtrap("delivery"),
    ("mailtrap", "deferred", ""): _mailtrap("soft bounce", response="later"),
    ("mailtrap", "bounced", "hard"): _mailtrap("bounce", response="no mailbox"),
    ("mailtrap", "bounced", ""): _mailtrap("bounce", response=SPAM),
    ("mailtrap", "complained", ""): _mailtrap("spam"),
    ("mailtrap", "opened", ""): _mailtrap("open"),
    ("mailtrap", "clicked", ""): _mailtrap("click", url=URL),
    ("mailtrap", "unsubscribed", ""): _mailtrap("unsubscribe"),
    ("mandrill", "deferred", ""): _mandrill("deferral", diag="smtp;451 4.3.0 later"),
    ("mandrill", "bounced", "hard"): _mandrill("hard_bounce", diag="", bounce_description="bad_mailbox"),
    ("mandrill", "bounced", "soft"): _mandrill("soft_bounce", diag="smtp;later"),
    ("mandrill", "bounced", ""): _mandrill("hard_bounce", diag=f"smtp;{SPAM}"),
    ("mandrill", "complained", ""): _mandrill("spam"),
    ("mandrill", "opened", ""): _mandrill("open"),
    ("mandrill", "clicked", ""): _mandrill("click", URL),
    ("mandrill", "unsubscribed", ""): _mandrill("unsub"),
    ("mandrill", "rejected", ""): _mandrill("reject"),
    ("postmark", "delivered", ""): _postmark("Delivery"),
    ("postmark", "deferred", ""): _postmark("Bounce", Type="Transient", ID=1),
    ("postmark", "bounced", "hard"): _postmark("Bounce", Type="HardBounce", ID=2, Details="gone"),
    ("postmark", "bounced", "soft"): _postmark("Bounce", Type="SoftBounce", ID=3, Details="later"),
    ("postmark", "bounced", ""): _postmark("Bounce", Type="VirusNotification", ID=4),
    ("postmark", "complained", ""): _postmark("SpamComplaint", Type="SpamComplaint", ID=5),
    ("postmark", "opened", ""): _postmark("Open"),
    ("postmark", "clicked", ""): _postmark("Click", OriginalLink=URL),
    ("postmark", "unsubscribed", ""): _postmark("SubscriptionChange", SuppressionReason="ManualSuppression"),
    ("postmark", "rejected", "hard"): _postmark("Bounce", Type="BadEmailAddress", ID=6),
    ("resend", "delivered", ""): _resend("delivered"),
    ("resend", "deferred", ""): _resend("delivery_delayed"),
    ("resend", "bounced", "hard"): _resend(
        "bounced", bounce={"type": "Permanent", "subType": "General", "message": "a hard bounce message"}
    ),
    ("resend", "bounced", "soft"): _resend(
        "bounced", bounce={"type": "Transient", "subType": "MailboxFull", "message": "a bounce message"}
    ),
    ("resend", "complained", ""): _resend("complained"),
    ("resend", "opened", ""): _resend("opened"),
    ("resend", "clicked", ""): _resend("clicked", click={"link": URL, "userAgent": "Mozilla/5.0"}),
    ("sendgrid", "delivered", ""): _sendgrid("delivered", response="250 OK"),
    ("sendgrid", "deferred", ""): _sendgrid("deferred", response="400 try again later"),
    ("sendgrid", "bounced", "hard"): _sendgrid("bounce", type="bounce", reason=NOBODY),
    ("sendgrid", "bounced", ""): _sendgrid("bounce", type="blocked", reason="go away"),
    ("sendgrid", "complained", ""): _sendgrid("spamreport"),
    ("sendgrid", "opened", ""): _sendgrid("open"),
    ("sendgrid", "clicked", ""): _sendgrid("click", url=URL),
    ("sendgrid", "unsubscribed", ""): _sendgrid("unsubscribe"),
    ("sendgrid", "rejected", "hard"): _sendgrid("dropped", reason="Bounced Address"),
    ("sparkpost", "delivered", ""): _sparkpost("delivery"),
    ("sparkpost", "deferred", ""): _sparkpost("delay", raw_reason="451 later"),
    ("sparkpost", "bounced", "hard"): _sparkpost("bounce", bounce_class="10", raw_reason="no such"),
    ("sparkpost", "bounced", "soft"): _sparkpost("bounce", bounce_class="22", raw_reason="full"),
    ("sparkpost", "bounced", ""): _sparkpost("bounce", bounce_class="51", raw_reason="no"),
    ("sparkpost", "complained", ""): _sparkpost("spam_complaint"),
    ("sparkpost", "opened", ""): _sparkpost("open"),
    ("sparkpost", "clicked", ""): _sparkpost("click", target_link_url=URL),
    ("sparkpost", "unsubscribed", ""): _sparkpost("list_unsubscribe"),
    ("unisender_go", "delivered", ""): _unisender("delivered"),
    ("unisender_go", "deferred", ""): _unisender("soft_bounced", delivery_status="err_will_retry"),
    ("unisender_go", "bounced", "hard"): _unisender("hard_bounced", delivery_status="err_user_unknown"),
    ("unisender_go", "bounced", "soft"): _unisender("hard_bounced", delivery_status="err_mailbox_full"),
    ("unisender_go", "bounced", ""): _unisender("hard_bounced", delivery_status="err_spam_rejected"),
    ("unisender_go", "complained", ""): _unisender("spam"),
    ("unisender_go", "opened", ""): _unisender("opened"),
    ("unisender_go", "clicked", ""): _unisender("clicked", URL),
    ("unisender_go", "unsubscribed", ""): _unisender("unsubscribed"),
}
