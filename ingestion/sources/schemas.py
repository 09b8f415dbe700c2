"""The schemas that come with Headrace: tables of PostgreSQL and SQLite, collections of MongoDB."""

import json
from enum import StrEnum
from importlib import resources
from typing import Any


class Schema(StrEnum):
    """For which database."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"
    MONGODB = "mongodb"


_FILES = {
    Schema.POSTGRESQL: "db_schema.sql",
    Schema.SQLITE: "db_schema_sqlite.sql",
    Schema.MONGODB: "mongo_schema.json",
}


def schema_text(schema: Schema) -> str:
    """The file as it is."""
    return (resources.files(__package__) / _FILES[schema]).read_text(encoding="utf-8")


def create_collections(database: Any) -> None:
    """Make the collections of `mongo_schema.json` in a database of pymongo; those that are there get validators and indexes."""
    there = set(database.list_collection_names())
    for name, wanted in json.loads(schema_text(Schema.MONGODB)).items():
        if name in there:
            database.command("collMod", name, validator=wanted["validator"])
        else:
            database.create_collection(name, validator=wanted["validator"])
        for fields in wanted["indexes"]:
            database[name].create_index([(field, 1) for field in fields])
