"""Errors of the models package.

ValueError
└── CheckpointError   a weights folder that is missing, broken or made for another preset
"""

from __future__ import annotations


class CheckpointError(ValueError):
    """A weights folder is missing, unreadable, or does not fit the preset; the message says which and how."""
