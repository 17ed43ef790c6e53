"""Which tensors of a checkpoint fill which parameters of a model, by the conversion mapping of transformers; experts one at a time.

E experts. A slab is the part of a parameter (E, ...) that belongs to one expert.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from moeprof.huggingface.sites import find_sites
from moeprof.records.system.files import reason
from moeprof.store.checkpoint_folder import CONFIG, CheckpointFolder
from moeprof.store.tensor_files import Stored, TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.core_model_loading import WeightConverter
    from transformers.utils.loading_report import LoadStateDictInfo

ALIKE = "Save the experts of a layer with one shape and one type."
OTHER_MODEL = "Use the config.json that belongs to these weights."


@dataclass
class Target:
    """What fills a parameter or buffer: tensors of the checkpoint, and the operations that combine them if there are any."""

    name: str
    converter: "WeightConverter | None"
    sources: dict[str, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    """Tensors by the pattern that their names match, in natural order."""

    @property
    def names(self) -> list[str]:
        """The parameters and buffers that it fills; operations may have several outputs."""
        if self.converter is None:
            return [self.name]
        first, *_ = patterns = self.converter.target_patterns
        return [self.name.replace(first, pattern) for pattern in patterns]

    @property
    def stored(self) -> list[Stored]:
        """All tensors that it reads."""
        return [each for tensors in self.sources.values() for each in tensors]

    @property
    def stacks(self) -> bool:
        """Whether it is made of tensors of single experts."""
        return any(name == "MergeModulelist" for name, _ in operations(self))

    @property
    def patterns(self) -> list[str]:
        """The patterns that have tensors, in the order in which operations take them."""
        return [each for each in (self.converter.source_patterns if self.converter else self.sources) if each in self.sources]


class WeightMap:
    """The targets of all tensors of a folder in a model, which may be on the meta device."""

    def __init__(self, folder: CheckpointFolder, model: "PreTrainedModel") -> None:
        """UsageError if a tensor has no target, a parameter no tensor, an expert is missing or twice, or types or shapes differ."""
        self.folder, self.model = folder, model
        self.state: dict[str, Tensor] = model.state_dict()
        self.targets: dict[str, Target] = {}
        unmatched = self.match()
        covered = {name for target in self.targets.values() for name in target.names}
        self.check_names(with_tied(covered, model.all_tied_weights_keys), unmatched)
        self.parts: dict[str, list[Part]] = {}
        self.why_not: dict[str, str] = {}
        for target in self.targets.values():
            self.check(target)

    def match(self) -> set[str]:
        """Finds the target of every tensor; returns names without one. The order of names matters to some renamings."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, dot_natural_key, rename_source_key

        transforms = get_model_conversion_mapping(self.model)
        converters = [each for each in transforms if isinstance(each, WeightConverter)]
        renamings = [each for each in transforms if not isinstance(each, WeightConverter)]
        of_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
        prefix, unmatched = self.model.base_model_prefix, set()
        for key in sorted(self.folder.tensors, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, self.state)
            if name not in self.state and key in self.state:
                name, pattern = rename_source_key(key, [], [], prefix, self.state)
            if name not in self.state:
                unmatched.add(name)
                continue
            target = self.targets.setdefault(name, Target(name, of_pattern.get(pattern)))
            target.sources[pattern or key].append(self.folder.tensors[key])
        return unmatched

    def check_names(self, covered: set[str], unmatched: set[str]) -> None:
        """UsageError for names without a target and parameters without a tensor, unless the model's class expects them."""
        info = loading_info(missing=set(self.state) - covered, unexpected=unmatched)
        self.model._adjust_missing_and_unexpected_keys(info)
        if info.unexpected_keys:
            name = min(info.unexpected_keys)
            raise self.folder.refused(f"{name} is no parameter of {type(self.model).__name__}", OTHER_MODEL)
        if info.missing_keys:
            name = min(info.missing_keys)
            raise self.folder.refused(f"{name} of {type(self.model).__name__} is in none of its files of weights")

    def check(self, target: Target) -> None:
        """Finds out how single experts are read; UsageError if tensors of the target are incomplete or differ."""
        if target.converter is None and len(target.stored) > 1:
            first, second, *_ = sorted(each.name for each in target.stored)
            raise self.folder.refused(f"{target.name} is there twice, as {first} and {second}")
        for tensors in target.sources.values():
            if target.stacks:
                self.check_experts(target.name, tensors)
        shape = tuple(self.state[target.name].shape)
        try:
            parts = parts_of(target, shape)
        except NotImplementedError as why:
            self.why_not |= dict.fromkeys(target.names, str(why))
            return
        if (found := whole_shape(parts)) != shape:
            raise self.folder.refused(f"{target.name} is {found}, {CONFIG} makes it {shape}", OTHER_MODEL)
        self.parts[target.name] = parts

    def check_experts(self, name: str, tensors: Sequence[Stored]) -> None:
        """UsageError if tensors of single experts are not those of experts 0 to E - 1, or not of one shape and type."""
        seen: dict[int, Stored] = {}
        first, num_experts = tensors[0], len(self.state[name])
        for expert, tensor in zip(expert_ids(tensors), tensors, strict=True):
            if expert in seen:
                raise self.folder.refused(f"expert {expert} of {name} is there twice, as {seen[expert].name} and {tensor.name}")
            if expert >= num_experts:
                raise self.folder.refused(f"{tensor.name} is one expert too many, {CONFIG} has {num_experts}", OTHER_MODEL)
            if (tensor.shape, tensor.dtype) != (first.shape, first.dtype):
                raise self.folder.refused(f"{tensor.name} is {tensor.kind}, {first.name} is {first.kind}", ALIKE)
            seen[expert] = tensor
        if missing := next((str(expert) for expert in range(num_experts) if expert not in seen), ""):
            raise self.folder.refused(f"expert {missing} of {name} is missing; expert {min(seen)} is there as {first.name}")

    def tensors(self, target: Target, files: TensorFiles) -> dict[str, Tensor]:
        """What the target fills, by name, in the types of the model; UsageError if its operations fail."""
        from transformers.core_model_loading import SkipParameters

        dtype = self.state[target.name].dtype
        if target.converter is None:
            return {target.name: files.tensor(target.stored[0], dtype)}
        info, converter = loading_info(), deepcopy(target.converter)
        for pattern, sources in target.sources.items():
            for source in sources:
                converter.add_tensor(target.name, source.name, pattern, partial(files.tensor, source, dtype))
        try:
            found = converter.convert(target.name, model=self.model, config=self.model.config, loading_info=info)
        except SkipParameters as error:
            why = reason(ValueError(next(iter(info.conversion_errors.values()), "")))
            raise self.folder.refused(f"{target.name} cannot be made of its tensors: {why}", OTHER_MODEL) from error
        return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


class ExpertShards:
    """Reads single experts from the checkpoint's own files, past the page cache where that is possible; used from one thread."""

    def __init__(self, weights: WeightMap, *, direct: bool = True) -> None:
        self.weights, self.files = weights, TensorFiles(direct=direct)

    def why_not(self, parameter: str) -> str:
        """Why single experts of a parameter cannot be read; empty if they can."""
        return self.weights.why_not.get(parameter, "")

    def read(self, parameter: str, expert: int | None, into: Tensor) -> None:
        """Fills the slab of one expert, (...) without E, of any type; without `expert`, the parameter is that of one.

        MoeprofError if a file cannot be read.
        """
        for part in self.weights.parts[parameter]:
            source, place = part.of(expert), into
            if part.dim is not None:
                place = into.narrow(part.dim, part.start, part.slab[part.dim])
            self.files.read(source, place.transpose(*part.swapped) if part.swapped else place)

    def whole(self, parameter: str) -> Tensor:
        """The whole parameter (E, ...), made by transformers' own operations, whatever they are."""
        target = next(each for each in self.weights.targets.values() if parameter in each.names)
        return self.weights.tensors(target, self.files)[parameter]


@dataclass(frozen=True)
class Part:
    """Tensors that fill a range of each expert's slab: one per expert, or one of all experts."""

    tensors: tuple[Stored, ...]
    stacked: bool = False
    """Whether every tensor is that of one expert."""
    swapped: tuple[int, int] | None = None
    """Dimensions of the slab that are exchanged in the checkpoint."""
    dim: int | None = None
    """The dimension of the slab along which parts follow each other; None if this is the only part."""
    start: int = 0

    @property
    def slab(self) -> tuple[int, ...]:
        """The shape of what it fills."""
        shape = list(self.tensors[0].shape[0 if self.stacked else 1 :])
        if self.swapped:
            one, other = self.swapped
            shape[one], shape[other] = shape[other], shape[one]
        return tuple(shape)

    def of(self, expert: int | None) -> Stored:
        """The tensor of one expert, contiguous in its file; without `expert`, all of it."""
        if expert is None:
            return self.tensors[0]
        return self.tensors[expert] if self.stacked else self.tensors[0].row(expert)


def parts_of(target: Target, shape: tuple[int, ...]) -> list[Part]:
    """How each expert's slab is read; NotImplementedError with the reason if it is no range of tensors in the checkpoint."""
    match operations(target):
        case []:
            return [Part(tuple(target.stored))]
        case [("MergeModulelist", {"dim": 0})] if len(target.patterns) == 1:
            return stacks(target)
        case [("MergeModulelist", {"dim": 0}), ("Concatenate", {"dim": dim})] if dim > 0 and len(target.names) == 1:
            return side_by_side(stacks(target), dim - 1)
        case [("Transpose", {"dim0": one, "dim1": other, "check_dims": check})] if (
            min(one, other) > 0 and len(target.stored) == 1
        ):
            needed = not check or target.stored[0].shape != shape
            return [Part(tuple(target.stored), swapped=(one - 1, other - 1) if needed else None)]
    raise NotImplementedError(f"transformers makes it by {', '.join(name for name, _ in operations(target))}")


def stacks(target: Target) -> list[Part]:
    """A part for each pattern, of tensors in the order of their experts."""
    return [Part(tuple(by_expert(target.sources[pattern])), stacked=True) for pattern in target.patterns]


def side_by_side(parts: Sequence[Part], dim: int) -> list[Part]:
    """The parts, each behind the one before along a dimension of the slab."""
    starts = accumulate((part.slab[dim] for part in parts), initial=0)
    return [replace(part, dim=dim, start=start) for part, start in zip(parts, starts, strict=False)]


def whole_shape(parts: Sequence[Part]) -> tuple[int, ...]:
    """The shape of the parameter that these parts fill."""
    first = parts[0]
    if not first.stacked and first.swapped is None:
        return first.tensors[0].shape
    slab = list(first.slab)
    if first.dim is not None:
        slab[first.dim] = sum(part.slab[first.dim] for part in parts)
    return (len(first.tensors) if first.stacked else first.tensors[0].shape[0], *slab)


def operations(target: Target) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of the operations that make a target, in their order."""
    return [] if target.converter is None else [(type(each).__name__, vars(each)) for each in target.converter.operations]


def by_expert(tensors: Sequence[Stored]) -> list[Stored]:
    """The tensors in the order of their experts."""
    return [tensor for _, tensor in sorted(zip(expert_ids(tensors), tensors, strict=True), key=lambda pair: pair[0])]


def expert_ids(tensors: Sequence[Stored]) -> list[int]:
    """The number in each name in which the names differ; positions if that is not a single number."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", tensor.name)] for tensor in tensors]
    differing = [column for column in zip(*numbers, strict=False) if len(set(column)) > 1]
    if len(differing) > 1 or len(set(map(len, numbers))) > 1:
        return list(range(len(tensors)))
    return list(differing[0]) if differing else [0] * len(tensors)


def with_tied(names: set[str], tied: Mapping[str, str]) -> set[str]:
    """The names, and those that share their memory with one of them; `tied` maps names to the name that they share it with."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name, source in tied.items():
        groups[source] |= {name, source}
    return names.union(*(group for group in groups.values() if group & names))


def loading_info(missing: Iterable[str] = (), unexpected: Iterable[str] = ()) -> "LoadStateDictInfo":
    """The record in which transformers notes what it found while it loads a checkpoint."""
    from transformers.utils.loading_report import LoadStateDictInfo

    return LoadStateDictInfo(
        missing_keys=set(missing),
        unexpected_keys=set(unexpected),
        mismatched_keys=set(),
        conversion_errors={},
        error_msgs=[],
        skipped_pp_keys=set(),
    )


def expert_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters of all experts that variants can execute, with some of them absent."""
    stacks = [(site, site.stack) for site in find_sites(model) if not site.num_zero]
    return [f"{site.path}.{name}" for site, stack in stacks if stack for name in stack.parameter_names]
