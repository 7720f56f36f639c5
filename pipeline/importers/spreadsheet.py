"""CSV as spreadsheets write it: a heading, some separator, perhaps a byte order mark, and empty rows."""

import csv
import io
from collections.abc import Iterator

from pipeline.errors import InputError


class Sheet:
    """A CSV text. ``names`` are those of its columns, in order; empty where there is no heading.

    Args:
        text: the content.
        where: its name, for errors.
        separators: of these the one that stands most often in the heading, the first of equal ones.
    """

    def __init__(self, text: str, where: str, separators: str) -> None:
        self._where = where
        separator = max(separators, key=text.partition("\n")[0].count)
        self._reader = csv.reader(io.StringIO(text.removeprefix("\ufeff")), delimiter=separator)
        self.names = [name.strip() for name in next(self._reader, [])]

    def rows(self) -> Iterator[tuple[int, str, list[str]]]:
        """Line, its name for errors, and the cells, without white space around, of every row that is not empty.

        Raises:
            InputError: a row has more or fewer cells than there are columns.
        """
        for row in self._reader:
            if not any(cell.strip() for cell in row):
                continue
            line = self._reader.line_num
            place = f"{self._where}: line {line}"
            if len(row) != len(self.names):
                raise InputError(
                    f"{place}: {len(row)} cells, but {len(self.names)} columns; quote cells that hold a separator"
                )
            yield line, place, [cell.strip() for cell in row]
