"""The folder of a checkpoint by its path or its id on the hub of Hugging Face, for a transformers that is new enough."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.files import reason
from moeprof.store.checkpoint_folder import FOLDER, CheckpointFolder, read_folder

OLDEST = (5, 18)
"""The first version of transformers whose interface of experts is complete and whose Switch drops what is over the capacity."""

DOWNLOADED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py"]


def open_folder(model: str) -> CheckpointFolder:
    """The folder at a path, or that of an id on the hub; UsageError if it is not a checkpoint in safetensors files."""
    check_transformers()
    return read_folder(Path(model) if Path(model).is_dir() else from_hub(model), model)


def check_transformers() -> None:
    """UsageError if transformers is missing or too old."""
    remedy = "Install the extra: pip install --upgrade 'moeprof[hf]'"
    try:
        found = version("transformers")
    except PackageNotFoundError as error:
        raise UsageError("Hugging Face models need transformers, which is not installed", remedy) from error
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        what = f"transformers {found} is too old: before {oldest}, Switch models never drop a token, whatever their capacity"
        raise UsageError(what, remedy)


def from_hub(model: str) -> Path:
    """The folder of an id in the cache of huggingface_hub, downloaded if the network can be used; UsageError otherwise."""
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HFValidationError

    offline = is_offline_mode()
    try:
        return Path(snapshot_download(model, local_files_only=offline, allow_patterns=DOWNLOADED, ignore_patterns=["*/*"]))
    except HFValidationError as error:
        raise UsageError(f"model {model}: no such folder, and not an id such as owner/name", FOLDER) from error
    except OSError as error:
        why = "HF_HUB_OFFLINE is set" if offline else reason(error)
        remedy = "Unset HF_HUB_OFFLINE, or download it on another machine and give the folder: --model ./folder"
        raise UsageError(f"model {model}: no such folder, and the id is not in the local cache ({why})", remedy) from error
