"""How the reference results name the policies."""

POLICIES = {
    "lru": "lru",
    "fifo": "fifo",
    "lifo": "lifo",
    "lfu_incache": "lfu-reset",
    "lfu_perfect": "lfu",
    "belady_forced": "min",
    "belady_bypass": "min-bypass",
}
