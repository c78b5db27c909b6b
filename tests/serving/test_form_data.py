"""Multipart bodies: what is whole is read, and what is torn or no text is refused."""

import pytest
from fastapi import Request
from starlette.datastructures import UploadFile

from serving.errors import InvalidRequestError, UnsupportedMediaTypeError
from serving.form_data import form_of

TITLE = b'--b\r\nContent-Disposition: form-data; name="title"\r\n\r\n%b\r\n'
IMAGE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\xff\xd8\r\n'
END = b"--b--\r\n"


def request(body: bytes, content_type: str = "multipart/form-data; boundary=b") -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "headers": headers}, receive)


async def parts(asked: Request) -> dict[str, str | bytes]:
    async with form_of(asked, files=1) as form:
        return {
            name: await value.read() if isinstance(value, UploadFile) else value
            for name, value in form.multi_items()
        }


async def test_a_whole_body_is_read() -> None:
    found = await parts(request(TITLE % "schön".encode() + IMAGE + END))
    assert found == {"title": "schön", "image": b"\xff\xd8"}


async def test_text_is_read_in_the_charset_that_is_named() -> None:
    latin = "multipart/form-data; boundary=b; charset=iso-8859-1"
    assert await parts(request(TITLE % b"sch\xf6n" + END, latin)) == {"title": "schön"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (TITLE % b"x" + IMAGE, "ends before its last boundary"),
        (TITLE % b"x" + IMAGE[:-4], "ends before its last boundary"),
        (b"", "ends before its last boundary"),
        (TITLE % b"sch\xf6n" + END, "'title': expected utf-8 text"),
        (TITLE % b"x" + IMAGE + IMAGE + END, "Too many files"),
        (b"--b\r\nbroken", "Invalid multipart data|ends before"),
    ],
)
async def test_what_would_lose_a_part_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        await parts(request(body))


async def test_another_content_type_is_refused() -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await parts(request(b"{}", "application/json"))
