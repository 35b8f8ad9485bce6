from __future__ import annotations

from tests.streamer.session.fakes import Stage, run


def test_counters_grow_by_what_a_session_has_lost_since() -> None:
    async def scene() -> None:
        async with Stage() as stage, Stage() as other:
            other.session.figures.metrics = stage.metrics
            stage.stream.error = None
            for held in (3, 3, 10):
                stage.playout.stats.frames_held = held
                stage.session.figures.read()
            other.playout.stats.frames_held = 5
            other.session.figures.read()
            assert "avatar_held_frames_total 15.0" in stage.metrics.text().decode()

    run(scene)
