"""The reference release's checkpoint, and files that only look like one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pars import ngram
from trainer.__main__ import main
from trainer.checkpoint import read_checkpoint
from trainer.errors import CheckpointError
from trainer.evaluate import rank_metrics
from trainer.local import LocalSource
from trainer.ranker import Ranker
from trainer.records import Records
from trainer.release import import_release


def trainer(*words: str | Path) -> int:
    """The command line, in this process."""
    return main([str(word) for word in words])


class ReleaseRanker(torch.nn.Module):
    """The released ranker's shape: an encoder, its pooler's output, one linear layer."""

    def __init__(self, encoder: torch.nn.Module, hidden: int) -> None:
        super().__init__()
        self.bert = encoder
        self.fc = torch.nn.Linear(hidden, 1)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bert(**inputs).pooler_output)[:, 0]


@pytest.fixture
def release(tiny_backbone: Path) -> ReleaseRanker:
    from transformers import BertModel

    torch.manual_seed(3)
    return ReleaseRanker(BertModel.from_pretrained(tiny_backbone), 32).eval()


@pytest.mark.parametrize("wrapper", [None, "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_release_checkpoint_keeps_its_scores(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, records: Records, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in release.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "best_model.pt")
    import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint", max_tokens=32)
    ranker = read_checkpoint(tmp_path / "checkpoint").ranker
    ids = ranker.tokenize(records.prompt[:50])
    with torch.no_grad():
        wanted = release(**ranker.collate(ids)).numpy()
    scores = ranker.score(ids)
    np.testing.assert_allclose(scores, wanted, atol=2e-3)  # the folder holds fp16
    assert rank_metrics(scores, wanted.astype(float), min_gap=0.0).tau_b > 0.98


def test_an_imported_release_can_be_calibrated_and_then_has_everything(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, records: Records
) -> None:
    torch.save(release.state_dict(), tmp_path / "best_model.pt")
    records.save(tmp_path / "records.parquet")
    folder = str(tmp_path / "checkpoint")
    assert (
        main(
            [
                "import-release",
                str(tmp_path / "best_model.pt"),
                "--backbone",
                str(tiny_backbone),
                "--out",
                folder,
                "--max-tokens",
                "32",
            ]
        )
        == 0
    )
    assert read_checkpoint(Path(folder)).card.calibration is None
    assert (
        main(
            [
                "calibrate",
                folder,
                "--records",
                str(tmp_path / "records.parquet"),
                "--similarity",
                "0",
                "--ngram-buckets",
                "1024",
            ]
        )
        == 0
    )
    finished = read_checkpoint(Path(folder))
    assert finished.card.calibration is not None
    assert finished.ngram_weights is not None
    assert finished.ngram_weights.shape == (ngram.weight_count(1024),)
    assert trainer("evaluate", folder, "--records", tmp_path / "records.parquet") == 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda state: {k: v for k, v in state.items() if "pooler" not in k}, "without the pooler cannot be converted"),
        (lambda state: {k: v for k, v in state.items() if "layer.1" not in k}, "lacks 16 encoder weights"),
        (lambda state: {k: v for k, v in state.items() if "fc" not in k}, "found nothing"),
        (lambda state: {**state, "extra.weight": torch.zeros(1, 32)}, "expected one linear layer"),
        (lambda state: {**state, "fc.weight": torch.zeros(1, 16)}, "does not fit"),
        (lambda state: {"a": torch.zeros(1)}, "0 encoders"),
        (lambda state: {"epoch": 3}, "dictionary of tensors"),
    ],
)
def test_other_files_are_refused_by_name(
    tmp_path: Path, tiny_backbone: Path, release: ReleaseRanker, break_it, message: str
) -> None:  # type: ignore[no-untyped-def]
    torch.save(break_it(release.state_dict()), tmp_path / "best_model.pt")
    with pytest.raises(CheckpointError, match=message):
        import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("false",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, tiny_backbone: Path) -> None:
    torch.save({"x": Malicious()}, tmp_path / "best_model.pt")
    with pytest.raises(CheckpointError, match="plain tensors"):
        import_release(tmp_path / "best_model.pt", str(tiny_backbone), tmp_path / "checkpoint")


def test_a_folder_without_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no ranker\.json"):
        read_checkpoint(tmp_path)


def test_a_backbone_that_does_not_exist_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], records: Records
) -> None:
    records.save(tmp_path / "r.parquet")
    code = main(
        [
            "train",
            "--records",
            str(tmp_path / "r.parquet"),
            "--out",
            str(tmp_path / "run"),
            "--backbone",
            str(tmp_path / "none"),
            "--similarity",
            "0",
        ]
    )
    assert code == 1
    assert "trainer: cannot load" in capsys.readouterr().err


def test_max_tokens_beyond_the_backbone_is_refused(tiny_backbone: Path) -> None:
    with pytest.raises(CheckpointError, match="more than the 64 positions"):
        Ranker.load(tiny_backbone, 128)


def test_prepare_writes_records_another_run_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "Why?", "a": "because of this"}\n{"q": "How?", "a": "so"}\n')
    out = tmp_path / "records.parquet"
    assert (
        main(
            [
                "prepare",
                "--source",
                str(tmp_path / "rows.jsonl"),
                "--prompt-column",
                "q",
                "--response-column",
                "a",
                "--length-unit",
                "words",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert "2 records, 2 prompts, 1 models" in capsys.readouterr().out
    assert LocalSource(out).load().response_tokens.tolist() == [3.0, 1.0]
