"""The table with labels that the user names, looked for among the files of a source."""

import io
from dataclasses import replace
from functools import partial

from components.shared.core.errors import UserError
from components.shared.data.archives.member import Member
from components.shared.data.layout.file_kinds import PICTURE, junk_in
from components.shared.data.layout.label_table import MAX_TABLE_BYTES, Names, label_pictures, read_table
from components.shared.data.layout.reading import Reading
from components.shared.data.layout.survey import Survey


class Given:
    """What the user says about a source, and what is kept of the source for that: the table, the pictures' names."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._table: tuple[str, bytes] | None = None
        self._names: list[str] = []

    def see_picture(self, name: str) -> None:
        """Take note of a picture."""
        if self.reading.labels:
            self._names.append(name)

    def seen(self, source: str, member: Member) -> Member:
        """Return a member, from memory if it is the table: a member of a compressed tar can be read only once.

        Raises UserError if that is too large.
        """
        if not self._is_wanted(member):
            return member
        if member.size > MAX_TABLE_BYTES:
            message = (
                f"{source} holds {member.name} of {member.size:,} bytes, more than {MAX_TABLE_BYTES:,} for a table"
            )
            raise UserError(message, "leave out what is not needed")
        with member.open() as file:
            content = file.read()
        read = replace(member, open=partial(io.BytesIO, content), read_start=None)
        if read.kind() != PICTURE:
            self._table = (member.name, content)
        return read

    def _is_wanted(self, member: Member) -> bool:
        """Return whether a member may be the table, and is in fewer folders than the one that was seen."""
        wanted, name = self.reading.labels, member.name
        if not wanted or not f"/{name}".endswith(f"/{wanted}") or junk_in(name):
            return False
        return not self._table or name.count("/") < self._table[0].count("/")

    def labels(self, source: str, survey: Survey) -> dict[str, str] | None:
        """Return the class of each picture that the table names, and leave out all others; None without a table.

        Raises UserError if the source does not hold the table, or it cannot be understood.
        """
        if not self.reading.labels:
            return None
        if not self._table:
            remedy = f"give one of {', '.join(survey.tables)}" if survey.tables else "put it beside the pictures"
            raise UserError(f"labels={self.reading.labels} is not in {source}", remedy)
        names = Names(self._names)
        labels = label_pictures(source, read_table(source, *self._table, names), names, self.reading.label_columns)
        for name in self._names:
            if name not in labels:
                survey.leave_out_unlabelled(name)
        return labels
