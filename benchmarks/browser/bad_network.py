"""The server seen through a bad network: a web server of its own that passes everything on, and a lossy link for media.

    python -m benchmarks.browser.bad_network http://127.0.0.1:8080 0.05 50

prints the address to open instead, and ends with its standard input. Losses (share) and delay (milliseconds) are each
way. HTTP itself is not disturbed; WebSockets are not passed on, which the page does not use.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession, web

from benchmarks.browser.link import Link, address_of, with_address, without_candidates

HOP_BY_HOP = {"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"}


class BadNetwork:
    """One web server, and a link for every connection that is made through it."""

    def __init__(self, server: str, loss: float, delay_s: float):
        self._server = server
        self._loss = loss
        self._delay_s = delay_s
        self._links: list[Link] = []

    async def pass_on(self, request: web.Request) -> web.Response:
        if request.method == "PATCH":  # candidates of the browser's own: the server must not get to know them
            return web.Response(status=204)
        body = await request.read()
        is_offer = request.content_type == "application/sdp"
        if is_offer:
            body = without_candidates(body.decode()).encode()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = self._server + request.path_qs
        async with (
            ClientSession() as client,
            client.request(request.method, url, headers=headers, data=body, allow_redirects=False) as response,
        ):
            answer = await response.read()
            if is_offer and response.status == 201:
                answer = (await self._through_a_link(answer.decode())).encode()
            kept = [(name, value) for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP]
            passed = web.Response(status=response.status, body=answer)
            passed.headers.clear()
            passed.headers.extend(kept)
            return passed

    async def _through_a_link(self, answer: str) -> str:
        link = await Link.open(address_of(answer), self._loss, self._delay_s, seed=len(self._links))
        self._links.append(link)
        return with_address(answer, link.address)

    def close(self) -> None:
        for link in self._links:
            link.close()


async def serve(server: str, loss: float, delay_s: float) -> None:
    network = BadNetwork(server, loss, delay_s)
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_route("*", "/{path:.*}", network.pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        network.close()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1].rstrip("/"), float(sys.argv[2]), float(sys.argv[3]) / 1000))
