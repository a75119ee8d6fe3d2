"""Our id goes along with what an ESP sends: its events name our email, whatever became of the answer."""

from uuid import UUID

import pytest

from celery_mailer.values import EMAIL_ID
from tests.test_anymail import BODIES, connect, hand_over, mail, serve  # noqa: F401

PK = UUID("0192f3a0-7c1e-7a52-9d3b-5f0b8c6d2e41")


def ours(**attributes):
    message = mail()
    vars(message).update(email_id=PK, **attributes)
    return message


def test_an_esp_that_tells_metadata_is_given_our_id(serve, connect):  # noqa: F811
    server = serve()
    hand_over(connect(server.url), ours())
    assert server.requests[0].form[f"v:{EMAIL_ID}"] == [str(PK)]


def test_the_callers_metadata_is_kept(serve, connect):  # noqa: F811
    server = serve()
    hand_over(connect(server.url), ours(metadata={"order": "17"}))
    form = server.requests[0].form
    assert (form["v:order"], form[f"v:{EMAIL_ID}"]) == (["17"], [str(PK)])


def test_a_message_that_is_no_email_of_ours_is_sent_as_it_is(serve, connect):  # noqa: F811
    server = serve()
    hand_over(connect(server.url), mail())
    assert f"v:{EMAIL_ID}" not in server.requests[0].form


# The fixture gives every ESP a key; this one wants a token instead.
@pytest.mark.filterwarnings("ignore:anymail.backends.mailersend.* does not support 'api_key'")
def test_an_esp_that_knows_no_metadata_is_given_none(serve, connect):  # noqa: F811
    server = serve((202, {}, {"X-Message-Id": "1"}))
    hand_over(connect(server.url, "mailersend", api_token="t"), ours())
    assert EMAIL_ID.encode() not in server.requests[0].body


@pytest.mark.parametrize("module", ["brevo", "sparkpost"])
def test_each_esp_gets_it_in_its_own_place(serve, connect, module):  # noqa: F811
    server = serve(BODIES[module])
    hand_over(connect(server.url, module), ours())
    assert str(PK).encode() in server.requests[0].body
