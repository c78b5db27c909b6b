"""The page `{prefix}/docs`: an OpenAPI document as plain HTML that needs nothing from elsewhere.

In: the document. Out: a page without scripts: what other viewers load from a public network is not
there on an internal platform, and a stranger's script has no place where bearer keys are used.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

# Nothing is loaded, run or sent by the page; the style is its own.
HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
SHOWN = 1_000  # characters of an example
_STYLE = """
body {font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em}
h2 {margin: 2em 0 .2em; font-size: 1.05em; border-top: 1px solid #8884; padding-top: 1em}
h2 b, code, pre {font-family: ui-monospace, monospace} h2 b {color: #06c}
pre {background: #8881; padding: .7em; overflow-x: auto; font-size: 13px}
table {border-collapse: collapse} td, th {padding: .1em 1em .1em 0; text-align: left}
"""


def page(document: Mapping[str, Any], prefix: str) -> str:
    """The page of an OpenAPI document whose paths lie below `prefix`."""
    title = escape(document["info"]["title"])
    body = "\n".join(
        part
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        for part in _operation(method.upper(), prefix + path, operation)
    )
    schemas = document.get("components", {}).get("schemas", {})
    source = f"{escape(prefix)}/openapi.json"
    about = (
        f'OpenAPI: <a href="{source}">{source}</a>, for Swagger UI or any other viewer. '
        "<code>$TESSERA</code> is where this page came from: <code>http://localhost:8000</code>."
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>{about}</p>"
        f"{body}{_folded('Schemas', schemas)}</body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    """One route: what it does, takes and answers, and a call for each example of its body."""
    yield f"<h2><b>{method}</b> <code>{escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
    if parameters := operation.get("parameters"):
        yield "<table><tr><th>parameter</th><th>in</th><th>type</th><th></th></tr>"
        for one in parameters:
            kind = one.get("schema", {}).get("type", "any")
            about = one.get("description", "required" if one.get("required") else "")
            cells = (one["name"], one["in"], kind, about)
            yield "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>"
        yield "</table>"
    content = operation.get("requestBody", {}).get("content", {})
    for media, of in content.items():
        for name, example in of.get("examples", {}).items():
            yield f"<p>{escape(example.get('summary', name))}</p>"
            yield f"<pre>{escape(_curl(method, path, media, example['value']))}</pre>"
    if content:
        yield _folded(
            f"Body: {', '.join(content)}", {m: c.get("schema") for m, c in content.items()}
        )
    answers = operation.get("responses", {})
    yield _folded(f"Answers: {', '.join(answers)}", answers)


def _curl(method: str, path: str, media: str, value: Any) -> str:
    """A call from a shell; $TESSERA is the address."""
    if media == "multipart/form-data":
        sent = " ".join(f"-F {shlex.quote(f'{name}={text}')}" for name, text in value.items())
    else:
        body = json.dumps(value)
        # Examples of pictures are as long as pictures are.
        body = body if len(body) <= SHOWN else f"{body[:SHOWN]} ... (all of it: openapi.json)"
        sent = f"-H 'content-type: {media}' -d {shlex.quote(body)}"
    return f'curl -s -X {method} "$TESSERA{path}" {sent}'


def _folded(title: str, content: Any) -> str:
    if not content:
        return ""
    shown = escape(json.dumps(content, indent=2))
    return f"<details><summary>{escape(title)}</summary><pre>{shown}</pre></details>"
