"""Fits the sentiment head on rated review snippets and writes weights.safetensors, eval.npz and train.npz."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from model import encoder_folder, model, network
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.preprocessing import StandardScaler
from snippets import PACKAGE, Snippet, download, snippets, split
from tokenizers import Tokenizer
from torch import Tensor

FOLDER: Final = Path(__file__).parent
SEED: Final = 20261122
TOKENS: Final = 32
BATCH_ROWS: Final = 64
DEAD: Final = 1e-4
REGULARIZATIONS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
"""Inverse L2 strengths that cross-validation on the training rows chooses from."""


class Rows(NamedTuple):
    """Tokenized snippets: int64 [rows, 32] twice, int64 [rows] twice."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    cluster: Tensor


def tokenized(side: list[Snippet], clusters: dict[str, int]) -> Rows:
    """Cut or padded to 32 tokens, the start and end tokens included."""
    tokenizer = Tokenizer.from_file(str(encoder_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    encodings = tokenizer.encode_batch([snippet.text for snippet in side])
    return Rows(
        torch.tensor([encoding.ids for encoding in encodings]),
        torch.tensor([encoding.attention_mask for encoding in encodings]),
        torch.tensor([int(snippet.positive) for snippet in side]),
        torch.tensor([clusters[snippet.review] for snippet in side]),
    )


def fit(embeddings: NDArray[np.float32], training: Rows) -> tuple[Tensor, Tensor]:
    """Logistic regression on the embeddings [rows, 384] as a layer's weight [2, 384] and bias [2]."""
    # Three dims of this encoder are dead (values around 1e-32): scaled to one they would carry weights of 1e30,
    # which turn the rounding of any other runtime or numerics into noise.
    alive = embeddings.std(axis=0) > DEAD
    scaler = StandardScaler().fit(embeddings[:, alive])
    scaled = scaler.transform(embeddings[:, alive]).astype(np.float64)
    labels, clusters = training.labels.numpy(), training.cluster.numpy()

    def folded_accuracy(strength: float) -> float:
        folds = GroupKFold(5, shuffle=True, random_state=SEED)
        regression = LogisticRegression(C=strength, max_iter=1000)
        return float(cross_val_score(regression, scaled, labels, groups=clusters, cv=folds).mean())

    strength = max(REGULARIZATIONS, key=folded_accuracy)
    print(f"C={strength} is best in cross-validation: {folded_accuracy(strength):.2%}", flush=True)
    regression = LogisticRegression(C=strength, max_iter=1000).fit(scaled, labels)
    # The scaling is folded into the layer; half to each class gives the same softmax.
    weight = np.zeros(embeddings.shape[1])
    weight[alive] = regression.coef_[0] / scaler.scale_
    bias = regression.intercept_[0] - weight[alive] @ scaler.mean_
    halves = torch.tensor([[-0.5], [0.5]], dtype=torch.float64)
    layer_weight = halves * torch.from_numpy(weight)
    layer_bias = halves[:, 0] * float(bias)
    return layer_weight.float(), layer_bias.float()


def batched(answer: Callable[[Tensor, Tensor], Tensor], rows: Rows) -> Tensor:
    """What `answer` gives for all rows, computed a batch at a time."""
    slices = [slice(start, start + BATCH_ROWS) for start in range(0, len(rows.labels), BATCH_ROWS)]
    with torch.inference_mode():
        return torch.cat([answer(rows.input_ids[batch], rows.attention_mask[batch]) for batch in slices])


def main() -> None:
    """Data, split, fit, files, and the score that the README states."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        found = snippets(download(Path(folder)))
    print(f"read {len(found)} snippets with a rating above or below 0 from {PACKAGE}", flush=True)

    training_side, held_out_side = split(found)
    reviews = dict.fromkeys(snippet.review for snippet in found)
    clusters = {review: number for number, review in enumerate(reviews)}
    training = tokenized(training_side, clusters)
    held_out = tokenized(held_out_side, clusters)
    # Mixed, so that the first rows alone are a fair sample of both kinds of review.
    order = torch.randperm(len(held_out.labels))
    held_out = Rows(*(column[order] for column in held_out))
    for name, rows in (("eval", held_out), ("train", training)):
        np.savez_compressed(
            FOLDER / f"{name}.npz", **{field: column.numpy() for field, column in rows._asdict().items()}
        )
        print(f"wrote {name}.npz: {len(rows.labels)} rows", flush=True)

    embeddings = batched(network().embed, training)
    print(f"embedded {len(embeddings)} training rows", flush=True)
    weight, bias = fit(embeddings.numpy(), training)
    save_file({"weight": weight, "bias": bias}, FOLDER / "weights.safetensors")
    print("wrote weights.safetensors", flush=True)

    right = batched(model(), held_out).argmax(1) == held_out.labels
    print(f"top-1 on eval.npz: {right.float().mean():.2%} ({int(right.sum())} of {len(right)})")
    print(f"top-1 on its first 1,000 rows: {int(right[:1000].sum())} of 1000")


if __name__ == "__main__":
    main()
