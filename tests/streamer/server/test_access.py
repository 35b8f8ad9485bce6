"""Who may come in: tokens, and other sites."""

from __future__ import annotations

from tests.streamer.server.conftest import House

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
JSON = {"Content-Type": "application/json"}


def test_token_is_wanted_for_everything_but_the_page_and_health(visit) -> None:
    async def scene(house: House) -> None:
        for path in ("/v1/avatars", "/v1/sessions/x", "/metrics", "/v1/avatars?access_token=wrong"):
            assert (await house.error_of("GET", path))[:2] == (401, "unauthorized")
        for door in ("webrtc", "whep", "say", "audio", "interrupt"):
            assert (await house.error_of("POST", f"/v1/sessions/x/{door}"))[:2] == (401, "unauthorized")
        wrong = {"Authorization": "Bearer hunter3"}
        assert (await house.error_of("POST", "/v1/sessions", headers=wrong))[:2] == (401, "unauthorized")
        for path in ("/", "/healthz", "/v1/avatars?access_token=hunter2"):
            async with house.client.get(path) as response:
                assert response.status == 200
        async with house.client.get("/v1/avatars", headers={"Authorization": "Bearer hunter2"}) as response:
            assert response.status == 200
        async with house.client.get("/?access_token=hunter2") as page:
            cookie = page.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        async with house.client.get("/v1/avatars") as response:  # with the page's cookie
            assert response.status == 200

    visit(scene, token="hunter2")


def test_other_sites_are_let_in_only_where_they_are_named(visit) -> None:
    async def scene(house: House) -> None:
        friend, stranger = {"Origin": "https://friend.example"}, {"Origin": "https://stranger.example"}
        async with house.client.options("/v1/sessions", headers=friend) as preflight:
            assert preflight.status == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == "https://friend.example"
            assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        async with house.client.options("/v1/sessions", headers=stranger) as preflight:
            assert "Access-Control-Allow-Origin" not in preflight.headers
        async with house.client.post("/v1/sessions", headers=friend) as made:
            session = await made.json()
            assert made.status == 201 and "Location" in made.headers["Access-Control-Expose-Headers"]
        assert (await house.error_of("POST", "/v1/sessions", headers=stranger))[:2] == (403, "forbidden")
        events = session["links"]["events"]
        assert (await house.error_of("GET", events, headers=stranger))[:2] == (403, "forbidden")
        async with house.client.get("/js/a.js", headers=friend) as part:
            assert part.headers["Access-Control-Allow-Origin"] == "https://friend.example"
        async with house.client.get("/") as page:
            assert "frame-ancestors 'self' https://friend.example" in page.headers["Content-Security-Policy"]

    visit(scene, origins=("https://friend.example",))
