"""What a study measured, on disk: one Parquet file per unit of work, whole or not there, so that a killed run goes on.

A unit is named by its columns and made by its recipe and by this program. Its file says all three; one that is cut off,
damaged, or made by another recipe or program is made again. There is one file per name, so nothing is ever there twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from saliency_checks.studies.bar import Bar
from saliency_checks.studies.provenance import program, sha_of, versions

FORMAT = 1
SHOWN = 10  # failures

Columns = Mapping[str, Any]  # values per row, by column; a single value stands in every row
Plain = str | int | float | bool


class Mismatch(Exception):
    """The folder holds another study, or one of another setup."""


class Nothing(Exception):
    """What a unit raises that has no rows, and never will have: the text says why. It counts as made."""


class Unfinished(Exception):
    """Some units failed, and may succeed when they are made again; the others are there."""

    def __init__(self, failed: Mapping[str, str]) -> None:
        shown = [f"  {label}: {reason}" for label, reason in list(failed.items())[:SHOWN]]
        more = [f"  and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        told = "the same command tries them again, with --report-only it shows what is there"
        super().__init__("\n".join([f"{len(failed)} parts failed; {told}", *shown, *more]))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One part of the work: small enough to lose when a run is killed.

    Attributes:
        columns: its name, as values of the table's first columns (subject, method, metric).
        recipe: all else that its values depend on, as JSON holds it: settings, seed, images, hashes of data and code.
        make: measures it, and returns the further columns, one value per row.
        passes: images through the model that this takes, for the progress bar.
        rows: first image and the one behind the last, of a part of the images; None: all.
        shares: what it has in common with other units, the dearest first (subject and images, method): who makes it
            holds that, so units that share all of it are made one after the other in one process.
    """

    columns: Mapping[str, Plain]
    recipe: Mapping[str, Any]
    make: Callable[[], Columns]
    passes: int = 1
    rows: tuple[int, int] | None = None
    shares: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """For people."""
        rows = () if self.rows is None else (f"images {self.rows[0]} to {self.rows[1]}",)
        return " ".join(filter(None, map(str, (*self.columns.values(), *rows))))

    @property
    def file(self) -> str:
        """Readable, and different for different names also where the readable part is the same."""
        name = json.dumps(dict(self.columns) if self.rows is None else [dict(self.columns), self.rows])
        parts = [*self.columns.values(), *(self.rows or ())]
        readable = "-".join(re.sub(r"[^a-zA-Z0-9_.@]+", "_", str(value))[:60] for value in parts)
        return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.parquet"

    @property
    def identity(self) -> str:
        """What a part must say that it is."""
        rows = {} if self.rows is None else {"rows": self.rows}
        made = {"format": FORMAT, "program": program(), "columns": dict(self.columns), "recipe": self.recipe}
        return json.dumps({**made, **rows})


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a unit gave: its further columns, or why it has none, and the seconds it took."""

    columns: Columns
    seconds: float
    reason: str = ""

    @classmethod
    def by(cls, make: Callable[[], Columns]) -> Made:
        """By calling it, here and now."""
        started = time.monotonic()
        try:
            columns, reason = make(), ""
        except Nothing as nothing:
            columns, reason = {}, str(nothing)
        return cls(columns=columns, seconds=time.monotonic() - started, reason=reason)


# Makes the units, and calls ``commit`` with each as soon as it is made, in any order; returns those that failed, and
# why. What is committed is kept whatever happens then.
Engine = Callable[[Sequence[Unit], Callable[[Unit, Made], None], Callable[[str], None]], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What is kept of a unit.

    Attributes:
        identity, columns, recipe, rows: as the unit's.
        seconds: that it took.
        reason: why it has no rows, or "".
        table: its rows.
    """

    file: Path
    identity: str
    columns: Mapping[str, Plain]
    recipe: Mapping[str, Any]
    seconds: float
    reason: str
    table: pa.Table
    rows: tuple[int, int] | None = None

    @classmethod
    def of(cls, file: Path) -> Part | None:
        """None where the file is missing, damaged, or no part."""
        try:
            # Not read_table: it makes a data set of the one file first, and takes three times as long.
            with parquet.ParquetFile(file, page_checksum_verification=True) as opened:
                table = opened.read(use_threads=False)
            said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            unit = json.loads(said["identity"])
            if int(said["rows"]) != len(table):
                return None
            return cls(
                file=file, identity=said["identity"], columns=unit["columns"], recipe=unit["recipe"],
                seconds=float(said["seconds"]), reason=said["reason"], table=table,
                rows=tuple(unit["rows"]) if "rows" in unit else None,
            )  # fmt: skip
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None

    @property
    def said(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {
            "columns": self.columns, "recipe": self.recipe, "rows": len(self.table), "seconds": self.seconds,
            "reason": self.reason, **({"images": self.rows} if self.rows else {}),
        }  # fmt: skip


@dataclass(frozen=True)
class Store:
    """A study's folder: ``parts/``, the joined table, tables, figures, ``summary.md`` and ``manifest.json``."""

    out: Path
    study: str
    started: float = field(default_factory=time.monotonic, compare=False)
    # What a part was found to be, and when its file was written: it is not read again to be asked that.
    _known: dict[Path, tuple[Any, str, dict[str, Any]]] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        self.parts.mkdir(parents=True, exist_ok=True)
        if (found := self.manifest.get("study", self.study)) != self.study:
            raise Mismatch(f"{self.out} holds the study {found}: give {self.study} another --out")

    @property
    def parts(self) -> Path:
        return self.out / "parts"

    @property
    def manifest(self) -> dict[str, Any]:
        """What ``manifest.json`` says; nothing where it is missing or damaged."""
        with suppress(FileNotFoundError, ValueError):
            found: dict[str, Any] = json.loads((self.out / "manifest.json").read_text("utf-8"))
            return found
        return {}

    def note(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        text = json.dumps({**self.manifest, "study": self.study, **facts}, indent=1, sort_keys=True) + "\n"
        self.write("manifest.json", text)

    def setup(self, **facts: Any) -> None:
        """Fix what all parts have in common, such as the number of images: a table must not mix two of them.

        Raises:
            Mismatch: the folder was made with another setup.
        """
        facts = json.loads(json.dumps(facts))
        known = self.manifest.get("setup", facts)
        for name, value in facts.items():
            if known.get(name) != value:
                raise Mismatch(
                    f"{self.out} was made with {name} {known.get(name)!r}, and this run asks for {value!r}: ask for the"
                    " same, or give another --out"
                )
        self.note(setup=facts)

    def part(self, unit: Unit) -> pa.Table:
        """The rows of one unit: read where they are there and whole, otherwise made and written at once."""
        if (found := self.read(unit)) is not None:
            return found
        return self.commit(unit, Made.by(unit.make))

    def commit(self, unit: Unit, made: Made) -> pa.Table:
        """Write the part of a unit, whole or not at all; committed twice, it is there once."""
        table = pa.table({}) if made.reason else _table(unit, made.columns)
        said = {
            "identity": unit.identity, "rows": str(len(table)), "seconds": str(round(made.seconds, 3)),
            "reason": made.reason,
        }  # fmt: skip
        _replace(self.parts / unit.file, lambda file: _write(table.replace_schema_metadata(said), file))
        return table

    def read(self, unit: Unit) -> pa.Table | None:
        """The rows of one unit, or None where it is not there, not whole, or made by another recipe."""
        part = self._look(self.parts / unit.file)
        return part.table if part is not None and part.identity == unit.identity else None

    def holds(self, unit: Unit) -> bool:
        """Whether it is there, whole, and made by this recipe."""
        return self._asked(self.parts / unit.file)[0] == unit.identity

    def _look(self, file: Path) -> Part | None:
        self._known.pop(file, None)
        written = _written(file)
        if written is None or (part := Part.of(file)) is None:
            return None
        self._known[file] = written, part.identity, part.said
        return part

    def _asked(self, file: Path) -> tuple[str, dict[str, Any]]:
        """What a part says that it is, and of itself; read where it was written since, empty where it is not whole."""
        if file not in self._known or self._known[file][0] != _written(file):
            self._look(file)
        return self._known.get(file, (None, "", {}))[1:]

    def run(self, units: Sequence[Unit], engine: Engine | None = None) -> None:
        """All units that are not there yet; a bar on stderr shows the passes done and left.

        Raises:
            Unfinished: some failed; the others are there.
        """
        left = [unit for unit in units if not self.holds(unit)]
        bar = Bar(self.study, len(units), len(left), sum(unit.passes for unit in left))

        def commit(unit: Unit, made: Made) -> None:
            self.commit(unit, made)
            bar.advance(unit.passes)

        try:
            failed = (engine or one_by_one)(left, commit, bar.show)
        finally:
            bar.close()
        if failed:
            raise Unfinished(failed)

    def forget(self, is_stale: Callable[[Part], bool]) -> None:
        """Remove the parts of what is no longer so."""
        for part in self.made():
            if is_stale(part):
                part.file.unlink()

    def made(self) -> Iterator[Part]:
        """Every whole part, read now, in an order of its own that does not depend on when it was made."""
        found = (part for file in self.parts.glob("*.parquet") if (part := self._look(file)) is not None)
        yield from sorted(found, key=lambda part: ([str(v) for v in part.columns.values()], part.rows or (0, 0)))

    def table(self, parts: Iterable[Part] | None = None) -> pa.Table:
        """All whole parts, sorted by their columns: the same bytes in whatever order they were made.

        Args:
            parts: all that were made, where they have been read already.

        Raises:
            Mismatch: there are none.
        """
        made = self.made() if parts is None else parts
        tables = [part.table.replace_schema_metadata() for part in made if len(part.table)]
        if not tables:
            raise Mismatch(f"{self.out} holds no results yet: run the study without --report-only")
        return pa.concat_tables(tables, promote_options="permissive")

    def save(self, name: str, table: pa.Table | Mapping[str, Sequence[Any]]) -> None:
        """A table as ``name.parquet``, or as ``name.csv`` where the name says so."""
        whole = table if isinstance(table, pa.Table) else pa.table(dict(table))
        if name.endswith(".csv"):
            from pyarrow import csv

            _replace(self.out / name, lambda file: csv.write_csv(whole, file))
        else:
            _replace(self.out / name, lambda file: _write(whole, file))

    def write(self, name: str, text: str) -> None:
        """A text file, whole or as it was."""
        _replace(self.out / name, lambda file: file.write_text(text, "utf-8"))

    def finish(self, *, seconds: float, seed: int, **facts: Any) -> None:
        """The manifest: versions, this program, seed, what each part is made of and took, hashes of the results."""
        parts = {file.name: said for file in self.parts.glob("*.parquet") if (said := self._asked(file)[1])}
        results = sorted(file for file in self.out.iterdir() if file.is_file() and file.name != "manifest.json")
        self.note(
            versions=versions(), program=program(), seed=seed, parts=parts, seconds_of_last_run=round(seconds, 1),
            seconds=round(sum(part["seconds"] for part in parts.values()), 1),
            sha256={file.name: sha_of(file) for file in results if not file.name.startswith(".")}, **facts,
        )  # fmt: skip


def one_by_one(
    units: Sequence[Unit], commit: Callable[[Unit, Made], None], show: Callable[[str], None]
) -> Mapping[str, str]:
    """The engine that makes all units in their order, here; the first that fails ends the run."""
    for unit in units:
        show(unit.label)
        commit(unit, Made.by(unit.make))
    return {}


def _table(unit: Unit, columns: Columns) -> pa.Table:
    """The unit's name and values as columns of one length."""
    if twice := sorted(set(columns) & set(unit.columns)):
        raise ValueError(f"{unit.file}: the columns {', '.join(twice)} name the unit; values need other names")
    sizes = {name: len(values) for name, values in columns.items() if not isinstance(values, Plain)}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"{unit.file}: columns of {sizes} rows, expected as many in each, and one column at least")
    rows = next(iter(sizes.values()))
    every = {**unit.columns, **columns}
    return pa.table({name: [v] * rows if isinstance(v, Plain) else pa.array(v) for name, v in every.items()})


def _write(table: pa.Table, file: Path) -> None:
    parquet.write_table(table, file, compression="zstd", write_page_checksum=True)


def _written(file: Path) -> tuple[int, int, int] | None:
    """When, and which: a file that was replaced has another number."""
    with suppress(FileNotFoundError):
        found = file.stat()
        return found.st_mtime_ns, found.st_ino, found.st_size
    return None


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    """Whoever reads the file sees the old one or the new one, also when the machine stops in between."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
