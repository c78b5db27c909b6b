"""Documents against published schemas: Kubernetes' own, KubeRay's CRD, and Ray Serve's.

In: a document. Out: problems, none when it is right. Kubernetes' schemas come with the
`kubernetes-validate` package (strict: unknown fields are refused); KubeRay's CRD is a file that
its release publishes and that is read as an API server reads it: defaults are applied, unknown
fields refused, keyed lists hold each key once. Its CEL rules are not evaluated.
"""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from manifests import Document, ManifestError, Problem, pods, read, title

KUBERNETES = "1.34"
CUSTOM_KINDS = {("ray.io/v1", "RayService")}
_INT_RANGES = {"int32": 2**31, "int64": 2**63}


def check_kubernetes(document: Document) -> list[Problem]:
    """A document against Kubernetes' strict schema; a custom kind's pods against Pod's."""
    if (document["apiVersion"], document["kind"]) in CUSTOM_KINDS:
        return [p for each in _as_pods(document) for p in check_kubernetes(each)]
    where = title(document)
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [Problem(f"{where} {_path(error)}", error.message)]
    except kubernetes_validate.SchemaNotFoundError:
        what = f"{document['apiVersion']} {document['kind']} is unknown to Kubernetes {KUBERNETES}"
        return [Problem(where, f"{what}; correct the kind or its apiVersion")]
    return []


def _as_pods(document: Document) -> Iterator[Document]:
    for each in pods([document]):
        metadata = {**each.template.get("metadata", {}), "name": each.owner.replace(" ", ".")}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": each.spec}


class CustomResource:
    """One version of a CustomResourceDefinition, as a check of documents."""

    def __init__(self, path: Path, version: str = "v1") -> None:
        """Raises ManifestError when the file is not a CRD that serves `version`."""
        [definition, *more] = read(path)
        versions = definition.get("spec", {}).get("versions", [])
        found = [v for v in versions if v["name"] == version and v["served"]]
        if more or definition["kind"] != "CustomResourceDefinition" or not found:
            raise ManifestError(f"{path.name}: expected one CRD that serves {version}")
        self.kind: str = definition["spec"]["names"]["kind"]
        self.api_version = f"{definition['spec']['group']}/{version}"
        self._schema = found[0]["schema"]["openAPIV3Schema"]
        self._validator = jsonschema.Draft202012Validator(closed(self._schema))

    def check(self, document: Document) -> list[Problem]:
        """What the API server would refuse or drop, as problems."""
        where = title(document)
        body = {
            k: v for k, v in document.items() if k != "metadata"
        }  # checked by the server itself
        body = with_defaults(copy.deepcopy(body), self._schema)
        errors = sorted(self._validator.iter_errors(body), key=lambda e: [str(x) for x in e.path])
        found = [Problem(f"{where} {_path(e)}", e.message) for e in errors]
        return found + [
            Problem(f"{where} {at}", what) for at, what in odd_values(body, self._schema)
        ]


def closed(schema: Any) -> Any:
    """An OpenAPI v3 schema as JSON Schema in which unknown fields are errors, not dropped."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {k: closed(v) for k, v in schema.items() if not k.startswith("x-kubernetes-")}
    if "properties" in schema:
        out["properties"] = {k: closed(v) for k, v in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


def with_defaults(value: Any, schema: Document) -> Any:
    """`value` with the schema's defaults where a field is absent."""
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name not in value and "default" in part:
                value[name] = copy.deepcopy(part["default"])
        for name, item in value.items():
            value[name] = with_defaults(item, _part(schema, name))
    elif isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    return value


def odd_values(value: Any, schema: Document, at: str = "") -> Iterator[tuple[str, str]]:
    """What JSON Schema does not say: integers out of range, two items with one key."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from odd_values(item, _part(schema, name), f"{at}.{name}")
    elif isinstance(value, list):
        yield from _repeated(value, schema, at)
        for number, item in enumerate(value):
            yield from odd_values(item, schema.get("items", {}), f"{at}[{number}]")
    elif isinstance(value, int) and schema.get("format") in _INT_RANGES:
        bound = _INT_RANGES[schema["format"]]
        if not -bound <= value < bound:
            yield at, f"{value} is out of range of {schema['format']}"


def _repeated(items: list[Any], schema: Document, at: str) -> Iterator[tuple[str, str]]:
    keys = schema.get("x-kubernetes-list-map-keys", [])
    parts = schema.get("items", {}).get("properties", {})
    seen: set[tuple[Any, ...]] = set()
    for item in items if keys else []:
        key = tuple(item.get(k, parts.get(k, {}).get("default")) for k in keys)
        if key in seen:
            yield at, f"two items with {dict(zip(keys, key, strict=True))}; remove one"
        seen.add(key)


def _part(schema: Document, name: str) -> Document:
    extra = schema.get("additionalProperties")
    part: Document = schema.get("properties", {}).get(
        name, extra if isinstance(extra, dict) else {}
    )
    return part


def _path(error: Any) -> str:
    return ".".join(str(part) for part in error.absolute_path) or "(root)"


def check_serve(text: str, where: str) -> list[Problem]:
    """`serveConfigV2` against Serve's own schema; fields it would silently ignore are refused."""
    from pydantic import BaseModel, ValidationError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, inside Ray's module
        from ray.serve.schema import ServeDeploySchema

    try:
        config = yaml.safe_load(text)
        model = ServeDeploySchema.model_validate(config)
    except (yaml.YAMLError, ValidationError) as error:
        return [Problem(where, f"Serve refuses it: {error}")]

    def ignored(given: Any, known: Any, at: str) -> Iterator[Problem]:
        if isinstance(known, BaseModel) and isinstance(given, dict):
            for name, value in given.items():
                if name not in type(known).model_fields:
                    yield Problem(f"{where} {at}", f"Serve ignores the unknown field {name!r}")
                else:
                    yield from ignored(value, getattr(known, name), f"{at}.{name}".strip("."))
        elif isinstance(known, list) and isinstance(given, list):
            for number, (value, part) in enumerate(zip(given, known, strict=False)):
                yield from ignored(value, part, f"{at}[{number}]")

    return list(ignored(config, model, ""))
