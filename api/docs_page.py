"""The OpenAPI document as a page: plain HTML, made once, with no script, no style from elsewhere and no host but ours."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886 }
h3 { margin-top: 2.5rem } .method { font-weight: 700; text-transform: uppercase } .about { white-space: pre-line }
"""


#: Nothing but the page's own style.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: Mapping[str, Any]) -> str:
    """The page of a document."""
    info = document["info"]
    schemas = document["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    contents = "".join(f'<li><a href="#{escape(tag)}">{escape(tag)}</a></li>' for tag in (*groups, "Schemas"))
    sections = "".join(
        f'<section id="{escape(tag)}"><h2>{escape(tag)}</h2>{"".join(parts)}</section>' for tag, parts in groups.items()
    )
    shapes = "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: HTTP interface</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<header><h1>{title}</h1><p>{escape(info['description'])} Machines read the same as"
        ' <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p></header>'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav><main>{sections}'
        f'<section id="Schemas"><h2>Schemas</h2>{shapes}</section></main></body></html>'
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = [
        (parameter["name"], f"in the {parameter['in']}, {_kind(parameter['schema'])}", parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    body = operation.get("requestBody")
    if body is not None:
        rows.append(("body", _kind(body["content"]["application/json"]["schema"]), ""))
    answers = [
        (status, _kind(next(iter(answer["content"].values()))["schema"]), answer["description"])
        for status, answer in operation["responses"].items()
    ]
    name = escape(operation["operationId"])
    return (
        f'<h3 id="{name}"><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h3>'
        f"<p>{escape(operation['summary'])}.</p>{_table(('Parameter', 'Type', ''), rows)}"
        f"{_table(('Status', 'Answer', ''), answers)}"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (field, _kind(kind), "; ".join(filter(None, (kind.get("description"), _need(field in required, kind)))))
        for field, kind in schema.get("properties", {}).items()
    ]
    about = escape(schema.get("description", ""))
    return (
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p class="about">{about}</p>{_table(("Field", "Type", ""), rows)}'
    )


def _need(required: bool, kind: Mapping[str, Any]) -> str:
    if required:
        return "required"
    return f"default {kind['default']!r}" if kind.get("default") not in (None, [], {}) else ""


def _table(heads: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> str:
    """A table, or nothing; the second column is HTML already."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{escape(note)}</td></tr>"
        for name, kind, note in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


#: What bounds a schema, lowest and highest, and of what.
_BOUNDS = (("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items"))


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    for joined in ("anyOf", "oneOf"):
        if joined in schema:
            return " or ".join(dict.fromkeys(_kind(option) for option in schema[joined]))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    kind = str(schema.get("type", "anything"))
    kind = f"list of {_kind(schema.get('items', {}))}" if kind == "array" else escape(kind)
    bounds = [_bounds(schema.get(least), schema.get(most), unit) for least, most, unit in _BOUNDS]
    return f"{kind} ({', '.join(filter(None, bounds))})" if any(bounds) else kind


def _bounds(least: float | None, most: float | None, unit: str) -> str:
    if least is None:
        return "" if most is None else f"at most {most:,}{unit}"
    return f"from {least:,}{unit}" if most is None else f"{least:,} to {most:,}{unit}"
