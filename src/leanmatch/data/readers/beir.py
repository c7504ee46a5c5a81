"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv`` (each also .gz).

Source: Thakur et al., "BEIR: A heterogeneous benchmark for zero-shot evaluation of information retrieval
models", NeurIPS Datasets and Benchmarks 2021.
"""

from __future__ import annotations

from pathlib import Path

from leanmatch.data.columns.names import SPLIT_NAMES
from leanmatch.data.items import ItemTable
from leanmatch.data.problems import Problem, Problems
from leanmatch.data.readers.canonical import canonical_rows
from leanmatch.data.readers.delimited import read_delimited
from leanmatch.data.readers.items import read_items
from leanmatch.data.readers.sources import BATCH_ROWS
from leanmatch.data.table import PairTable, empty_rows
from leanmatch.errors import DataError

COLUMNS = ("anchor", "positive", "label", "split", "anchor_id", "positive_id", "relevance")
QREL_COLUMNS = ("query-id", "corpus-id", "score")


def is_beir(folder: Path) -> bool:
    """Whether the folder has the layout of BEIR."""
    return _either(folder / "queries.jsonl") is not None and (folder / "qrels").is_dir()


def read_beir(folder: Path, problems: Problems) -> PairTable:
    """One row a judgement: grade above 0 becomes label 1, grade 0 label 0; the file's name is the split.

    Raises:
        DataError: a file is missing, an identifier comes twice or is unknown, a grade is no number, or a
            ``qrels`` file is not named after a split.
    """
    corpus = _items(folder / "corpus.jsonl", problems)
    queries = _items(folder / "queries.jsonl", problems)
    positions = {name: i for i, name in enumerate(corpus.ids)}
    asked = dict(zip(queries.ids, queries.texts, strict=True))
    values: dict[str, list[object]] = {name: [] for name in COLUMNS}
    files = sorted(
        entry for entry in (folder / "qrels").iterdir() if entry.name.endswith((".tsv", ".tsv.gz"))
    )
    if not files:
        raise DataError("there are no *.tsv files", path=folder / "qrels", remedy="add qrels/test.tsv")
    for file in files:
        split = SPLIT_NAMES.get(file.name.removesuffix(".gz").removesuffix(".tsv").casefold())
        if split is None:
            raise DataError(
                "the file's name is no split",
                path=file,
                remedy=f"one of: {', '.join(SPLIT_NAMES)}, with .tsv",
            )
        judged = Problems(file, problems.on_error)
        for raw in read_delimited(file, tabs=True, batch_rows=BATCH_ROWS):
            missing = [name for name in QREL_COLUMNS if name not in raw.columns]
            if missing:
                raise DataError(
                    f"columns missing: {', '.join(missing)}; found: {', '.join(raw.columns)}",
                    path=file,
                    line=1,
                    remedy=f"the header is {' '.join(QREL_COLUMNS)}, with tabs between",
                )
            line_problems = list(raw.problems)
            judgements = zip(raw.lines, *(raw.columns[name] for name in QREL_COLUMNS), strict=True)
            for line, query, document, score in judgements:
                problem = _fault(line, query, document, score, asked, positions)
                if problem is not None:
                    line_problems.append(problem)
                    continue
                grade = float(score)
                text = corpus.texts[positions[document]]
                row = (asked[query], text, int(grade > 0), split, query, document, grade)
                for name, value in zip(COLUMNS, row, strict=True):
                    values[name].append(value)
            judged.report(line_problems)
        problems.skipped.extend(judged.skipped)
    rows, _ = canonical_rows(values, range(len(values["anchor"])))
    rows = rows if rows.num_rows else empty_rows(COLUMNS)
    return PairTable(rows, source=str(folder), corpus=corpus, skipped=tuple(problems.skipped))


def _fault(
    line: int, query: str, document: str, score: str, asked: dict[str, str], positions: dict[str, int]
) -> Problem | None:
    if query not in asked:
        return Problem(line, "query-id", query, "no such query", "add it to queries.jsonl or delete the line")
    if document not in positions:
        return Problem(
            line, "corpus-id", document, "no such document", "add it to corpus.jsonl or delete the line"
        )
    try:
        grade = float(score)
    except ValueError:
        grade = -1.0
    if not 0 <= grade < float("inf"):
        return Problem(
            line, "score", score, "the grade is no number from 0", "0: not relevant; 1 and above: relevant"
        )
    return None


def _items(path: Path, problems: Problems) -> ItemTable:
    file = _either(path)
    if file is None:
        raise DataError("the file is missing", path=path, remedy="a BEIR folder needs it, as it is or as .gz")
    items = read_items(file, id_column="_id", on_error=problems.on_error)
    problems.skipped.extend(items.skipped)
    return items


def _either(path: Path) -> Path | None:
    packed = path.with_name(path.name + ".gz")
    return path if path.exists() else packed if packed.exists() else None
