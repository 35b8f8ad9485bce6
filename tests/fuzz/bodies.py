"""Broken JSON for every request and message: right fields with wrong values, and text that is hardly JSON."""

from __future__ import annotations

import json
import random
from typing import Any

# Paths below a session, and every field that a body or a message may have.
BODIES = {"": ("avatar", "prompt", "mode", "seed", "barge_in"), "/say": ("text", "id"), "/interrupt": ()}
MESSAGES: dict[str, dict[str, Any]] = {
    "say": {"text": "Hi.", "id": "a"},
    "interrupt": {},
    "set_prompt": {"prompt": "calm", "emotion": "happy", "gestures": 1.0},
    "set_avatar": {"avatar": "maya"},
    "microphone": {"enabled": True},
    "input_audio.start": {"sample_rate": 16000, "id": "b"},
    "input_audio.append": {"audio": "AAAAAAAA"},
    "input_audio.commit": {},
    "input_audio.clear": {},
    "ping": {"id": 1},
}
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1.5,
        10**40,
        1e308,
        "",
        " ",
        "x",
        "w.w." * 1250,
        "9" * 240,
        "…",
        "💬",
        "\ud800",
        "\u0000",
        "a" * 5001,
    ),
    *(
        [],
        [[]],
        {},
        {"a": {"b": []}},
        "../../etc/passwd",
        "<script>",
        "maya",
        "happy",
        "conversation",
        "=" * 99,
        "A" * 4097,
    ),
)


def message(chance: random.Random) -> str | bytes:
    """A message of the WebSocket or the data channel."""
    if chance.random() < 0.1:
        return chance.randbytes(chance.choice((0, 1, 2, 3, 640, 65_537)))
    kind = chance.choice(list(MESSAGES))
    return _text({"type": kind, **MESSAGES[kind]}, chance)


def body(chance: random.Random) -> tuple[str, str]:
    """A path below `/v1/sessions` or a session, and a JSON body for it."""
    path = chance.choice(list(BODIES))
    right = {"avatar": "maya", "text": "Hi.", "id": "c", "mode": "conversation", "seed": 1, "prompt": "calm"}
    fields = {name: right.get(name, False) for name in BODIES[path] if chance.random() < 0.7}
    return path, str(_text(fields, chance))


def _text(fields: dict[str, Any], chance: random.Random) -> str:
    for _ in range(chance.randint(0, 3)):
        name = chance.choice([*fields, "type", "extra", "__proto__"])
        if chance.random() < 0.3:
            fields.pop(name, None)
        else:
            fields[name] = chance.choice(ODD)
    text = json.dumps(fields, ensure_ascii=chance.random() < 0.9)
    ways = [
        lambda: text,
        lambda: text,
        lambda: text[: chance.randrange(len(text) + 1)],
        lambda: text.replace('"', chance.choice(("'", "", '"""')), chance.randint(1, 4)),
        lambda: text[:-1] + "," + text[1:],  # every name twice
        lambda: "[" * chance.choice((1, 30_000)) + text,
        lambda: text.replace("1", chance.choice(("NaN", "Infinity", "1e999", "01", "9" * 5000))),
        lambda: "\ufeff" + text,
        lambda: text.replace("a", chance.choice(("\\ud800", "\\u0000", "\x00", "\x1f"))),
    ]
    return str(chance.choice(ways)())
