"""What a refusal says about the address."""

import pytest

from celery_mailer.log.bounces import classify, enhanced_code_in, reply_code_in

CALLED_BACK = (
    "550-Verification failed for <bounce@shop.example> 550-Called: 192.0.2.1 550-Sent: RCPT"
    " TO:<bounce@shop.example> 550-Response: 550 5.1.1 <bounce@shop.example>: User unknown 550 Sender verify"
    " failed"
)
AT_A_RATE = (
    "550-5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional"
    " messages from being delivered."
)
REFUSALS = [
    # Postfix
    (
        550,
        "5.1.1",
        "<a@b.example>: Recipient address rejected: User unknown in virtual mailbox table",
        "hard",
    ),
    (450, "4.2.0", "Recipient address rejected: Greylisted, see http://postgrey.example", "soft"),
    (554, "5.7.1", "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", ""),
    (None, "5.4.4", "Host or domain name not found. Name service error for name=b.invalid type=AAAA", "hard"),
    (None, "4.4.1", "connect to b.example[192.0.2.9]:25: Connection timed out", "soft"),
    (552, "5.2.2", "Mailbox size limit exceeded", "soft"),
    (552, "5.3.4", "Message size exceeds fixed limit", ""),
    (None, "5.4.6", "mail for b.example loops back to myself", "soft"),
    (450, "4.1.8", "Sender address rejected: Domain not found", ""),
    # Exim
    (None, "", "Unrouteable address", "hard"),
    (550, "", "550 relay not permitted", ""),
    (None, "5.0.0", "all relevant MX records point to non-existent hosts: no such domain", "hard"),
    (550, "5.5.0", "550 Sender verify failed", ""),
    # Exchange
    (550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "hard"),
    (550, "5.4.1", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "hard"),
    (550, "5.4.1", "No answer from host", "soft"),
    (550, "5.4.310", "DNS domain b.invalid does not exist", "hard"),
    (550, "5.7.133", "RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", ""),
    (None, "5.2.3", "RESOLVER.RST.RecipSizeLimit; message too large for this recipient", ""),
    # Gmail
    (550, "5.1.1", "The email account that you tried to reach does not exist. NoSuchUser", "hard"),
    (550, "5.2.1", "The email account that you tried to reach is inactive. DisabledUser", "hard"),
    (452, "4.2.2", "The recipient's inbox is out of storage space. OverQuotaTemp", "soft"),
    (552, "5.2.2", "The recipient's inbox is out of storage space. OverQuotaPerm", "soft"),
    (550, "5.7.26", "This mail has been blocked because the sender is unauthenticated (DMARC)", ""),
    (421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail", ""),
    # Yahoo
    (554, "", "554 delivery error: dd This user doesn't have a yahoo.com account (a@yahoo.com)", "hard"),
    (554, "", "554 Message not allowed - [PH01] Email not accepted for policy reasons", ""),
    (421, "", "421 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints", "soft"),
    (552, "", "552 1 Requested mail action aborted, mailbox not found", "hard"),
    # Others
    (550, "", "550 No such user here", "hard"),
    (550, "", "550 Requested action not taken: mailbox unavailable", "hard"),
    (550, "5.5.0", "Requested action not taken: mailbox unavailable (S2017062302)", "hard"),
    (550, "", "Sorry, no mailbox here by that name. (#5.1.1)", "hard"),
    (553, "", "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", ""),
    (552, "", "552 Message size exceeds maximum permitted", ""),
    (552, "", "552 mailbox is full", "soft"),
    (550, "", "550 Mailbox quota exceeded", "soft"),
    (550, "", "550 go away", "soft"),
    (None, "", "", "soft"),
    (550, "5.1.8", "Access denied, bad outbound sender", ""),
    (554, "5.6.0", "Data format error", ""),
    (550, "5.1.0", "Address rejected", "soft"),
    (550, "5.1.0", "Invalid recipient", "hard"),
    # About us, whatever it says that there is none of
    (550, "", CALLED_BACK, ""),
    (550, "", "Sender domain does not exist", ""),
    (550, "", "Domain of sender address shop@x.example does not exist", ""),
    (550, "", "Invalid sender address, domain not found", ""),
    (553, "", "sorry, your envelope sender domain must exist", ""),
    (550, "", "Client host rejected: cannot find your hostname: domain not found", ""),
    (550, "", "HELO name not found: host or domain name not found", ""),
    # For now
    (550, "", AT_A_RATE, "soft"),
    (550, "", "5.2.1 Mailbox temporarily disabled", "soft"),
    (550, "", "Recipient address temporarily unavailable", "soft"),
    (550, "5.2.1", "The mailbox does not take mail", "soft"),
    (550, "5.2.1", "Mailbox disabled, not accepting messages", "hard"),
    (554, "5.7.1", "Temporarily rejected", ""),
    # A code that the words contradict
    (550, "", "5.1.1 Message blocked by content filter: spam", ""),
    (550, "5.1.1", "<a@b.example>: Recipient address rejected: Greylisted", ""),
    (
        550,
        "5.1.1",
        "<spam@b.example>: User unknown, says antispam.b.example or spam-filter.b.example",
        "hard",
    ),
]


@pytest.mark.parametrize(("code", "enhanced_code", "text", "bounce"), REFUSALS, ids=range(len(REFUSALS)))
def test_what_a_refusal_says_about_the_address(code, enhanced_code, text, bounce):
    assert classify(code, enhanced_code, text) == bounce


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("550 5.1.1 x", "5.1.1"),
        ("(#5.1.1)", "5.1.1"),
        ("192.5.1.1", ""),
        ("5.1.1.2", ""),
        ("", ""),
    ],
)
def test_an_enhanced_code_is_told_from_an_address_of_the_internet(text, code):
    assert enhanced_code_in(text) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("550 no", 550),
        ("550-5.1.1 no", 550),
        ("said: 451 later", 451),
        ("192.0.2.550 x", None),
        ("5.1.1", None),
    ],
)
def test_a_reply_code_is_told_from_other_numbers(text, code):
    assert reply_code_in(text) == code
