"""Child processes: what computes or reads what strangers send lives in one, and the event loop never waits for it."""

from streamer.child.channel import ChildChannel
from streamer.child.process import ChildProcess, Limits

__all__ = ["ChildChannel", "ChildProcess", "Limits"]
