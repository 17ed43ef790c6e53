"""The tokenizer of a Hugging Face model: text to token ids and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from moeprof.records.errors import UsageError
from moeprof.records.system.files import reason
from moeprof.store.checkpoint_folder import CheckpointFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDS_REMEDY = 'Save the tokenizer beside the model, or give token ids: --data FILE.jsonl with a line {"tokens": [1, 2, ...]} per document.'


class TextTokenizer:
    """What a workload and the pass `quality` ask of a tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, chat: bool = False) -> None:
        """With `chat`, each document goes through the tokenizer's chat template as a user's message. ValueError if it has none."""
        if chat and not getattr(tokenizer, "chat_template", None):
            raise ValueError("the tokenizer has no chat template")
        self.tokenizer, self.chat = tokenizer, chat
        self.special_ids = sorted(tokenizer.all_special_ids)
        self.first_ids: list[int] = self.added()
        """The ids that the tokenizer puts in front of every text, such as that of BOS."""
        self.end_ids: list[int] = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]

    def added(self) -> list[int]:
        """What is in front of the ids of a text if special tokens are asked for."""
        plain, whole = self.encode_plainly("a"), list(self.tokenizer("a")["input_ids"])
        return [int(token) for token in whole[: len(whole) - len(plain)]] if whole[-len(plain) :] == plain else []

    def encode(self, text: str) -> list[int]:
        """The ids of a document, without special tokens; with `chat`, those of the template around it."""
        if not self.chat:
            return self.encode_plainly(text)
        rendered: Any = self.tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        return self.encode_plainly(str(rendered))

    def encode_plainly(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]

    def is_text(self, ids: Tensor) -> Tensor:
        """Which ids are not special tokens, of the same shape."""
        return ~torch.isin(ids, torch.tensor(self.special_ids, dtype=ids.dtype, device=ids.device))

    def num_bytes(self, ids: Sequence[int]) -> int:
        """Bytes of UTF-8 behind ids, without special tokens."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return len(str(text).encode("utf-8", "surrogatepass"))


def load_tokenizer(folder: CheckpointFolder, *, chat: bool = False, trust_remote_code: bool = False) -> TextTokenizer:
    """The tokenizer in a checkpoint folder; UsageError if there is none, or it is damaged."""
    from transformers import AutoTokenizer

    if not folder.has_tokenizer:
        raise folder.refused("the folder has no tokenizer", IDS_REMEDY)
    try:
        return TextTokenizer(
            AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=trust_remote_code), chat=chat
        )
    except UsageError:
        raise
    except Exception as error:
        raise folder.refused(f"its tokenizer cannot be used: {reason(error)}", IDS_REMEDY) from error
