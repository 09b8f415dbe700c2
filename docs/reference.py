"""Reference pages of the site, made from the code that they are about: settings, commands, topics and the HTTP interface.

Settings, the command line, schemas and the OpenAPI document flow in, Markdown by page name flows out. Always holds: nothing is said
here that the code does not say, so a new field, option or route is in the next build without anybody's doing.
"""

import inspect
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperArgument

from api.openapi import document
from api.scopes import OPEN, needed
from cli.main import app
from infra.settings import FILE_SUFFIX, SECRETS, Settings, variable_of
from topics.json_schema import BEYOND, EVIDENCE, VERSIONS, schema_of
from topics.rejected import Reason
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS, specs
from topics.versions import versions_spec

_MADE = "Made from the code by `make docs`."


def pages() -> dict[str, str]:
    """Markdown of each page, by its path within the site."""
    return {
        "reference/configuration.md": configuration(),
        "reference/commands.md": commands(),
        "reference/topics.md": topics(),
        "reference/http.md": http(),
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars and line ends in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def configuration() -> str:
    """Every setting, with its type, bounds and default."""
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"`{variable_of(name)}`"
        if name in SECRETS:
            variable += f", `{variable_of(name)}{FILE_SUFFIX}`"
        rows.append(
            (variable, _default(field.default), _type(field.annotation, field.metadata), field.description or "")
        )
    return (
        "# Settings\n\n"
        "Settings are variables of the environment. One that begins with `HEADRACE_` and is unknown, or malformed, stops start-up and "
        "is named; an empty one counts as not set. What may be given as a file is named by the variable with `_FILE`: see "
        f"[security](../security.md#secrets). {_MADE}\n\n" + table(("variable", "default", "what it takes", ""), rows)
    )


def _default(value: Any) -> str:
    return "" if value is None or value == "" else f"`{value}`"


def _type(annotation: Any, metadata: Sequence[Any]) -> str:
    kinds = _kinds(annotation)
    bounds = [
        f"{sign} {getattr(rule, word):,}"
        for rule in metadata
        for word, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if isinstance(getattr(rule, word, None), int | float)
    ]
    return ", ".join([" or ".join(kinds), *bounds])


def _kinds(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin is Literal:
        return [f"`{word}`" for word in get_args(annotation)]
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(annotation) if part is not type(None) for kind in _kinds(part)]
    names = {
        "str": "text",
        "int": "whole number",
        "float": "number",
        "bool": "`true` or `false`",
        "Path": "path",
        "SecretStr": "secret",
    }
    return [names.get(annotation.__name__, annotation.__name__)]


def commands() -> str:
    """Every subcommand, with its arguments and options."""
    parts = [f"# Commands\n\n`headrace COMMAND --help` says the same in the terminal. {_MADE}\n"]
    for path, command in walk():
        parts.append(f"## {path}\n")
        parts.append((inspect.cleandoc(command.help or "")) + "\n")
        usage = " ".join(_usage(parameter) for parameter in command.params)
        parts.append(f"```text\n{path} {usage}".rstrip() + "\n```\n")
        rows = [
            (_names(parameter), _takes(parameter), getattr(parameter, "help", None) or "")
            for parameter in command.params
        ]
        if rows:
            parts.append(table(("", "takes", ""), rows))
    return "\n".join(parts)


def walk() -> Iterator[tuple[str, Any]]:
    """Each command that does something, as typer has it, by all its words."""

    def below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield words, command
            return
        for name in sorted(inner):
            yield from below(f"{words} {name}", inner[name])

    yield from below("headrace", typer.main.get_command(app))


def _usage(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        shown = str(parameter.name).upper()
    else:
        shown = parameter.opts[0] + ("" if parameter.is_flag else f" {parameter.name.upper()}")
    return shown if parameter.required else f"[{shown}]"


def _names(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _takes(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    annotation = parameter.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        kinds = [f"`{member.value}`" for member in annotation]
    else:
        kinds = _kinds(annotation)
    bounds = [f"{sign} {bound:,}" for sign, bound in (("≥", parameter.min), ("≤", parameter.max)) if bound is not None]
    default = parameter.default
    given = [] if default is None or default == "" or callable(default) else [f"default `{default}`"]
    return ", ".join([" or ".join(kinds), *bounds, *given])


def topics() -> str:
    """Every topic, with what it must be set to and what a record of it is."""
    parts = [
        "# Topics\n\n"
        "`headrace worker` creates what is missing, with one replica, and refuses a topic whose settings differ. `{app}` is "
        "`HEADRACE_APP`, `{version}` the version. The schemas are files in `topics/schemas`, and hold for what producers send and "
        f"consumers read; what JSON Schema cannot say stands below each. {_MADE}\n"
    ]
    described = {"{app}.{version}.evidence": EVIDENCE, "{app}-versions": VERSIONS}
    described |= {name: name for name in (INTERACTIONS, DEAD, VIDEOS, USERS, RECOMMENDATIONS)}
    for spec in (*specs("{app}", "{version}", 4), versions_spec("{app}")):
        parts.append(f"## {spec.name}\n")
        partitions = "1 partition" if spec.partitions == 1 else "`HEADRACE_PARTITIONS` partitions"
        parts.append(f"{partitions}. " + ", ".join(f"`{name}={value}`" for name, value in spec.config.items()) + ".\n")
        topic = described.get(spec.name)
        if topic is None:
            parts.append("Rows of workers, packed (`state/rows.py`). Nobody else reads or writes them.\n")
            continue
        schema = schema_of(topic)
        parts.append(schema["description"] + "\n")
        parts.append(table(("field", "type", ""), list(_fields(schema))))
        if BEYOND[topic]:
            parts.append("Beyond the schema:\n\n" + "".join(f"- {line}\n" for line in BEYOND[topic]))
        parts.append("```json\n" + json.dumps(schema, indent=1, ensure_ascii=False) + "\n```\n")
    parts.append("## Reasons of dead letters\n\n" + "".join(f"- `{reason}`\n" for reason in Reason))
    return "\n".join(parts)


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "prefixItems" in schema:
        for place, field in enumerate(schema["prefixItems"]):
            yield f"{place}: `{field['title']}`", _shape(field), field.get("description", "")
        return
    for name, field in schema["properties"].items():
        needed_ = "" if name in schema.get("required", ()) else ", optional"
        yield f"`{name}`", _shape(field) + needed_, field.get("description", "")


_BOUNDS = {
    "minimum": "≥ {:,}",
    "exclusiveMinimum": "> {:,}",
    "maximum": "≤ {:,}",
    "exclusiveMaximum": "< {:,}",
    "minLength": "≥ {} characters",
    "maxLength": "≤ {:,} characters",
    "minItems": "≥ {} items",
    "maxItems": "≤ {:,} items",
    "pattern": "`{}`",
}


def _shape(schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word, joined in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if word in schema:
            return joined.join(dict.fromkeys(filter(None, map(_shape, schema[word])))) or "anything"
    kind = str(schema.get("type", "anything"))
    if kind == "array" and "items" in schema:
        kind = f"array of {_shape(schema['items'])}"
    if schema.get("contentEncoding"):
        kind = "bytes"
    bounds = [text.format(schema[word]) for word, text in _BOUNDS.items() if word in schema]
    return ", ".join([kind, *bounds])


def http() -> str:
    """Every operation of the OpenAPI document, and every schema that they name."""
    made = document()
    parts = [
        "# HTTP interface\n\n"
        "A running worker has the same as a page (`/docs`) and as OpenAPI 3.1 (`/openapi.json`). "
        f"[Asking for lists](../http.md) says what it means. {_MADE}\n"
    ]
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            parts.append(f"## {method.upper()} {path}\n")
            scope = needed(method.upper(), path)
            parts.append(
                f"{operation['summary']}. " + ("No key is asked for.\n" if scope is OPEN else f"Scope `{scope}`.\n")
            )
            rows = [
                (f"`{one['name']}`", one["in"], _shape(one["schema"]), one.get("description", ""))
                for one in operation.get("parameters", ())
            ]
            if rows:
                parts.append(table(("parameter", "in", "type", ""), rows))
            if "requestBody" in operation:
                parts.append("Body: " + _content(operation["requestBody"]["content"]) + "\n")
            answers = [
                (status, _content(one.get("content", {})), one["description"])
                for status, one in operation["responses"].items()
            ]
            parts.append(table(("status", "body", ""), answers))
    parts.append("## Schemas\n")
    for name, schema in made["components"]["schemas"].items():
        parts.append(f"### {name}\n")
        parts.append(schema.get("description", "") + "\n")
        if "properties" in schema:
            parts.append(table(("field", "type", ""), list(_fields(schema))))
        else:
            parts.append(_shape(schema) + "\n")
    return "\n".join(parts)


def _content(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{_shape(one['schema'])} (`{kind}`)" for kind, one in content.items())
