"""The rated review snippets of PyPI's vaderSentiment, and which of them train: for both models of reviews."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = "vaderSentiment==2.5"
PACKAGE_SHA256: Final = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
SNIPPETS: Final = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"


class Snippet(NamedTuple):
    """One rated sentence. Product reviews give many sentences each, film reviews one."""

    review: str
    text: str
    positive: bool


def download(folder: Path) -> Path:
    """Fetches the source archive with pip as it is configured on this machine, and unpacks the snippets."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-binary", ":all:", "--dest", folder, PACKAGE], check=True)
    (archive,) = folder.glob("*.tar.gz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE}: the archive's sha256 is {found}, expected {PACKAGE_SHA256}")
    for packed in (archive, folder / SNIPPETS):
        with tarfile.open(packed) as tar:
            tar.extractall(folder, filter="data")
    return folder / "hutto_ICWSM_2014"


def snippets(folder: Path) -> list[Snippet]:
    """Every snippet whose mean rating is not exactly 0, in the archive's order."""
    found: list[Snippet] = []
    for source in ("amazon", "movie"):
        content = (folder / f"{source}ReviewSnippets_GroundTruth.txt").read_bytes().decode()
        # Not splitlines(): it would also cut at control characters inside a text.
        for line in content.replace("\r\n", "\n").strip("\n").split("\n"):
            number, rating, text = line.split("\t")
            if float(rating) != 0:
                # amazon ids are REVIEW_SENTENCE, movie ids are REVIEW.
                review = f"{source}:{number.split('_')[0]}"
                found.append(Snippet(review, text.strip(), float(rating) > 0))
    return found


def trains(review: str) -> bool:
    """Whether a review belongs to the quarter that the head is fitted on."""
    return int(hashlib.sha256(review.encode()).hexdigest(), 16) % 4 == 0


def split(found: list[Snippet]) -> tuple[list[Snippet], list[Snippet]]:
    """Training and evaluation snippets: whole reviews, and no text (case aside) in both or twice."""
    sides: tuple[list[Snippet], list[Snippet]] = ([], [])
    seen: set[str] = set()
    for snippet in sorted(found, key=lambda snippet: not trains(snippet.review)):
        if snippet.text.lower() not in seen:
            seen.add(snippet.text.lower())
            sides[0 if trains(snippet.review) else 1].append(snippet)
    return sides
