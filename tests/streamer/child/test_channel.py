import asyncio
import os
import socket

import pytest

from streamer.child.channel import ChildChannel, Failed, Kinds, Log, ParentChannel, packed, unpacked
from streamer.engine.ladder import Rung
from streamer.engine.messages import MESSAGES, Done, Rewind
from streamer.errors import ChildError, ChildLost

KINDS: Kinds = (Rewind,)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_messages_arrive_whole_in_order_and_with_their_descriptors() -> None:
    async def main() -> None:
        ours, theirs = pair()
        heard: list = []
        parent, child = (
            ParentChannel(ours, KINDS, lambda message, _: heard.append(message), lambda: None),
            ChildChannel(theirs, KINDS),
        )
        reading, writing = os.pipe()
        parent.send(Rewind(1, 2), [writing])
        parent.send(Rewind(3, 4))
        with pytest.raises(OSError):
            os.fstat(writing)  # it belongs to the channel
        message, (descriptor,) = child.receive(is_waiting=True)
        os.write(descriptor, b"x")
        os.close(descriptor)
        assert message == Rewind(1, 2) and os.read(reading, 1) == b"x"
        os.close(reading)
        assert child.receive(is_waiting=False) == (Rewind(3, 4), [])
        assert child.receive(is_waiting=False) is None
        child.send(Log(20, "a"))
        child.send(Log(20, "b"))
        await until(lambda: len(heard) == 2)
        assert [message.text for message in heard] == ["a", "b"]
        parent.close()
        theirs.close()

    asyncio.run(main())


def test_child_that_does_not_read_holds_nobody_up_and_gets_everything_later() -> None:
    async def main() -> None:
        ours, theirs = pair()
        parent, child = ParentChannel(ours, KINDS, lambda *_: None, lambda: None), ChildChannel(theirs, KINDS)
        with pytest.raises(ChildError, match="does not read"):
            for sent in range(100_000):  # noqa: B007
                parent.send(Rewind(0, sent))
        assert sent > 4000
        for expected in range(sent):
            async with asyncio.timeout(10):
                while (arrived := child.receive(is_waiting=False)) is None:
                    await asyncio.sleep(0)
            assert arrived[0].step == expected
        parent.close()
        theirs.close()

    asyncio.run(main())


@pytest.mark.parametrize("has_unread", [False, True])
def test_end_of_the_child_is_told_once(has_unread: bool) -> None:
    async def main() -> None:
        ours, theirs = pair()
        ends: list[int] = []
        parent = ParentChannel(ours, KINDS, lambda *_: None, lambda: ends.append(1))
        if has_unread:
            parent.send(Rewind(0, 0))
        theirs.close()
        await until(lambda: ends)
        with pytest.raises(ChildLost):
            parent.send(Rewind(1, 1))
        parent.close()
        assert ends == [1]

    asyncio.run(main())


def test_end_of_the_parent_is_an_error_at_the_child() -> None:
    ours, theirs = pair()
    ours.close()
    child = ChildChannel(theirs, KINDS)
    with pytest.raises(EOFError):
        child.receive(is_waiting=True)
    with pytest.raises(EOFError):
        child.send(Log(0, ""))
    theirs.close()


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"Step",
        b"Step {}",
        b"os.system {}",
        b"\x80\x04K\x01.",
        b'Rewind {"stream": "x"}',
        b'CloseStream {"stream": 1}',
    ],
)
def test_what_is_no_message_is_refused_and_never_run(packet):
    with pytest.raises(ValueError):
        unpacked(packet, KINDS)


def test_messages_come_out_as_they_went_in():
    done = Done(3, 7, -2, 12, Rung.NO_REFINER, {"decode": 1.5}, 10.25, 10.5, 0.25)
    for message in (done, Log(20, "a\nb"), Failed("Äh.")):
        assert unpacked(packed(message), MESSAGES) == message


def test_child_that_talks_nonsense_counts_as_gone() -> None:
    async def main() -> None:
        ours, theirs = pair()
        heard: list = []
        ends: list[int] = []
        parent = ParentChannel(ours, KINDS, lambda message, _: heard.append(message), lambda: ends.append(1))
        theirs.send(b"os.system {}")
        await until(lambda: ends)
        assert not heard and not parent.is_open
        theirs.close()

    asyncio.run(main())
