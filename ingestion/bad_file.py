"""What is wrong with a data file, and on which line: nothing of such a file is sent."""

from pathlib import Path


class BadFile(ValueError):
    """A data file cannot be read as what it is said to be; the message names the file."""

    def __init__(self, file: Path, why: str, *, place: str = "") -> None:
        super().__init__(f"{file}{place}: {why}")
        self.file = file
        self.why = why


class BadRow(BadFile):
    """One row of a data file is wrong.

    Parameters
    ----------
    file : the data file
    line : 1 for the first line of a text file, header included; in Parquet 1 for the first row
    why : what was found there
    """

    def __init__(self, file: Path, line: int, why: str) -> None:
        super().__init__(file, why, place=f", line {line}")
        self.line = line
