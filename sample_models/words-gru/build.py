"""Trains the character GRU on names of the CLDR; writes weights.safetensors, words.csv and the tokenizer."""

import csv
import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import torch
from model import FOLDER, LANGUAGES, TOKENIZER, WEIGHTS, WordsGru, model, network
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn

PACKAGE: Final = "cldr-localenames-full@48.2.0"
PACKAGE_SHA256: Final = "7f2ac7fd3b5d90f56ad127f9ed5ae67b58b3e556818f55530b9f47bb81bcde57"
LOCALES: Final = ("cs", "da", "nl", "en", "fi", "fr", "de", "hu", "it", "pl", "pt", "ro", "es", "sv", "tr")
"""In the order of LANGUAGES."""
KINDS: Final = {"territories": "territory", "languages": "language", "scripts": "script"}
SEED: Final = 20261122
EPOCHS: Final = 20
BATCH_ROWS: Final = 64
PEAK_LEARNING_RATE: Final = 5e-3
RAREST: Final = 5
"""A character that occurs less often in the training rows is unknown."""


class Name(NamedTuple):
    """What one language calls a territory, a language or a script."""

    text: str
    language: str
    concept: str


def download(folder: Path) -> Path:
    """Fetches and unpacks the package with the npm client as it is configured on this machine."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE}: the archive's sha256 is {found}, expected {PACKAGE_SHA256}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def names(package: Path) -> list[Name]:
    """Every name that exactly one of the languages uses (case aside), once."""
    found: dict[tuple[str, str], Name] = {}
    users: dict[str, set[str]] = defaultdict(set)
    for language, locale in zip(LANGUAGES, LOCALES, strict=True):
        for file, kind in KINDS.items():
            content = json.loads((package / f"main/{locale}/{file}.json").read_text(encoding="utf-8"))
            for code, text in content["main"][locale]["localeDisplayNames"][file].items():
                # Keys with "-alt-" are a second name of the same thing. A code that nobody translated names itself.
                plain = code.partition("-alt-")[0]
                if text != plain:
                    folded = text.casefold()
                    users[folded].add(language)
                    found.setdefault((folded, language), Name(text, language, f"{kind}:{plain}"))
    return [name for (folded, _), name in found.items() if len(users[folded]) == 1]


def trains(concept: str) -> bool:
    """Whether the names of a concept belong to the three quarters that the network is trained on."""
    return int(hashlib.sha256(concept.encode()).hexdigest(), 16) % 4 != 0


def write_tokenizer(texts: list[str]) -> Tokenizer:
    """One token per character of the lower-cased text."""
    lowered = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    counts = Counter(character for text in texts for character in lowered.normalize_str(text))
    known = sorted(character for character, count in counts.items() if count >= RAREST)
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = lowered
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    TOKENIZER.parent.mkdir(exist_ok=True)
    tokenizer.save(str(TOKENIZER))
    return tokenizer


def batch(encoded: list[list[int]], places: list[int]) -> tuple[Tensor, Tensor]:
    """Token ids and mask of these rows, as long as the longest of them."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(encoded[place]) for place in places], batch_first=True)
    return ids, (ids != 0).long()


def train(encoded: list[list[int]], labels: Tensor) -> WordsGru:
    """A fixed number of epochs: nothing is chosen by looking at the held-out rows."""
    trained = network()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total_loss = 0.0
        order = torch.randperm(len(labels)).tolist()
        for start in range(0, len(order), BATCH_ROWS):
            places = order[start : start + BATCH_ROWS]
            loss = nn.functional.cross_entropy(trained(*batch(encoded, places)), labels[places], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total_loss += loss.item() * len(places)
        print(f"epoch {epoch + 1} of {EPOCHS}: training loss {total_loss / len(labels):.4f}", flush=True)
    return trained.eval()


def numbers(side: list[Name]) -> Tensor:
    """The labels of these names: int64 [rows]."""
    return torch.tensor([LANGUAGES.index(name.language) for name in side])


def main() -> None:
    """Data, split, training, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = names(download(Path(folder)))
    print(f"read {len(found)} names in {len(LANGUAGES)} languages from {PACKAGE}", flush=True)

    training = [name for name in found if trains(name.concept)]
    held_out = [name for name in found if not trains(name.concept)]
    held_out = [held_out[place] for place in torch.randperm(len(held_out)).tolist()]
    with (FOLDER / "words.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["text", "label", "concept"])
        writer.writerows(held_out)
    print(f"wrote words.csv: {len(held_out)} held-out rows", flush=True)

    tokenizer = write_tokenizer([name.text for name in training])
    encoded = [encoding.ids for encoding in tokenizer.encode_batch([name.text for name in training])]
    trained = train(encoded, numbers(training))
    save_file(trained.state_dict(), WEIGHTS)
    print(f"trained on {len(training)} rows, wrote weights.safetensors", flush=True)

    encoded = [encoding.ids for encoding in tokenizer.encode_batch([name.text for name in held_out])]
    with torch.inference_mode():
        answers = model()(*batch(encoded, list(range(len(encoded))))).argmax(1)
    right = int((answers == numbers(held_out)).sum())
    print(f"top-1 on words.csv: {right / len(held_out):.2%} ({right} of {len(held_out)})")


if __name__ == "__main__":
    main()
