"""The reference names every setting, command, option, topic, field and operation that there is."""

import json

import pytest

from api.openapi import OPERATIONS
from api.openapi import document as openapi
from docs import reference
from infra.settings import FILE_SUFFIX, SECRETS, Settings, variable_of
from topics.json_schema import TOPICS, schema_of
from topics.specs import specs
from topics.versions import versions_topic

PAGES = reference.pages()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_there_with_what_it_is_for(name: str) -> None:
    page = PAGES["reference/configuration.md"]
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{variable_of(name)}`")]
    field = Settings.model_fields[name]
    assert field.description, f"{name} has no description in infra/settings.py"
    assert len(field.description) > 5
    assert field.description.replace("|", "\\|") in row
    assert (f"`{variable_of(name)}{FILE_SUFFIX}`" in row) == (name in SECRETS)
    if field.default not in (None, ""):
        assert f"`{field.default}`" in row


def test_bounds_and_choices_of_settings_are_told() -> None:
    page = PAGES["reference/configuration.md"]
    assert "| `HEADRACE_PARTITIONS` | `4` | whole number, ≥ 1, ≤ 256 |" in page
    assert "`plaintext` or `ssl` or `sasl_plaintext` or `sasl_ssl`" in page


COMMANDS = dict(reference.walk())


def test_commands_are_found() -> None:
    assert COMMANDS.keys() >= {"headrace worker", "headrace models save", "headrace keys create", "headrace demo"}


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_is_there_with_its_options(path: str) -> None:
    page = PAGES["reference/commands.md"]
    section = page.split(f"\n## {path}\n")[1].split("\n## ")[0]
    assert (COMMANDS[path].help or "").splitlines()[0] in section
    for parameter in COMMANDS[path].params:
        shown = [parameter.name.upper()] if parameter.param_type_name == "argument" else parameter.opts
        for name in shown:
            [row] = [line for line in section.splitlines() if line.startswith("| `") and f"`{name}`" in line]
            if parameter.help:
                assert " ".join(parameter.help.replace("|", "\\|").split()) in row


@pytest.mark.parametrize("name", [*(spec.name for spec in specs("{app}", "{version}", 4)), versions_topic("{app}")])
def test_each_topic_is_there(name: str) -> None:
    assert f"\n## {name}\n" in PAGES["reference/topics.md"]


@pytest.mark.parametrize("topic", TOPICS)
def test_each_field_and_the_schema_of_a_topic_are_there(topic: str) -> None:
    page = PAGES["reference/topics.md"]
    assert json.dumps(schema_of(topic), indent=1, ensure_ascii=False) in page
    for name in schema_of(topic).get("properties", {}):
        assert f"| `{name}` |" in page


def test_each_operation_parameter_and_schema_is_there() -> None:
    page = PAGES["reference/http.md"]
    made = openapi()
    for operation in OPERATIONS:
        heading = f"\n## {operation.method.upper()} {operation.path}\n"
        section = page.split(heading)[1].split("\n## ")[0]
        assert operation.summary in section
        told = made["paths"][operation.path][operation.method]
        for parameter in told.get("parameters", ()):
            assert f"| `{parameter['name']}` | {parameter['in']} |" in section
        for status in told["responses"]:
            assert f"\n| {status} |" in section
    for name, schema in made["components"]["schemas"].items():
        section = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        assert all(f"| `{field}` |" in section for field in schema.get("properties", ()))


def test_tables_are_tables_whatever_is_in_them() -> None:
    made = reference.table(("a", "b"), [("x | y", "two\n  lines")])
    assert made == "| a | b |\n| --- | --- |\n| x \\| y | two lines |\n"
