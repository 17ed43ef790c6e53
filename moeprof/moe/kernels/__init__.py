"""Kernels, which turn expert rows into expert outputs: one file per kernel, and one line each in the registry."""

from moeprof.moe.experts import Kernel
from moeprof.moe.kernels.auto import auto
from moeprof.moe.kernels.bmm import bmm
from moeprof.moe.kernels.grouped_mm import grouped_mm
from moeprof.moe.kernels.loop import loop

KERNELS: dict[str, Kernel] = {"bmm": bmm, "loop": loop, "grouped_mm": grouped_mm, "auto": auto}
