"""Trains pooler and classifier on rated review snippets and writes head.safetensors and reviews.csv."""

import csv
import sys
import tempfile
from pathlib import Path
from typing import Final

import torch
from model import LABELS, encoder_folder, model, network
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertForSequenceClassification

FOLDER: Final = Path(__file__).parent
# The data and the split are those of reviews-minilm.
sys.path.append(str(FOLDER.parent / "reviews-minilm"))

from snippets import PACKAGE, Snippet, download, snippets, split  # noqa: E402

SEED: Final = 20261122
BATCH_ROWS: Final = 64
EPOCHS: Final = 12
PEAK_LEARNING_RATE: Final = 1e-3
WEIGHT_DECAY: Final = 0.1


def batches(texts: list[str]) -> list[tuple[list[int], Tensor, Tensor]]:
    """Places in `texts`, token ids and mask, a batch at a time: texts of like length together, none of them cut."""
    tokenizer = Tokenizer.from_file(str(encoder_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda place: len(encoded[place]))
    made = []
    for start in range(0, len(order), BATCH_ROWS):
        places = order[start : start + BATCH_ROWS]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(encoded[place]) for place in places], batch_first=True)
        mask = (ids != 0).long()
        made.append((places, ids, mask))
    return made


def numbers(side: list[Snippet]) -> Tensor:
    """The labels of these snippets: int64 [rows], 1 where positive."""
    return torch.tensor([int(snippet.positive) for snippet in side])


def first_states(classifier: BertForSequenceClassification, side: list[Snippet]) -> Tensor:
    """What the encoder says of each text at its first token: [rows, 384]. Nothing trained here comes before that."""
    states = torch.empty(len(side), classifier.config.hidden_size)
    with torch.inference_mode():
        for places, ids, mask in batches([snippet.text for snippet in side]):
            states[places] = classifier.bert(ids, mask).last_hidden_state[:, 0]
    return states


def train(classifier: BertForSequenceClassification, states: Tensor, labels: Tensor) -> None:
    """A fixed number of epochs over pooler and classifier: nothing is chosen by looking at the evaluation rows."""
    pooler, head = classifier.bert.pooler, classifier.classifier
    dropout = nn.Dropout(0.3)
    parameters = [*pooler.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * -(-len(labels) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(labels))
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            logits = head(dropout(pooler(dropout(states[batch])[:, None])))
            loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def write_rows(side: list[Snippet]) -> None:
    """The evaluation rows as people read them."""
    with (FOLDER / "reviews.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["text", "label", "review"])
        writer.writerows([snippet.text, LABELS[snippet.positive], snippet.review] for snippet in side)


def main() -> None:
    """Data, split, training, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = snippets(download(Path(folder)))
    print(f"read {len(found)} snippets with a rating above or below 0 from {PACKAGE}", flush=True)

    training, held_out = split(found)
    # The same order as in reviews-minilm: row for row the same texts.
    held_out = [held_out[place] for place in torch.randperm(len(held_out)).tolist()]
    write_rows(held_out)
    print(f"wrote reviews.csv: {len(held_out)} held-out rows", flush=True)

    classifier = network()
    states = first_states(classifier, training)
    print(f"encoded {len(training)} training rows", flush=True)
    train(classifier, states, numbers(training))
    state = classifier.state_dict()
    trained = {name: weight for name, weight in state.items() if name.startswith(("bert.pooler", "classifier"))}
    save_file(trained, FOLDER / "head.safetensors")
    print("wrote head.safetensors", flush=True)

    trained_model, answers = model(), torch.empty(len(held_out), dtype=torch.int64)
    with torch.inference_mode():
        for places, ids, mask in batches([snippet.text for snippet in held_out]):
            answers[places] = trained_model(ids, mask).logits.argmax(1)
    right = answers == numbers(held_out)
    print(f"top-1 on reviews.csv: {right.float().mean():.2%} ({int(right.sum())} of {len(right)})")
    print(f"top-1 on its first 1,000 rows: {int(right[:1000].sum())} of 1000")


if __name__ == "__main__":
    main()
