"""Speech in, video of a presenter saying it out: files today, live sessions on the same calls."""
