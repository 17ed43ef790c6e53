"""The known ways of calling experts; the first that recognises a module reads it."""

from moeprof.huggingface.adapters.adapter import Adapter
from moeprof.huggingface.adapters.decorated import Decorated
from moeprof.huggingface.adapters.jetmoe import JetMoe
from moeprof.huggingface.adapters.llama4 import Llama4
from moeprof.huggingface.adapters.longcat import Longcat
from moeprof.huggingface.adapters.switch import Switch
from moeprof.huggingface.adapters.three_arguments import ThreeArguments
from moeprof.huggingface.adapters.zaya import Zaya

ADAPTERS: tuple[Adapter, ...] = (Zaya(), Decorated(), Longcat(), ThreeArguments(), Llama4(), JetMoe(), Switch())
