"""The lake: `interactions`, `recommendations` and dead letters as Parquet, for ever, and for anyone to read.

`tail` reads the topics and cuts them into ranges, `writer` makes a range a file, `tables` says what a row is; `compact` merges files,
`forget` rewrites them without erased users, `check` compares them with the log.
"""
