"""The live server's HTTP: routes, pages, the WebSocket, who may come in, start and stop. Never imports torch."""
