"""Portraits, prompt to mood: the prompt encoder and the planner's mood layer, from written prompts alone.

    python -m training.train_moods training/configs/moods.yaml weights=FOLDER out=RUN

`weights` holds the planner that `train_planner` made; it gets its moods, and the prompt encoder beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoints import load_component
from models.conditions import TextEncoder
from models.configs import ExpressionPlannerConfig, TextEncoderConfig
from models.portrait.planner import MOODS, ExpressionPlanner
from models.portrait.weights import read_portrait_config, save_portrait_component
from training.config import parse_run
from training.loop import Figures, LoopConfig, TrainingRun
from training.synthetic.sentences import sentences

WORDS: dict[str, str] = {
    "happy": "happy|smiling|cheerful|joyful|glad|delighted|pleased|amused|laughing|enthusiastic|excited|merry|"
    "in a good mood|with a smile|full of joy|smile|warm smile|grinning|happily|beaming|radiant",
    "sad": "sad|unhappy|downcast|gloomy|sorrowful|upset|depressed|crying|melancholic|grieving|heartbroken|tearful|"
    "mournful|disappointed|with a sad face|sadly|in tears|miserable|regretful",
    "surprised": "surprised|astonished|amazed|shocked|eyes wide|startled|stunned|in awe|with raised brows|surprise|"
    "wide eyed|taken aback|disbelieving|speechless",
    "angry": "angry|furious|annoyed|mad|frowning|irritated|cross|stern|outraged|grumpy|hostile|angrily|in a rage|"
    "bad tempered|frown|indignant|fuming",
    "thoughtful": "thoughtful|pondering|pensive|thinking|contemplative|considering|reflective|sceptical|curious|"
    "doubtful|wondering|deep in thought|unsure|thoughtfully|musing|puzzled",
    "neutral": "neutral|calm|relaxed|serious|composed|professional|friendly|natural|at ease|plain|balanced|even|"
    "quiet|listening|polite|attentive|formal|informative",
}
_DEGREES = {
    "slightly ": 0.4, "a bit ": 0.4, "a little ": 0.4, "somewhat ": 0.5, "": 0.8, "very ": 1.0, "extremely ": 1.0,
}  # fmt: skip
_FRAMES = (
    "{}|a {} presenter|{} presenter|a {} woman|a {} man|{} person talking|speaks in a {} way|looks {}|{} expression|"
    "{} face|feeling {}|the presenter is {}|someone who is {}|{} mood|{} tone|sounds {}|a person, {}|"
    "a news anchor, {}|{}, studio light|portrait of a {} person|please look {}|teacher, {}|be {}"
).split("|")


@dataclass(frozen=True)
class MoodRun:
    weights: Path
    out: Path
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    batch: int = 128
    loop: LoopConfig = field(default_factory=LoopConfig)


class MoodReader(nn.Module):
    """Prompt encoder and mood layer."""

    def __init__(self, config: TextEncoderConfig, planner: ExpressionPlanner) -> None:
        super().__init__()
        self.text, self.mood = TextEncoder(config), planner.mood

    def forward(self, prompts: list[str]) -> Tensor:
        """Prompts → log odds [B, 5] of `MOODS`."""
        return self.mood(self.text(self.text.tokenize(prompts)).flatten(1))


def draw_prompt(rng: np.random.Generator, chatter: list[str]) -> tuple[str, np.ndarray]:
    """A prompt and the strengths [5] that it asks for."""
    wanted = np.zeros(len(MOODS), np.float32)
    kind = rng.random()
    if kind < 0.03:
        return "", wanted
    if kind < 0.15:  # words that name no mood
        words = chatter[rng.integers(len(chatter))].split()
        return " ".join(words[int(rng.integers(3)) :][: int(rng.integers(1, 9))]), wanted
    mood = list(WORDS)[rng.integers(len(WORDS))]
    degree = list(_DEGREES)[rng.integers(len(_DEGREES))]
    words = WORDS[mood].split("|")
    phrase = degree + words[rng.integers(len(words))]
    if rng.random() < 0.2:
        phrase += (", ", " and ")[rng.integers(2)] + words[rng.integers(len(words))]
    prompt = _FRAMES[rng.integers(len(_FRAMES))].format(phrase)
    if mood != "neutral":
        wanted[MOODS.index(mood)] = _DEGREES[degree]
    if rng.random() < 0.2:
        prompt += "."
    return prompt, wanted


def main() -> None:
    run = parse_run(MoodRun, "Train the prompt encoder and the moods of the expression planner.")
    torch.manual_seed(run.loop.seed)
    rng = np.random.default_rng(run.loop.seed)
    config = read_portrait_config(run.weights, "planner", ExpressionPlannerConfig)
    planner = ExpressionPlanner(config)
    load_component(run.weights, "planner", planner)
    reader = MoodReader(run.text, planner)
    chatter = sentences(400)
    training = TrainingRun(run.out, reader, run.loop)

    def loss_of_step() -> tuple[Tensor, Figures]:
        prompts, wanted = zip(*(draw_prompt(rng, chatter) for _ in range(run.batch)), strict=True)
        found = reader(list(prompts))
        return F.binary_cross_entropy_with_logits(found, torch.from_numpy(np.stack(wanted))), {}

    def report(ema: MoodReader) -> dict[str, float]:
        """Mean error of strengths on prompts that come in no frame of training."""
        asked = [(f"{word}!!", mood) for mood, words in WORDS.items() for word in words.split("|")]
        found = torch.sigmoid(ema([prompt for prompt, _ in asked])).numpy()
        wanted = np.array([[0.8 * (mood == name) for name in MOODS] for _, mood in asked])
        named = [MOODS[row.argmax()] if row.max() > 0.4 else "neutral" for row in found]
        right = np.mean([name == mood for name, (_, mood) in zip(named, asked, strict=True)])
        return {"strength_error": float(np.abs(found - wanted).mean()), "right": float(right)}

    training.train(loss_of_step, report)
    planner.mood.load_state_dict(training.ema.mood.state_dict())
    save_portrait_component(run.weights, "text", training.ema.text, run.text)
    save_portrait_component(run.weights, "planner", planner, config)


if __name__ == "__main__":
    main()
