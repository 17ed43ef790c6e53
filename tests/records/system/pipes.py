"""Named pipes with some content."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fed(pipe: Path, content: bytes) -> Iterator[Path]:
    """A named pipe into which the content is written once."""
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content))
    writer.start()
    yield pipe
    writer.join(timeout=5)
    assert not writer.is_alive()
