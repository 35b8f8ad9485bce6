"""The built-in voice in a process of its own."""
