"""Users' own pictures over HTTP: decoded, examined, kept, used, gone. With the networks that are shipped."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from models.gallery import list_avatars
from streamer.errors import UnknownAvatarError
from streamer.server.access import Access
from streamer.server.app import create_app
from streamer.server.limits import Limits
from streamer.server.routes import Site
from streamer.session.metrics import Metrics
from streamer.session.registry import Registry
from streamer.uploads import OwnPictures, Uploads


def face(width: int = 512, form: str = "PNG") -> bytes:
    """A presenter of the gallery as a picture file."""
    file = io.BytesIO()
    Image.open(list_avatars()[0].picture).convert("RGB").resize((width, width)).save(file, form)
    return file.getvalue()


def wall() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(128, 20, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def server(clock: Clock, **options: Any) -> AsyncIterator[tuple[TestClient, OwnPictures]]:
    pictures = OwnPictures(Uploads(), (256, 256), "any", now=clock, **options)
    metrics = Metrics()
    registry = Registry(None, pictures.get, metrics, 1, 0.32)  # type: ignore[arg-type]
    site = Site(registry, metrics, list_avatars(), [], Limits(), lambda: "ready", pictures)
    try:
        async with TestClient(TestServer(create_app(site, Access()))) as client:
            yield client, pictures
    finally:
        await pictures.close()


@pytest.fixture(scope="module")
def scene() -> Callable[..., None]:
    def run(scene: Callable[..., Any], **options: Any) -> None:
        async def whole() -> None:
            clock = Clock()
            async with server(clock, **options) as (client, pictures):
                await scene(client, pictures, clock)

        asyncio.run(whole())

    return run


def test_a_picture_is_taken_shown_to_who_knows_it_and_gone_when_deleted(scene: Callable[..., None]) -> None:
    async def run(client: TestClient, pictures: OwnPictures, clock: Clock) -> None:
        answer = await client.post("/v1/avatars?consent=yes", data=face())
        assert answer.status == 201, await answer.text()
        own = await answer.json()
        assert own["id"].startswith("own-") and len(own["id"]) > 24 and "T" in own["expires"]
        assert answer.headers["Location"] == f"/v1/avatars/{own['id']}"
        assert {"name", "verdict", "advice"} == set(own["checks"][0])
        assert own["id"] not in await (await client.get("/v1/avatars")).text()  # listed for nobody
        shown = await client.get(own["picture"])
        assert Image.open(io.BytesIO(await shown.read())).size == (256, 256)
        assert shown.headers["Cache-Control"] == "private, no-store"
        path = pictures.get(own["id"]).picture
        assert (await client.delete(answer.headers["Location"])).status == 204
        assert (await client.get(own["picture"])).status == 404 and not path.exists()
        assert (await client.delete(answer.headers["Location"])).status == 404

    scene(run)


def test_a_picture_without_a_face_is_refused_in_words_and_disturbs_nothing(scene: Callable[..., None]) -> None:
    async def run(client: TestClient, pictures: OwnPictures, clock: Clock) -> None:
        refused = await client.post("/v1/avatars?consent=yes", data=wall())
        body = await refused.json()
        assert refused.status == 422 and body["checks"][0]["verdict"] == "refused"
        assert "face" in body["error"]["message"]
        for broken in (b"\xff\xd8\xff broken", b"GIF89a", face()[:2000], b"x" * 1000):
            answer = await client.post("/v1/avatars?consent=yes", data=broken)
            assert answer.status == 400 and (await answer.json())["error"]["code"] == "bad_picture"
        assert (await client.post("/v1/avatars?consent=yes", data=b"")).status == 400
        assert (await client.post("/v1/avatars?consent=yes", data=io.BytesIO(bytes(11 << 20)))).status == 413
        assert (await client.post("/v1/avatars?consent=yes", data=face(form="JPEG"))).status == 201

    scene(run)


def test_without_consent_nothing_is_read(scene: Callable[..., None]) -> None:
    async def run(client: TestClient, pictures: OwnPictures, clock: Clock) -> None:
        for address in ("/v1/avatars", "/v1/avatars?consent=no"):
            answer = await client.post(address, data=face())
            assert answer.status == 403 and "consent" in (await answer.json())["error"]["message"]

    scene(run)


def test_pictures_go_with_their_time_and_the_oldest_when_there_are_many(scene: Callable[..., None]) -> None:
    async def run(client: TestClient, pictures: OwnPictures, clock: Clock) -> None:
        names = []
        for _ in range(3):
            answer = await client.post("/v1/avatars?consent=yes", data=face())
            names.append((await answer.json())["id"])
            clock.now_s += 10
        with pytest.raises(UnknownAvatarError):
            pictures.get(names[0])
        assert pictures.get(names[2])
        clock.now_s += 95
        with pytest.raises(UnknownAvatarError):
            pictures.get(names[2])

    scene(run, most=2, life_s=100.0)


def test_an_examiner_that_died_is_started_again(scene: Callable[..., None]) -> None:
    async def run(client: TestClient, pictures: OwnPictures, clock: Clock) -> None:
        await pictures.warm_up()
        assert pictures._child is not None
        pictures._child.kill()
        assert (await client.post("/v1/avatars?consent=yes", data=face())).status == 201

    scene(run)


def test_where_no_pictures_are_taken_it_is_said(tmp_path: Any) -> None:
    async def run() -> None:
        site = Site(None, Metrics(), [], [], Limits(), lambda: "ready")  # type: ignore[arg-type]
        async with TestClient(TestServer(create_app(replace(site), Access()))) as client:
            assert (await client.post("/v1/avatars?consent=yes", data=b"x")).status == 404

    asyncio.run(run())
