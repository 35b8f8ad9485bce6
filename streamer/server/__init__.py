"""The live server's media side: protocol, sessions, sources of speech, HTTP, metrics. Never imports torch."""
