"""Multipart bodies (RFC 7578), whole or not at all.

In: a request, how many files it may carry. Out: its parts; files are closed with the context. The
framework's parser takes a body that ends early for a complete one, and bytes that are no text in
the given charset for latin-1: an ad would lose its image, or get a title nobody wrote.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from serving import http
from serving.errors import InvalidRequestError

CONTENT_TYPE = "multipart/form-data"
_FIELDS = 10


class _Parser(MultiPartParser):
    """Starlette's parser, which tells nobody of either."""

    whole = False

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            try:
                part.data.decode(self._charset)
            except UnicodeDecodeError as error:
                detail = f"part {part.field_name!r}: expected {self._charset} text: {error.reason}"
                raise MultiPartException(f"{detail} at byte {error.start}") from error
        super().on_part_end()

    def on_end(self) -> None:
        self.whole = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self.whole:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("the body ends before its last boundary: send it whole")
        return form


@asynccontextmanager
async def form_of(request: Request, files: int) -> AsyncIterator[FormData]:
    """The parts of a request's body, at most `files` of them files.

    Raises UnsupportedMediaTypeError for another content type, InvalidRequestError for a body that
    is no multipart, ends early, or has text that is none.
    """
    http.check_content_type(request, CONTENT_TYPE)
    parser = _Parser(request.headers, request.stream(), max_files=files, max_fields=_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequestError(error.message) from error
    try:
        yield form
    finally:
        await form.close()
