"""What an emotion is called in the prompts the models were trained on."""

from __future__ import annotations

from streamer.server.protocol import Emotion

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
