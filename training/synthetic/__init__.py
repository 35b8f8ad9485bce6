"""Synthetic presenters: people, speech, gestures and the takes that show them."""
