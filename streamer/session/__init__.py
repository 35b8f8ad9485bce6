"""The life of a session: its audience, what it says, and the chunks that are made of it."""
