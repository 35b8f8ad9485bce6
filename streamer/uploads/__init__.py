"""Files that clients send, each read in a process of its own with limits of memory, time and output."""

from streamer.uploads.client import UploadedSound, Uploads

__all__ = ["UploadedSound", "Uploads"]
