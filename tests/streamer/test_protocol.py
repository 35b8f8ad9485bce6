from __future__ import annotations

import json

import pytest

from streamer import protocol
from streamer.errors import ProtocolError
from streamer.faults import STATUS
from streamer.protocol import (
    PROMPTS,
    ErrorMessage,
    Interrupted,
    MessageError,
    Pong,
    SayRequest,
    SessionRequest,
    dump,
    parse_message,
    parse_request,
)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "say", "text": "hello"},
        {"type": "say", "text": "hello", "id": "a.b:c-1_2"},
        {"type": "interrupt"},
        {"type": "set_prompt", "prompt": ""},
        {"type": "set_prompt", "emotion": "thoughtful", "gestures": 2},
        {"type": "set_avatar", "avatar": "maya"},
        {"type": "microphone", "enabled": False},
        {"type": "input_audio.start"},
        {"type": "input_audio.start", "sample_rate": 48000, "id": "x"},
        {"type": "input_audio.append", "audio": "AAAAAA=="},
        {"type": "input_audio.commit"},
        {"type": "input_audio.clear"},
        {"type": "ping"},
        {"type": "ping", "id": 1.5},
    ],
)
def test_messages_of_the_protocol_are_understood(fields: dict) -> None:
    message = parse_message(json.dumps(fields))
    for name, value in fields.items():
        assert getattr(message, name) == value


def test_messages_cannot_be_changed() -> None:
    message = parse_message('{"type":"say","text":"hello"}')
    with pytest.raises(ValueError):
        message.text = "other"  # type: ignore[union-attr, misc]


def test_sentences_name_the_field_and_never_repeat_much_of_what_came() -> None:
    for raw, words in (
        ('{"type":"say"}', "needs `text`"),
        ('{"type":"say","text":"a","speed":2}', 'has no field "speed"'),
        ('{"type":"set_prompt","gestures":3}', "`gestures` should be less than or equal to 2"),
        (json.dumps({"type": "x" * 10_000}), "no message of type"),
        (json.dumps({"type": "say", "text": "a", "y" * 10_000: 1}), "has no field"),
        ('{"type":"say","text":"a","id":"a b"}', "1 to 64 letters"),
    ):
        with pytest.raises(ProtocolError) as failure:
            parse_message(raw)
        assert words in str(failure.value) and len(str(failure.value)) < 200


def test_errors_say_what_they_answer_where_that_is_known() -> None:
    with pytest.raises(MessageError) as failure:
        parse_message('{"type":"say"}')
    assert failure.value.in_reply_to == "say"


def test_bodies_may_be_empty_but_not_wrong() -> None:
    assert parse_request(SessionRequest, b"", "A session").mode == "conversation"
    assert parse_request(SessionRequest, b'{"seed":5,"barge_in":true}', "A session").seed == 5
    for body in (b"[]", b"{", b'{"seed":-1}', b'{"seed":1.5}', b'{"mode":"x"}', b'{"avatar":1}', b"\xff", b'{"a":1}'):
        with pytest.raises(ProtocolError):
            parse_request(SessionRequest, body, "A session")
    with pytest.raises(ProtocolError):
        parse_request(SayRequest, b"{}", "`say`")


def test_written_messages_are_ascii_and_keep_what_is_null() -> None:
    assert json.loads(dump(Interrupted(utterance=None, played_ms=None))) == {
        "type": "interrupted",
        "utterance": None,
        "played_ms": None,
    }
    assert "in_reply_to" not in json.loads(dump(ErrorMessage(code="busy", message="x")))
    assert dump(Pong(id="é", media_ms=1)).isascii()


def test_every_code_of_the_documentation_has_a_status() -> None:
    for code in (
        "bad_json",
        "bad_message",
        "bad_sdp",
        "bad_audio",
        "bad_text",
        "too_large",
        "unsupported_media",
        "unknown_avatar",
        "unknown_session",
        "unknown_connection",
        "unknown_type",
        "out_of_order",
        "busy",
        "engine_lost",
        "internal",
        "no_voice",
        "unauthorized",
        "forbidden",
        "not_acceptable",
    ):
        assert 400 <= STATUS[code] < 600


def test_emotions_have_the_words_the_models_were_trained_on() -> None:
    emotions = pytest.importorskip("training.synthetic.emotions")
    assert PROMPTS.keys() == emotions.EMOTIONS.keys() == set(protocol.Emotion.__args__)
    for name, text in PROMPTS.items():
        assert text in emotions.EMOTIONS[name].prompts
