from __future__ import annotations

import asyncio

from streamer.media.watchdog import Watchdog
from tests.streamer.media.simulated import SimulatedTime, settle


def watched(scenario) -> None:
    async def main() -> None:
        time = SimulatedTime()
        dog = Watchdog(20.0, 4.0, now=time, sleep=time.sleep)
        waiting = asyncio.ensure_future(dog.wait())
        await settle()
        try:
            await scenario(time, dog, waiting)
        finally:
            waiting.cancel()

    asyncio.run(main())


def test_bites_after_20_s_without_a_connection() -> None:
    async def scenario(time: SimulatedTime, dog: Watchdog, waiting: asyncio.Task) -> None:
        await time.advance(5.0)
        dog.sign()  # somebody knocks, but does not come in
        await time.advance(14.9)
        assert not waiting.done()
        await time.advance(0.2)
        assert waiting.done()

    watched(scenario)


def test_signs_every_three_seconds_are_enough() -> None:
    async def scenario(time: SimulatedTime, dog: Watchdog, waiting: asyncio.Task) -> None:
        dog.connected()
        for _ in range(100):
            await time.advance(3.0)
            dog.sign()
        assert not waiting.done()

    watched(scenario)


def test_bites_4_s_after_the_last_sign() -> None:
    async def scenario(time: SimulatedTime, dog: Watchdog, waiting: asyncio.Task) -> None:
        await time.advance(16.0)
        dog.connected()
        await time.advance(2.5)
        dog.sign()
        await time.advance(3.9)
        assert not waiting.done() and dog.silent_s is not None and 3.89 < dog.silent_s < 3.91
        await time.advance(0.2)
        assert waiting.done()

    watched(scenario)


def test_silence_right_after_connecting_is_noticed_within_4_s() -> None:
    async def scenario(time: SimulatedTime, dog: Watchdog, waiting: asyncio.Task) -> None:
        dog.connected()
        await time.advance(4.1)
        assert waiting.done()

    watched(scenario)
