"""The stores whose experts are in cache slots."""

from moeprof.store.buffered import BufferedStore
from moeprof.store.offloaded import OffloadedStore

SlotStore = BufferedStore | OffloadedStore
SLOT_STORES = (BufferedStore, OffloadedStore)
