import dataclasses
import struct
from pathlib import Path

import pytest
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from distilrubert.common.measurements import Measurements, Row
from distilrubert.model_card.card_pictures import draw_quality, draw_speed, draw_training, write_pictures
from distilrubert.model_card.card_view import PICTURES
from distilrubert.model_card.drawing import PIXELS_PER_INCH
from distilrubert.model_card.inputs import CardInput
from tests.model_card.example_run import task_report


def test_pictures_are_pngs_of_card_width_and_the_same_each_time(run: CardInput, tmp_path: Path) -> None:
    bins = [{"prediction": 0.1 * place, "reference": 0.2, "reference_std": 0.1, "rows": 7} for place in range(3)]
    run = dataclasses.replace(run, finetuning=task_report(score_bins=bins))
    write_pictures(run, tmp_path / "one")
    write_pictures(run, tmp_path / "two")
    assert {path.name for path in (tmp_path / "one").iterdir()} == PICTURES.keys()
    for picture in (tmp_path / "one").iterdir():
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG")
        (width,) = struct.unpack(">I", content[16:20])
        assert width == round(7.6 * PIXELS_PER_INCH)
        assert b"matplotlib" not in content.lower()
        assert content == (tmp_path / "two" / picture.name).read_bytes()


def test_a_picture_without_its_report_is_removed(run: CardInput, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    write_pictures(run, assets)
    write_pictures(dataclasses.replace(run, speed=None, quality=None), assets)
    assert [path.name for path in assets.iterdir()] == ["training.png"]


def _with_speeds(run: CardInput, points: list[tuple[str, float, float]]) -> Measurements:
    assert run.speed is not None
    rows = [Row(case, {"size_mib": size, "samples_per_s": samples}) for case, size, samples in points]
    return dataclasses.replace(run.speed, rows=rows)


FORMATS = (
    "pytorch-fp32",
    "onnx-fp32",
    "onnx-int8",
    "onnx-int8-avx2",
    "openvino-fp32",
    "openvino-fp16",
    "openvino-int8",
)
FAMILY = [
    ("teacher-pytorch-fp32", 679, 1.54),
    ("student-pytorch-fp32", 517, 3.25),
    ("student-onnx-fp32", 514, 3.38),
    ("student-onnx-int8", 129, 7.74),
    ("student-openvino-fp32", 514, 3.6),
    ("student-openvino-int8", 129, 12.3),
]
TINY = [
    ("teacher-pytorch-fp32", 679, 1.54),
    ("student-pytorch-fp32", 41, 31.0),
    ("student-onnx-fp32", 39, 36.0),
    ("student-onnx-int8", 10, 54.0),
    ("student-openvino-int8", 9, 92.0),
]
DEMO = [
    ("teacher-pytorch-fp32", 12.1, 40.0),
    ("student-pytorch-fp32", 8.4, 77.0),
    ("student-onnx-fp32", 7.9, 98.0),
    ("student-onnx-int8", 2.1, 120.0),
]


# What the reference run measured: three files of nearly the same size and speed, and three more in one corner.
REFERENCE = [
    ("teacher-pytorch-fp32", 63.3, 9.49),
    ("student-pytorch-fp32", 86.0, 18.9),
    ("student-onnx-fp32", 85.4, 15.6),
    ("student-onnx-int8", 21.8, 24.8),
    ("student-onnx-int8-avx2", 21.8, 15.7),
    ("student-onnx-int8-avx512-vnni", 21.8, 25.7),
    ("student-openvino-fp32", 85.3, 68.7),
    ("student-openvino-int8", 21.7, 64.7),
]
# Everything at one place.
CROWD = [(f"student-{case}", 50.0, 20.0 + place / 10) for place, case in enumerate(FORMATS)]


@pytest.mark.parametrize("points", [FAMILY, TINY, DEMO, REFERENCE, CROWD])
def test_labels_cover_neither_each_other_nor_points_and_stay_inside(
    run: CardInput, points: list[tuple[str, float, float]]
) -> None:
    picture = draw_speed(_with_speeds(run, points))
    assert picture is not None
    picture.draw_without_rendering()
    (axes,) = picture.axes
    boxes = [text.get_window_extent() for text in axes.texts if "samples/s" in text.get_text()]
    assert len(boxes) == len(points)
    for place, box in enumerate(boxes):
        assert not any(Bbox.intersection(box, other) for other in boxes[place + 1 :])
        assert not any(box.contains(*axes.transData.transform(point[1:])) for point in points)
        assert picture.bbox.containsx(box.x0)
        assert picture.bbox.containsx(box.x1)
        assert picture.bbox.containsy(box.y0)
        assert picture.bbox.containsy(box.y1)


def test_training_curves_run_over_tokens_with_held_out_text_at_its_place(run: CardInput) -> None:
    picture = draw_training(run.training)
    assert picture is not None
    assert [axes.get_title(loc="left") for axes in picture.axes] == [
        "Total loss", "KL to the teacher", "Masked-token loss", "Cosine distance of hidden states",
    ]  # fmt: skip
    training, held_out = picture.axes[1].get_lines()
    assert training.get_xdata()[-1] == 1880 * 9_411
    assert held_out.get_xdata()[0] == 500 * 9_411  # the measurement after update 500


def test_quality_bars_carry_their_values(run: CardInput) -> None:
    picture = draw_quality(run.quality)
    assert picture is not None
    (axes,) = picture.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "RuSentiment\nweighted F1", "FactRuEval | NER\nspan F1",
    ]  # fmt: skip
    written = {child.get_text() for child in axes.get_children() if isinstance(child, Annotation)}
    assert written == {
        *("0.774 ± 0.002", "0.764 ± 0.004", "0.763 ± 0.004", "0.669", "0.535"),
        *("0.882 ± 0.003", "0.854 ± 0.003", "0.851 ± 0.003"),
    }
    assert len(axes.patches) == 8


def test_nothing_to_draw(run: CardInput, tmp_path: Path) -> None:
    write_pictures(dataclasses.replace(run, speed=None, training=None, quality=None), tmp_path / "none")
    assert not (tmp_path / "none").exists()
