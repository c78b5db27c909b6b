"""The page of an application shows every route and needs nothing from elsewhere."""

from html.parser import HTMLParser

import httpx

from serving import docs_page, http
from serving.replica import Replica
from serving.schema import BlockRequest

PREFIX = "/v1/room"


class Reader(HTMLParser):
    """What a page shows, its tags, and where its tags point to."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_page_shows_every_route_and_loads_nothing() -> None:
    app = http.create_app(Replica.local("room", PREFIX, None), body_limit_bytes=1000)
    body = http.document_body(BlockRequest, usual={"reason": "it's <new>"})

    @app.post("", openapi_extra=body)
    async def echo() -> None:
        """What <script>this</script> is for."""

    transport = httpx.ASGITransport(app, root_path=PREFIX)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(f"{PREFIX}/docs")
        assert (answer.status_code, answer.headers["content-type"]) == (
            200,
            "text/html; charset=utf-8",
        )
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        page = Reader()
        page.feed(answer.text)
        assert page.links == [f"{PREFIX}/openapi.json"]
        assert (await client.get(page.links[0])).status_code == 200
    assert not page.tags & {"script", "link", "img", "iframe"}
    for shown in (f"POST {PREFIX}", f"GET {PREFIX}/healthz", "What <script>this</script> is for."):
        assert shown in page.text
    # A shell gives it back as it was: the quote inside stands on its own.
    assert """-d '{"reason": "it'"'"'s <new>"}'""" in page.text


def test_long_examples_are_cut() -> None:
    content = {"application/json": {"examples": {"a": {"value": {"data": [0] * 9_000}}}}}
    operation = {"requestBody": {"content": content}, "responses": {}}
    document = {"info": {"title": "t"}, "paths": {"/x": {"post": operation}}}
    assert len(docs_page.page(document, PREFIX)) < 4_000
