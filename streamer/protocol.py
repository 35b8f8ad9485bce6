"""The wire protocol of docs/protocol.md as models: what comes in is checked here, what goes out is written here.

Nothing that arrives can do more harm than a `ProtocolError`: parsing either gives a checked, immutable message or
one sentence for people.
"""

from __future__ import annotations

import base64
import binascii
import json
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from streamer.errors import ProtocolError

MAX_JSON_BYTES = 64 * 1024
MAX_SDP_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 256 * 1024
MAX_SOUND_FILE_BYTES = 64 * 1024 * 1024
MAX_TEXT_CHARACTERS = 5_000
MAX_PROMPT_CHARACTERS = 500
MAX_SEED = 2**31 - 1
MIN_RATE_HZ, MAX_RATE_HZ, DEFAULT_RATE_HZ = 8_000, 48_000, 16_000

Emotion = Literal["neutral", "happy", "sad", "surprised", "angry", "thoughtful"]
Mode = Literal["conversation", "broadcast"]
State = Literal["idle", "speaking", "interrupted"]
Source = Literal["microphone", "text", "file", "stream"]
StopReason = Literal["finished", "interrupted", "failed"]
ClosedReason = Literal["deleted", "server_stopping", "engine_lost", "idle", "time_limit", "internal"]


def _is_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a character") from error
    return text


Text = Annotated[str, AfterValidator(_is_utf8)]
Prompt = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_is_utf8)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
AvatarName = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_is_utf8)]


class MessageError(ProtocolError):
    """A message of a known type that cannot be used; `in_reply_to` is the type."""

    def __init__(self, message: str, code: str, in_reply_to: str):
        super().__init__(message, code)
        self.in_reply_to = in_reply_to


class _Model(BaseModel):
    # Built when first used: pydantic looks for its plugins on the disk then, which importing must not.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


# -- bodies of requests ------------------------------------------------------------------------------------


class SessionRequest(_Model):
    """Body of `POST /v1/sessions`."""

    avatar: AvatarName | None = None
    prompt: Prompt | None = None
    mode: Mode = "conversation"
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    barge_in: bool = False


class WhipRequest(_Model):
    """Query of `POST /v1/whip`.

    Attributes:
        session: the name the session gets or has; who names one chooses a name that is hard to guess.
    """

    avatar: AvatarName | None = None
    prompt: Prompt | None = None
    mode: Mode = "conversation"
    session: Identifier | None = None


class SayRequest(_Model):
    """Body of `POST …/say`."""

    text: Text
    id: Identifier | None = None


# -- messages to the server --------------------------------------------------------------------------------


class Say(SayRequest):
    """Speaks a text after what waits."""

    type: Literal["say"] = "say"


class Interrupt(_Model):
    """Stops what plays and clears what waits."""

    type: Literal["interrupt"] = "interrupt"


class SetPrompt(_Model):
    """Changes emotion, manner or energy from the next chunk on."""

    type: Literal["set_prompt"] = "set_prompt"
    prompt: Prompt | None = None
    emotion: Emotion | None = None
    gestures: Annotated[float, Field(ge=0.0, le=2.0)] | None = None


class SetAvatar(_Model):
    """Changes the presenter at the next moment without speech."""

    type: Literal["set_avatar"] = "set_avatar"
    avatar: AvatarName


class SetMicrophone(_Model):
    """Whether the caller's sound drives the presenter."""

    type: Literal["microphone"] = "microphone"
    enabled: bool


class AudioStart(_Model):
    """Begins an utterance of PCM."""

    type: Literal["input_audio.start"] = "input_audio.start"
    sample_rate: Annotated[int, Field(ge=MIN_RATE_HZ, le=MAX_RATE_HZ)] = DEFAULT_RATE_HZ
    id: Identifier | None = None


class AudioAppend(_Model):
    """Adds PCM to it."""

    type: Literal["input_audio.append"] = "input_audio.append"
    audio: str

    def pcm(self) -> bytes:
        """The sound, 16-bit little-endian.

        Raises:
            ProtocolError: if it is not base64 of whole samples.
        """
        try:
            sound = base64.b64decode(self.audio.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError, ValueError) as error:
            raise ProtocolError("The sound of `input_audio.append` is not base64.", "bad_audio") from error
        return check_pcm(sound)


class AudioCommit(_Model):
    """The utterance of PCM is complete."""

    type: Literal["input_audio.commit"] = "input_audio.commit"


class AudioClear(_Model):
    """Forgets what was appended and is not played."""

    type: Literal["input_audio.clear"] = "input_audio.clear"


class Ping(_Model):
    """Asks for `Pong`."""

    type: Literal["ping"] = "ping"
    id: Annotated[Text, StringConstraints(max_length=64)] | int | float | None = None


Inbound = (
    Say | Interrupt | SetPrompt | SetAvatar | SetMicrophone | AudioStart | AudioAppend | AudioCommit | AudioClear | Ping
)
INBOUND = frozenset(model.model_fields["type"].default for model in Inbound.__args__)


@cache
def _inbound() -> TypeAdapter[Inbound]:
    return TypeAdapter(Annotated[Inbound, Field(discriminator="type")])


def prepare() -> None:
    """Builds what the first message would otherwise have to wait for."""
    parse_message('{"type":"ping"}')
    for model in Outbound.__args__:
        model.model_rebuild()


def check_pcm(sound: bytes) -> bytes:
    """PCM of whole 16-bit samples, not empty.

    Raises:
        ProtocolError: otherwise.
    """
    if not sound:
        raise ProtocolError("There is no sound in this message.", "bad_audio")
    if len(sound) % 2:
        raise ProtocolError(f"16-bit sound has an even number of bytes, not {len(sound)}.", "bad_audio")
    return sound


def parse_message(raw: str | bytes) -> Inbound:
    """A checked message of a client.

    Raises:
        ProtocolError: with one sentence; a `MessageError` where the type is known.
    """
    size = len(raw) if isinstance(raw, bytes) else len(raw.encode("utf-8", "surrogatepass"))
    if size > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"A message has at most {MAX_MESSAGE_BYTES // 1024} KiB.", "too_large")
    fields = parse_json(raw, "The message")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise ProtocolError("The message has no `type`.", "bad_message")
    if kind not in INBOUND:
        raise ProtocolError(f"There is no message of type {_short(kind)}.", "unknown_type")
    try:
        return _inbound().validate_python(fields)
    except ValidationError as error:
        _complain(error, f"`{kind}`", kind)


RequestBody = TypeVar("RequestBody", SessionRequest, SayRequest, WhipRequest)


def parse_request(model: type[RequestBody], raw: bytes, what: str) -> RequestBody:
    """A checked JSON body; an empty one is an object without fields.

    Raises:
        ProtocolError: with one sentence.
    """
    return check_fields(model, parse_json(raw, "The body") if raw.strip() else {}, what)


def check_fields(model: type[RequestBody], fields: dict[str, Any], what: str) -> RequestBody:
    """Fields, checked.

    Raises:
        ProtocolError: with one sentence.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        _complain(error, what, None)


def parse_json(raw: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ProtocolError: for anything else, NaN, too deep nesting and bytes that are not UTF-8 among it.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        fields = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} is not JSON.", "bad_json") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"{what} is not a JSON object.", "bad_json")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _short(text: str) -> str:
    """A word of the client's, made safe and short enough to repeat."""
    shown = text if len(text) <= 40 else text[:40] + "…"
    return json.dumps(shown)


def _complain(error: ValidationError, what: str, kind: str | None) -> NoReturn:
    """The first thing that is wrong, as a sentence."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = [str(part) for part in found["loc"] if part != kind]
    field = place[0] if place else ""
    code = "bad_message"
    if found["type"] == "missing":
        sentence = f"{what} needs `{field}`."
    elif found["type"] == "extra_forbidden":
        sentence = f"{what} has no field {_short(field)}."
    elif found["type"] == "string_pattern_mismatch":
        sentence = f"In {what}, `{field}` has 1 to 64 letters, digits or . _ : - and nothing else."
    else:
        problem = found["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
        sentence = f"In {what}, `{field}` {problem[:1].lower()}{problem[1:]}."
        code = {"text": "bad_text", "audio": "bad_audio"}.get(field, code)
    if kind is not None:
        raise MessageError(sentence, code, kind) from error
    raise ProtocolError(sentence, code) from error


# -- messages from the server ------------------------------------------------------------------------------


class SessionInfo(_Model):
    """The session as HTTP and the `session` message show it."""

    id: str
    avatar: str
    prompt: str
    mode: Mode
    state: State
    prompt_bytes: int | None
    frame_size: tuple[int, int]
    fps: int
    viewers: int
    created_ms: int
    links: dict[str, str]


class SessionMessage(SessionInfo):
    """The session, on connecting and when anything but its state changes."""

    type: Literal["session"] = "session"


class StateMessage(_Model):
    """The session's state, when it changes."""

    type: Literal["state"] = "state"
    state: State
    media_ms: int


class Queued(_Model):
    """An utterance waits."""

    type: Literal["utterance.queued"] = "utterance.queued"
    utterance: str


class Started(_Model):
    """Its first sound plays."""

    type: Literal["speaking.started"] = "speaking.started"
    utterance: str
    source: Source
    media_ms: int


class Stopped(_Model):
    """Its last sound has been played, or it never will be."""

    type: Literal["speaking.stopped"] = "speaking.stopped"
    utterance: str
    played_ms: int
    reason: StopReason


class Interrupted(_Model):
    """What played was stopped."""

    type: Literal["interrupted"] = "interrupted"
    utterance: str | None
    played_ms: int | None


class MetricsMessage(_Model):
    """Figures, once a second."""

    type: Literal["metrics"] = "metrics"
    fps: float
    latency_ms: float | None
    av_offset_ms: float | None
    rung: int
    rung_name: str
    bitrate_kbps: float
    packets_lost: int
    rtt_ms: float | None
    late_chunks: int
    held_frames: int
    dropped_frames: int
    stages: dict[str, float]
    queue_ms: float | None


class Pong(_Model):
    """The answer to `Ping`."""

    type: Literal["pong"] = "pong"
    id: str | int | float | None
    media_ms: int


class ErrorMessage(_Model):
    """Something could not be done."""

    type: Literal["error"] = "error"
    code: str
    message: str
    in_reply_to: str | None = None


class Closed(_Model):
    """The session has ended; the last message."""

    type: Literal["closed"] = "closed"
    reason: ClosedReason


Outbound = (
    SessionMessage
    | StateMessage
    | Queued
    | Started
    | Stopped
    | Interrupted
    | MetricsMessage
    | Pong
    | ErrorMessage
    | Closed
)


def dump(message: Outbound) -> str:
    """A message as one line of JSON, ASCII only."""
    fields = message.model_dump(mode="json")
    if fields.get("in_reply_to", "") is None:
        del fields["in_reply_to"]
    return json.dumps(fields, allow_nan=False, separators=(",", ":"))


def error_body(code: str, message: str) -> dict[str, dict[str, str]]:
    """The JSON of a failed request."""
    return {"error": {"code": code, "message": message}}


PROMPTS: dict[Emotion, str] = {
    "neutral": "a friendly presenter, neutral",
    "happy": "happy, smiling",
    "sad": "sad, downcast",
    "surprised": "surprised, eyes wide",
    "angry": "angry, frowning",
    "thoughtful": "thoughtful, pondering",
}


def prompt_text(prompt: str | None, emotion: Emotion | None) -> str | None:
    """The models' prompt: the emotion first, for long prompts are cut at their end; None to leave it as it is."""
    if emotion is None:
        return prompt
    return f"{PROMPTS[emotion]}, {prompt}" if prompt else PROMPTS[emotion]
