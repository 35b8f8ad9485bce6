"""English sentences for the synthetic voices: written ones that cover the phones, templates for volume."""

from __future__ import annotations

import numpy as np

WRITTEN = """
Hello, and welcome to the show.
My name is Maya, and I will be your guide today.
Peter brought me a map, but my baby bought five purple apples.
Please put the paper bag back by the big blue pump.
Mum may move more money on Monday morning.
We were away a year ago.
The quick brown fox jumps over the lazy dog.
Pack my box with five dozen liquor jugs.
She sells sea shells by the sea shore.
Should we measure the joy of a thirsty young horse?
A vision of treasure gave the usual pleasure to the beige garage.
Thank you for watching, and see you next time.
Oh, I am so happy to see you!
Why would you want to go out now?
How now, brown cow?
The boy enjoys the noise of his new toy.
Few people knew the view from the blue pool.
Good books look good on a wooden shelf.
The bird heard the first word of the nurse.
Father parked the car far from the barn.
All the tall walls fall in autumn.
Ten men sent seven letters to the west.
Six thin fish swim in this little dish.
He feels the need to eat three sweet peas.
The fat cat sat on a black mat and ran.
Just once, the young cousin loved the muddy summer.
Show me the road home before it snows.
They may stay and play all day in the rain.
Five wives tried to climb a high white pine.
The crowd found a brown house in the south.
Choose a cheap chair from the kitchen, Charles.
George joined a large jury in January.
This is the other brother, not their mother.
Thirty three thieves thought the thing was worth nothing.
The singer is bringing a long strong string.
Very few of those leaves ever fell off five of the vines.
We wish you a warm welcome in the west wing.
Yes, the yellow yacht is yours.
Red roses rarely grow around rivers.
Lily likes a little yellow lemon with her lunch.
Zoe closed the zoo because of the buzzing bees.
Keep the cookies cool and quick.
Get a good grip on the green gate.
Who has the heavy hat of Harry?
Sure, the fresh fish is on the shelf in the shop.
Do you need a hand with that?
Take a deep breath, and begin again.
In other news, the museum opens its doors at nine.
Let me show you how it works, step by step.
First, open the box. Second, remove the cover. Third, press the button.
One, two, three, four, five.
Six, seven, eight, nine, ten.
Eleven, twelve, thirteen, fourteen, fifteen, and sixteen.
The answer is zero point seven, not nineteen.
Call me at half past eight, or a quarter to four.
That was a wonderful question, thank you very much.
I do not think so, but maybe you are right.
Stop! Do not move, please.
Well, that depends on what you mean by simple.
Imagine a world where every voice has a face.
Can you hear me? Can you see me? Good, then we can begin.
No problem at all. It was my pleasure.
My apologies, I did not catch that. Could you say it again?
What a beautiful morning it is.
I am afraid that the shop is already closed.
Is everybody ready? Then let us go.
Mix the butter, the sugar and the flour, and beat it by hand.
Bake it for fifty five minutes, and let it cool before you serve it.
The temperature outside is below freezing, so wear a warm jumper.
Tomorrow will be mostly cloudy, with a bit of rain by the evening.
On the map you can see a wall of clouds moving up from the south.
The old bridge was built by monks, about five hundred years ago.
Our planet moves around the sun at an amazing speed.
Bees make honey, and bears are fond of it.
A poem should be palpable and mute, as a globed fruit.
Time flies like an arrow; fruit flies like a banana.
Both of them smoothed the cloth with their thumbs.
You must be joking! Nobody jumps that far.
Every pupil was given a pen, a pencil and a piece of paper.
It rained all night, and the river rose above the road.
Maybe the problem is the cable, maybe it is the plug.
Be brave, be bold, be yourself.
My favourite film is about a robot and a piano player.
Pop music makes me jump up and down.
The mayor promised more buses for the poor part of the town.
A small bump is visible above the left thumb.
Remember to mention the name of the company.
Bob and Pam have bought a pair of brown boots.
Somebody left an umbrella on the bus.
I beg your pardon, I believe that is my place.
The moon was bright, and we walked home without a lamp.
Wow! How did you do that?
Hmm, let me think about it for a moment.
You can change the language at any time.
Your payment was received, and the package is on its way.
Speak slowly and clearly after the tone.
The meeting is moved from Tuesday to Thursday.
I would love to, but I have to work this weekend.
We have plenty of time, so there is no need to rush.
Doctors advise us to walk for an hour a day.
The judge asked the witness to describe the vehicle.
Children under twelve travel free of charge.
Fresh vegetables are cheaper at the market.
The zebra and the giraffe share the shade of a tree.
Such an unusual decision requires courage.
""".strip().splitlines()

# Word banks of the templates.
_WHO = """
my mother | the baker | Bob | our neighbour | a young woman | the whole team | Father Brown |
the pilot | everybody | Pam
"""
_DID = """
bought | painted | found | moved | opened | forgot | washed | showed me | put away | measured |
broke | picked up | talked about | borrowed
"""
_WHAT = """
a big blue umbrella | five boxes of apples | the old piano | a pair of brown boots |
the wrong map | some purple paper | a very small boat | the heavy wooden table |
thirty yellow balloons | an empty bottle | the garage key | a jar of honey | both cups |
three huge cheeses | the television | a beautiful vase
"""
_WHEN = """
on Monday morning | before breakfast | last summer | by mistake | in the middle of the night |
for my birthday | without a word | about an hour ago | near the harbour | after the match
"""
_TOPIC = """
the weather | a brand new phone | the price of bread | public transport | our next project |
healthy food | the history of cinema | climbing mountains | a famous painter | football |
modern music | the job market
"""
_OPENER = """
Today we will talk about | Let me tell you something about | Most people know very little about |
Would you like to hear more about | Here are five facts about | I have been thinking about
"""
_PLACE = """
Paris | the museum | Boston | the beach | Mumbai | the public library | York | the airport |
Geneva | the village pub | Washington | the football stadium
"""
_HOW = """
by bus | on foot | by train | with a bike | in my brother's van | by boat | with five friends
"""
_NUMBER = """
two | three | five | seven | eleven | fourteen | twenty one | forty five | eighty | ninety six |
one hundred | a million
"""


def _templates(rng: np.random.Generator) -> str:
    def one(bank: str) -> str:
        words = [word.strip() for word in bank.split("|")]
        return words[rng.integers(len(words))]

    kind = rng.integers(6)
    if kind == 0:
        text = f"{one(_WHO)} {one(_DID)} {one(_WHAT)} {one(_WHEN)}."
    elif kind == 1:
        text = f"{one(_OPENER)} {one(_TOPIC)}, and {one(_TOPIC)}."
    elif kind == 2:
        text = f"did {one(_WHO)} really go to {one(_PLACE)} {one(_HOW)}, or was it {one(_PLACE)}?"
    elif kind == 3:
        text = f"it takes {one(_NUMBER)} minutes to get from {one(_PLACE)} to {one(_PLACE)} {one(_HOW)}."
    elif kind == 4:
        text = f"{one(_NUMBER)} people and {one(_NUMBER)} dogs saw {one(_WHAT)}, {one(_WHEN)}."
    else:
        text = f"please tell {one(_WHO)} about {one(_WHAT)}, not about {one(_TOPIC)}."
    return text[0].upper() + text[1:]


def sentences(count: int, seed: int = 0) -> list[str]:
    """The first `count` sentences: the written ones, then filled templates; no sentence twice.

    Raises:
        ValueError: if count is beyond the 2000 that are surely distinct.
    """
    if not 0 <= count <= 2000:
        raise ValueError(f"count must be within 0 … 2000, got {count}")
    rng = np.random.default_rng(seed)
    texts = dict.fromkeys(WRITTEN[:count])
    while len(texts) < count:
        texts[_templates(rng)] = None
    return list(texts)
