"""What a file or folder is that no trace format reads, for the error that refuses it."""

import re
from pathlib import Path

from moeprof.records.system.inputs import InputFile
from moeprof.records.system.parsing import parsed_json

BINARY = (
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"ARROW1", "an Arrow file"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
)
"""First bytes of files, and what the files are."""

ZIPPED = ((b"/data.pkl", "a PyTorch file (torch.save)"), (b".npy", "a NumPy archive (.npz)"), (b"", "a zip archive"))
"""Names in a zip archive, and what the archives are."""

JSON = (
    (r'"model_type"', "the configuration of a model"),
    (r'"moeprof_version"', "a JSON file of moeprof, but not a trace"),
    (r'"num_experts"[\s\S]*"layers"', "a placement, which `moeprof placement show` reads"),
    (r'"moe_layer_count"', "a placement, which `moeprof placement show` reads"),
    (r'"logical_count"', "counts of experts, which `moeprof characterize` reads"),
    (r"", "JSON of unknown content"),
)
"""Patterns of keys of JSON documents, and what the documents are."""

JSON_BEGIN = re.compile(r'\s*([{\[]\s*)+(["\d}\]-]|$)')
"""How JSON begins, and no section of a recipe."""

WEIGHTS = ("config.json", "*.safetensors", "*.gguf", "*.bin", "*.pt", "*.pth")
"""Files of a folder that holds a model."""


def kind_of_file(file: InputFile) -> str:
    """What a file is, from its first bytes; JsonError if it is JSON that was cut or is broken."""
    head, text = file.head, file.head_text
    for begin, kind in BINARY:
        if head.startswith(begin):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return next(kind for name, kind in ZIPPED if name in head)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "weights (.safetensors)"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if JSON_BEGIN.match(text):
        if not is_json(text.strip().partition("\n")[0]):
            file.json()
        return next(kind for keys, kind in JSON if re.search(keys, text))
    if not text.strip():
        return "an empty file"
    line = text.strip().partition("\n")[0]
    return (
        f"text that begins with {line[:60]!r}" if line.replace("\t", " ").isprintable() else "binary data of an unknown format"
    )


def is_json(line: str) -> bool:
    """Whether a line is JSON by itself, as the first one of JSON lines is."""
    try:
        parsed_json(line)
    except ValueError:
        return False
    return True


def kind_of_folder(folder: Path) -> str:
    """What a folder without `run.json` is, and the run directories in or above it."""
    if runs := sorted(file.parent.name for file in folder.glob("*/run.json")):
        return f"a folder of runs, of which one is needed: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}"
    if (folder.absolute().parent / "run.json").is_file():
        return f"a folder of the run directory {folder.absolute().parent}"
    if found := next((file.name for pattern in WEIGHTS for file in sorted(folder.glob(pattern))), None):
        return f"a model's folder ({found}), not a run directory"
    return "a folder without run.json, so not a run directory"
