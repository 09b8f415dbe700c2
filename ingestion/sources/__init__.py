"""Databases, feeds and folders that are read again and again: what is new in them goes into Kafka, once."""
