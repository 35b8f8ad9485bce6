import os

import pytest

from streamer.engine.shared_frames import SLOTS, Ring, RingShape

SHAPE = RingShape(latents=2, frame_size=(32, 48))


def test_slots_and_their_parts_do_not_touch_each_other() -> None:
    ring = Ring(SHAPE)
    for slot in range(SLOTS):
        ring.sound(slot, 2)[:] = slot + 0.5
        ring.frames(slot, 8)[:] = slot + 10
    for slot in range(SLOTS):
        assert (ring.sound(slot, 2) == slot + 0.5).all() and ring.sound(slot, 2).shape == (5120,)
        assert (ring.frames(slot, 8) == slot + 10).all() and ring.frames(slot, 8).shape == (8, 48, 48)
    ring.forget_descriptor()


def test_other_end_sees_the_same_memory_and_keeps_it_when_the_first_is_gone() -> None:
    ring = Ring(SHAPE)
    other = Ring(SHAPE, os.dup(ring.descriptor))
    ring.frames(1, 3)[:] = 7
    view = other.frames(1, 3)
    ring.forget_descriptor()
    del ring, other
    assert (view == 7).all()


def test_descriptor_is_gone_once_forgotten() -> None:
    ring = Ring(SHAPE)
    descriptor = ring.descriptor
    ring.forget_descriptor()
    ring.forget_descriptor()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    with pytest.raises(ValueError, match="closed"):
        _ = ring.descriptor
