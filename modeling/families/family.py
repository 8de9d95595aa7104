"""What the program knows of one architecture: the form of the description.

A model is taken apart into weights by role. These are the roles; a family says which module has each.

| place | roles |
|---|---|
| encoder | ``words``, ``positions``, ``token_types``, ``embeddings_norm``, ``final_norm`` |
| layer | ``query``, ``key``, ``value``, ``attention_output``, ``attention_norm``, ``inner``, ``gate``, ``outer``, |
| | ``feed_forward_norm`` |
| head | ``transform``, ``transform_norm``, ``decoder`` |

A recipe is read without torch or transformers, so the modules of this folder import them in functions only.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

    from distilrubert.modeling.architecture import ResolvedArchitecture

ConfigFile = Mapping[str, Any]
"""The content of a config.json."""
Weights = dict[str, "Tensor"]
"""Weights by place and role: ``words.weight``, ``layers.3.query.bias``, ``head.decoder.weight``."""


def _one_kind(config: "PretrainedConfig", layers: int) -> Sequence[str]:
    return ("",) * layers


def _as_they_are(weights: Weights, teacher: "PretrainedConfig", student: "PretrainedConfig") -> Weights:
    return weights


@dataclasses.dataclass(frozen=True)
class Family:
    """One architecture: where its weights are, what is refused, and what its students are.

    Attributes:
        title: its name in messages.
        model_types: as config.json names its members; they have the same modules.
        encoder: roles of the encoder's modules, by their names in it.
        layers: name of the list of layers in the encoder.
        layer: roles of a layer's modules; where a module fuses several maps, all roles in the order of its rows.
        head: roles of the modules of the masked-language head, by their names in the model.
        head_activation: the function between the head's transform and its norm, by transformers' name.
        student_config: the configuration of a student of this shape; it gives what a teacher's special ids are, too.
        required: the values that a setting of config.json may have, the one that it has by default first.
        activation: the setting of config.json that names the activation.
        inner_width: the setting that has the width inside the feed-forward networks.
        student: the family of its students; None for this one.
        refusal: what else config.json says that cannot be followed; None for nothing.
        remark: what is worth a warning in it.
        complete: fills in, in place, what one version of transformers writes and the other needs.
        layer_kinds: the kind of each of the first layers of a model; a student's layer starts from one of its own kind.
        carry: changes weights of a teacher where a student holds them in another form.
        is_rotary: whether positions are turned into queries and keys, which fixes the width of a head.
        first_position: the first row of the positions that a token has.
        has_windows: whether some layers attend to a window, so that masks have a row for each query.
        renamed: patterns of weights in some checkpoints, and what transformers calls them. Some exporters write the
            output bias under the decoder's name only, and transformers 4.57 then leaves it unset.
        not_exported: tasks, as optimum names them, of which its exporters cannot make files.
        decides: settings that change what the model computes and no weight's shape.
    """

    title: str
    model_types: tuple[str, ...]
    encoder: Mapping[str, str]
    layers: str
    layer: Mapping[str, str]
    head: Mapping[str, str]
    head_activation: Callable[["PretrainedConfig"], str]
    student_config: Callable[["PretrainedConfig", "ResolvedArchitecture", Mapping[str, int]], "PretrainedConfig"]
    required: Mapping[str, tuple[Any, ...]]
    activation: str
    decides: tuple[str, ...]
    inner_width: str = "intermediate_size"
    student: "Family | None" = None
    refusal: Callable[[ConfigFile], str | None] = lambda config: None
    remark: Callable[[ConfigFile], str | None] = lambda config: None
    complete: Callable[["PretrainedConfig"], None] = lambda config: None
    layer_kinds: Callable[["PretrainedConfig", int], Sequence[str]] = _one_kind
    carry: Callable[[Weights, "PretrainedConfig", "PretrainedConfig"], Weights] = _as_they_are
    is_rotary: bool = False
    has_windows: bool = False
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    not_exported: tuple[str, ...] = ()
    first_position: Callable[[ConfigFile], int] = lambda config: 0

    @property
    def students(self) -> "Family":
        """The family of its students."""
        return self.student or self

    def longest_input(self, config: ConfigFile) -> int:
        """The largest number of tokens that a model takes."""
        return int(config["max_position_embeddings"]) - self.first_position(config)

    def module_with(self, role: str) -> str:
        """The name, in its layer, of the module with a role."""
        return next(name for name, roles in self.layer.items() if role in roles.split())


def same_class_config(
    teacher: "PretrainedConfig", shape: "ResolvedArchitecture", special_ids: Mapping[str, int], **changes: Any
) -> "PretrainedConfig":
    """The teacher's configuration with the sizes of its student."""
    values = teacher.to_dict() | {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.dim,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.hidden_dim,
        "vocab_size": shape.vocabulary_size,
        **changes,
    }
    values |= {name: number for name, number in special_ids.items() if values.get(name) is not None}
    for name in ("architectures", "_name_or_path", "dtype", "torch_dtype"):
        values.pop(name, None)
    return type(teacher).from_dict(values)
