"""Speech in, video of a presenter saying it out: into files (`render`), and live over WebRTC (`server`)."""
