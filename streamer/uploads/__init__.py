"""Files that clients send, each read in a process of its own with limits of memory, time and output."""

from streamer.uploads.client import UploadedSound, Uploads
from streamer.uploads.own_pictures import OwnPictures, PictureRefused

__all__ = ["OwnPictures", "PictureRefused", "UploadedSound", "Uploads"]
