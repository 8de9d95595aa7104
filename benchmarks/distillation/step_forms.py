"""A distillation step in each of its forms: the process that ``steps.py`` asks, a new one for each value.

Axes: B batch, L tokens, N chosen tokens, D width, V vocabulary.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    XLMRobertaConfig,
)

from distilrubert.common.processes import peak_memory_mib
from distilrubert.common.training.padding import IGNORED
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.common.training.update import build_optimizer
from distilrubert.distill.losses.chunks import HeadInput
from distilrubert.distill.losses.encoding import FrozenModel, encode, recompute_layers
from distilrubert.distill.losses.objective import Objective
from distilrubert.distill.objective_settings import ObjectiveSettings
from distilrubert.evaluation.speed.speed_worker import serve
from distilrubert.modeling.families import family_of
from distilrubert.modeling.heads import states_of

KL, MLM, COSINE = 5.0, 2.0, 1.0
TEMPERATURE = 2.0
LABELLED = 0.15

Batch = dict[str, Tensor]
Step = Callable[[Batch], Tensor]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Sizes of the models and the batch; the defaults are those of the card's base student and its teacher.

    The student of a ``bert`` is a DistilBERT, that of an ``xlm-roberta`` or a ``modernbert`` of its teacher's class.
    """

    family: str = dataclasses.field(default="bert", kw_only=True)
    vocabulary: int = 119_547
    teacher_layers: int = 12
    student_layers: int = 6
    width: int = 768
    heads: int = 12
    inner_width: int = 3072
    sequences: int = 16
    length: int = 64

    @property
    def tokens(self) -> int:
        """Of a step, none of them padding."""
        return self.sequences * self.length


def flop_per_token(shapes: Shapes, positions: float) -> float:
    """Multiplications and additions of a step for each token, in products of matrices alone.

    A backward pass has two products for each of the forward pass.

    Args:
        shapes: of models and batch.
        positions: share of the tokens whose predictions are computed.
    """
    width = shapes.width
    # A ModernBERT has a gate in its feed-forward networks, a third product. Its windows are wider than the sequences.
    inner_products = 3 if shapes.family == "modernbert" else 2
    block = 2 * (4 * width**2 + inner_products * width * shapes.inner_width) + 4 * shapes.length * width
    head = 2 * width**2 + 2 * width * shapes.vocabulary
    return block * (shapes.teacher_layers + 3 * shapes.student_layers) + positions * head * (1 + 3)


def same_class_config(shapes: Shapes, layers: int) -> PretrainedConfig:
    """The configuration of a teacher or a student of the same class, without dropout."""
    sizes = {
        "vocab_size": shapes.vocabulary,
        "hidden_size": shapes.width,
        "num_hidden_layers": layers,
        "num_attention_heads": shapes.heads,
        "intermediate_size": shapes.inner_width,
        "pad_token_id": 1,
    }
    if shapes.family == "modernbert":
        config = ModernBertConfig(**sizes, bos_token_id=0, cls_token_id=0, eos_token_id=2, sep_token_id=2)
        family_of(config).complete(config)
        return config
    return XLMRobertaConfig(
        **sizes,
        max_position_embeddings=2 + max(512, shapes.length),
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def build_teacher(shapes: Shapes) -> PreTrainedModel:
    """A teacher of random weights."""
    if shapes.family != "bert":
        config = same_class_config(shapes, shapes.teacher_layers)
        return AutoModelForMaskedLM.from_config(config).eval().requires_grad_(False)
    config = BertConfig(
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.width,
        num_hidden_layers=shapes.teacher_layers,
        num_attention_heads=shapes.heads,
        intermediate_size=shapes.inner_width,
        max_position_embeddings=max(512, shapes.length),
    )
    return BertForMaskedLM(config).eval().requires_grad_(False)


def build_student(shapes: Shapes) -> PreTrainedModel:
    """A student of random weights, without dropout."""
    if shapes.family != "bert":
        return AutoModelForMaskedLM.from_config(same_class_config(shapes, shapes.student_layers)).train()
    config = DistilBertConfig(
        vocab_size=shapes.vocabulary,
        dim=shapes.width,
        n_layers=shapes.student_layers,
        n_heads=shapes.heads,
        hidden_dim=shapes.inner_width,
        max_position_embeddings=max(512, shapes.length),
        dropout=0.0,
        attention_dropout=0.0,
    )
    return DistilBertForMaskedLM(config).train()


def random_batch(shapes: Shapes) -> Batch:
    """Tokens without padding, LABELLED of them to be predicted."""
    ids = torch.randint(5, shapes.vocabulary, (shapes.sequences, shapes.length))
    labelled = torch.zeros(shapes.tokens, dtype=torch.bool)
    labelled[torch.randperm(shapes.tokens)[: round(LABELLED * shapes.tokens)]] = True
    labels = torch.where(labelled.view_as(ids), ids, IGNORED)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class Outputs(NamedTuple):
    """Whole logits and hidden states of a model."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


def run_both(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> tuple[Outputs, Outputs]:
    """What both models put out."""
    with torch.no_grad():
        theirs = _run(teacher, batch)
    return _run(student, batch), theirs


def _run(model: PreTrainedModel, batch: Batch) -> Outputs:
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    states: list[Tensor] = []
    # A masked language model does not put out its encoder's last state, which a ModernBERT normalises.
    with model.base_model.register_forward_hook(lambda _, __, output: states.extend(states_of(output))):
        return Outputs(model(**inputs, output_hidden_states=True).logits, tuple(states))


def block_means(states: tuple[Tensor, ...], blocks: int) -> list[Tensor]:
    """The mean of each of the equal parts of the layers."""
    size = (len(states) - 1) // blocks
    return [sum(states[1 + k * size : 1 + (k + 1) * size]) / size for k in range(blocks)]


def reference_step(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """The losses as the distillation script of Hugging Face's research projects computes them.

    Logits of all tokens, the real ones picked by a mask as large as the logits, each intermediate a copy. From its
    formulas; its cosine is taken here for each pair of layers, as the card of the base student has it.
    """
    ours, theirs = run_both(student, teacher, batch)
    mask = batch["attention_mask"].bool().unsqueeze(-1).expand_as(ours.logits)
    s_logits = torch.masked_select(ours.logits, mask).view(-1, ours.logits.size(-1))
    t_logits = torch.masked_select(theirs.logits, mask).view(-1, theirs.logits.size(-1))
    kl = nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(s_logits / TEMPERATURE, dim=-1), F.softmax(t_logits / TEMPERATURE, dim=-1)
    )
    every_logits = ours.logits.view(-1, ours.logits.size(-1))
    mlm = nn.CrossEntropyLoss(ignore_index=IGNORED)(every_logits, batch["labels"].view(-1))
    cosines = []
    pairs = zip(ours.hidden_states[1:], block_means(theirs.hidden_states, len(ours.hidden_states) - 1), strict=True)
    for own, its in pairs:
        mask = batch["attention_mask"].bool().unsqueeze(-1).expand_as(own)
        rows = [torch.masked_select(states, mask).view(-1, states.size(-1)) for states in (own, its)]
        cosines.append(nn.CosineEmbeddingLoss()(*rows, torch.ones(len(rows[0]), device=own.device)))
    return KL * TEMPERATURE**2 * kl + MLM * mlm + COSINE * torch.stack(cosines).mean()


def plain_step(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """The same on views of the logits, without a copy that the formulas do not ask for."""
    ours, theirs = run_both(student, teacher, batch)
    s_logits, t_logits = ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1)
    kl = F.kl_div(
        F.log_softmax(s_logits / TEMPERATURE, dim=-1),
        F.log_softmax(t_logits / TEMPERATURE, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    mlm = F.cross_entropy(s_logits, batch["labels"].flatten(), ignore_index=IGNORED)
    pairs = zip(ours.hidden_states[1:], block_means(theirs.hidden_states, len(ours.hidden_states) - 1), strict=True)
    cosines = [1 - F.cosine_similarity(own, its, dim=-1).mean() for own, its in pairs]
    return KL * TEMPERATURE**2 * kl + MLM * mlm + COSINE * torch.stack(cosines).mean()


class LigerLoss:
    """KL and MLM by Liger's fused linear distillation loss, in place of the project's own.

    Its divergence is over the rows with a label, and so it does the work of `masked` positions alone.

    Attributes:
        compiled: whether torch.compile is used, as it is by default there.
    """

    compiled = True

    def __init__(self) -> None:
        # The package need not be there.
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        self._kind = LigerFusedLinearJSDLoss

    def __call__(
        self, student: HeadInput, teacher: HeadInput, labels: Tensor, kl_scale: float, mlm_scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`~distilrubert.distill.losses.vocabulary.VocabularyLoss`; the parts of the total are not given."""
        rows = len(labels)
        weights = mlm_scale * rows, kl_scale * TEMPERATURE**2 * rows
        # With this beta the divergence is KL, teacher first.
        loss = self._kind(*weights, beta=0.0, temperature=TEMPERATURE, compiled=self.compiled)
        heads = student.hidden_ND, student.weight_VD, teacher.hidden_ND, teacher.weight_VD
        unknown = student.hidden_ND.new_zeros(())
        return loss(*heads, labels, student.bias_V, teacher.bias_V), unknown, unknown


def fused_step(student: nn.Module, teacher: nn.Module, form: str, kind: str = "fused") -> Step:
    """The project's own: over `all` positions or the `masked` ones, or over all with blocks `recomputed`.

    That `recomputed-mapped` gives memory back to the system at once is for the environment to see to.

    Args:
        student: the student.
        teacher: the teacher.
        form: which positions.
        kind: `fused`, `compiled`, or `liger`: compiled, with Liger's loss over the vocabulary.
    """
    weights = {"kl": KL, "mlm": MLM, "cosine": COSINE}
    positions = "masked" if form == "masked" else "all"
    if form.startswith("recomputed"):
        recompute_layers(student, training=True)
    objective = Objective(student, teacher, ObjectiveSettings(weights=weights, kl_positions=positions))
    objective.to(next(student.parameters()).device)
    objective.set_compiled(compiled=kind != "fused")
    if kind == "liger":
        objective.terms["vocabulary"].loss = LigerLoss()

    def step(batch: Batch) -> Tensor:
        counts = {name: float(rows) for name, rows in objective.counts(batch).items()}
        return objective(batch, counts)["loss"]

    return step


def measure_step(task: Mapping[str, Any]) -> dict[str, float]:
    """Run the steps of a case: seconds of those after the first and of their parts, and the process's largest memory.

    The forward pass includes that of the teacher; in the fused forms also the gradients of the vocabulary's losses.
    """
    shapes, device = Shapes(**task["shapes"]), torch.device(task["device"])
    form, _, precision = task["form"].rpartition("-")
    teacher, student = build_teacher(shapes).to(device), build_student(shapes).to(device)
    kind, _, rest = form.partition("-")
    if kind in ("fused", "compiled", "liger"):
        step = fused_step(student, teacher, rest, kind)
    else:
        compute = {"reference": reference_step, "plain": plain_step}[kind]

        def step(batch: Batch) -> Tensor:
            return compute(student, teacher, batch)

    optimizer = build_optimizer(student, OptimizationSettings())
    times: list[list[float]] = []
    for _ in range(1 + task["steps"]):
        batch = {name: tensor.to(device) for name, tensor in random_batch(shapes).items()}
        times.append([now(device)])
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = step(batch)
        times[-1].append(now(device))
        loss.backward()
        times[-1].append(now(device))
        optimizer.step()
        optimizer.zero_grad()
        times[-1].append(now(device))
    assert loss.isfinite()
    parts = np.median(np.diff(times[1:], axis=1), axis=0).tolist()
    return {
        "step_s": statistics.median(ends[-1] - ends[0] for ends in times[1:]),
        **dict(zip(("forward_s", "backward_s", "optimizer_s"), parts, strict=True)),
        "peak_memory_mib": _peak_mib(device),
    }


def measure_rates(task: Mapping[str, Any]) -> dict[str, float]:
    """Rates of the machine, GFLOP/s: of products of 2048 × 2048 matrices, and of the teacher's forward pass."""
    shapes, device = Shapes(**task["shapes"]), torch.device(task["device"])
    teacher, batch = FrozenModel(build_teacher(shapes).to(device)), random_batch(shapes)
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    encoder_flop = flop_per_token(dataclasses.replace(shapes, student_layers=0), 0) * shapes.tokens
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        square = torch.randn(2048, 2048, device=device, dtype=dtype)
        out = torch.empty_like(square)
        product_s = fastest(lambda square=square, out=out: torch.mm(square, square, out=out), device)
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16):
            model, _ = teacher.get()
            model_s = fastest(lambda model=model: encode(model, batch, ()), device)
        rates |= {f"product_{name}": 2 * 2048**3 / product_s / 1e9, f"model_{name}": encoder_flop / model_s / 1e9}
    return rates


def fastest(call: Callable[[], Any], device: torch.device, repeats: int = 10) -> float:
    """The least time of a call in seconds, after one that does not count."""
    call()
    seconds = []
    for _ in range(repeats):
        began = now(device)
        call()
        seconds.append(now(device) - began)
    return min(seconds)


def now(device: torch.device) -> float:
    """Seconds, when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_mib(device: torch.device) -> float:
    """The largest memory so far: of the GPU where it is used, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory_mib()


class StepWorker:
    """Answers the commands of the measuring process."""

    def measure(self, **task: Any) -> dict[str, float]:
        """Time a case, or measure the rates of the machine."""
        torch.set_num_threads(task["threads"])
        torch.manual_seed(0)
        return measure_rates(task) if task["form"] == "rates" else measure_step(task)


if __name__ == "__main__":
    serve(StepWorker())
